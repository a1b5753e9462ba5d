"""A client by docs/PROTOCOL.md that does what a test says, rules or not: blocking, one socket, no reconnects."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections import deque
from typing import Any, Callable

from iris_client import _protocol as p

from . import ids
from .wait import PATIENCE

ACCEPTED = "accepted"


class Closed(Exception):
    """The server ended the connection; ``error`` is its last word, if it said one."""

    def __init__(self, error: p.ErrorReport | None) -> None:
        super().__init__(f"closed with {p.code_name(error.code) if error else 'no word'}")
        self.error = error
        self.code = p.code_name(error.code) if error else None


class NotYet(AssertionError):
    """What was waited for did not come in time."""


class Client:
    """One connection. What arrives is filed: answers, inbox, presence, drain, error."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        rcvbuf: int | None = None,
        timeout: float = PATIENCE,
        source: str | None = None,
        tls: ssl.SSLContext | None = None,
        name: str = "localhost",
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.timeout = timeout
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.socket.settimeout(timeout)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=name, session=session)
        self.address = self.socket.getsockname()
        self.reader = p.FrameReader()
        self.welcome: p.Welcome | None = None
        self.answers: dict[int, Any] = {}
        self.copies: dict[int, int] = {}
        self.retry_after_ms: dict[int, int] = {}
        self.inbox: deque[p.Delivery] = deque()
        self.presence: list[p.PresenceReport] = []
        self.pongs: list[p.Pong] = []
        self.pings = 0
        self.answers_pings = True
        self.drain: p.Drain | None = None
        self.error: p.ErrorReport | None = None
        self.closed = False
        self.reset = False
        self.next_seq = 0
        self.user = ""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close with FIN (or RST if there is something unread)."""
        self.socket.close()
        self.closed = True

    def abort(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    # ---- out

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def hello(self, user: str, token: str, window: int = 256, device: str = "e2e") -> None:
        """Send HELLO and wait for nothing."""
        self.user = user
        self.raw(p.encode_hello(user, device, token, window))

    def login(self, user: str, token: str, window: int = 256) -> Client:
        """Log in; ``Closed`` if refused."""
        self.hello(user, token, window)
        self.pump(lambda: self.welcome is not None)
        return self

    def send(
        self,
        to: str | list[str],
        payload: bytes = b"",
        *,
        msg_id: bytes | None = None,
        receipt: bool = False,
        seq: int | None = None,
    ) -> int:
        """Send a SEND and wait for nothing; return its seq."""
        names = [to] if isinstance(to, str) else to
        if seq is None:
            seq = self.next_seq
        self.next_seq = (seq + 1) & 0xFFFF_FFFF
        encoded = b"".join(map(p.encode_name, names))
        flags = p.WANTS_RECEIPT if receipt else 0
        self.raw(p.encode_send(seq, msg_id or ids.now(), flags, encoded, len(names), payload))
        return seq

    def ask(self, to: str | list[str], payload: bytes = b"", **options: Any) -> str:
        """Send, and return ``"accepted"`` or the name of the refusal."""
        seq = self.send(to, payload, **options)
        return self.answer(seq)

    def ack(self, upto: int) -> None:
        """Send ACK."""
        self.raw(p.encode_ack(upto))

    def window(self, window: int) -> None:
        """Send WINDOW."""
        self.raw(p.encode_window(window))

    def query(self, query: int, users: list[str], *, watch: bool = False) -> None:
        """Send PRESENCE_QUERY."""
        self.raw(p.encode_presence_query(query, users, watch=watch))

    # ---- in

    def pump(self, until: Callable[[], Any], timeout: float | None = None) -> None:
        """Read and file frames until the condition holds. ``Closed`` when the stream ends first, ``NotYet`` in between."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not until():
            if self.closed or self.error:
                raise Closed(self.error)
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                raise NotYet(f"{self.user}: what was waited for did not come") from None
            except ConnectionError:
                self.closed, self.reset = True, True
                continue
            finally:
                self.socket.settimeout(self.timeout)
            if not data:
                self.closed = True
            for kind, body in self.reader.feed(data):
                self.file(p.decode_server(kind, body))

    def file(self, frame: Any) -> None:
        """Put a frame where tests look for it."""
        assert self.error is None, f"{frame} after ERROR"
        if isinstance(frame, p.Welcome):
            assert self.welcome is None, "a second WELCOME"
            self.welcome = frame
        elif isinstance(frame, p.Accepted):
            for first, count in frame.runs:
                for seq in range(first, first + count):
                    self.file_answer(seq & 0xFFFF_FFFF, ACCEPTED)
                    self.copies[seq & 0xFFFF_FFFF] = frame.copies
        elif isinstance(frame, p.Rejections):
            for seq, code, retry_after_ms in frame.entries:
                self.file_answer(seq, p.code_name(code))
                self.retry_after_ms[seq] = retry_after_ms
        elif isinstance(frame, p.Delivery):
            self.inbox.append(frame)
        elif isinstance(frame, p.PresenceReport):
            self.presence.append(frame)
        elif isinstance(frame, p.Ping):
            self.pings += 1
            if self.answers_pings:
                self.raw(p.encode_pong(frame.echo))
        elif isinstance(frame, p.Pong):
            self.pongs.append(frame)
        elif isinstance(frame, p.Drain):
            self.drain = frame
        elif isinstance(frame, p.ErrorReport):
            self.error = frame

    def file_answer(self, seq: int, answer: str) -> None:
        """Note the one answer of a SEND."""
        assert seq not in self.answers, f"SEND {seq} was answered twice"
        self.answers[seq] = answer

    def answer(self, seq: int, timeout: float | None = None) -> str:
        """Wait for the answer of a SEND and take it."""
        self.pump(lambda: seq in self.answers, timeout)
        return self.answers.pop(seq)

    def take(self, count: int, timeout: float | None = None) -> list[p.Delivery]:
        """Wait for that many deliveries and take them."""
        self.pump(lambda: len(self.inbox) >= count, timeout)
        return [self.inbox.popleft() for _ in range(count)]

    def sync(self) -> None:
        """PING and wait for the PONG: all that was sent before has been read by the server."""
        number = len(self.pongs)
        self.raw(p.encode_ping(number.to_bytes(8, "big")))
        self.pump(lambda: len(self.pongs) > number)

    def drain_inbox(self, to: str | None = None) -> list[p.Delivery]:
        """Take and acknowledge everything that waits, up to a message to oneself that marks the end."""
        mark = ids.now()
        name = to or self.welcome.user if self.welcome else self.user
        self.send(name, b"", msg_id=mark)
        got: list[p.Delivery] = []
        while not got or got[-1].id != mark:
            (delivery,) = self.take(1)
            got.append(delivery)
            if len(got) % 64 == 0 or not self.inbox:
                self.ack(delivery.no)
        self.sync()
        return got[:-1]

    def drain_until_empty(self, count: int) -> list[p.Delivery]:
        """Take and acknowledge so many messages, without sending anything."""
        got: list[p.Delivery] = []
        while len(got) < count:
            got += self.take(1)
            if len(got) % 64 == 0 or not self.inbox:
                self.ack(got[-1].no)
        self.sync()
        return got

    def end(self, timeout: float | None = None) -> str | None:
        """Wait for the server to end the connection; return the name of its ERROR's code, if it said one."""
        try:
            self.pump(lambda: False, timeout)
        except Closed as closed:
            if closed.code != "draining":
                self.read_to_end()
            return closed.code
        raise AssertionError("unreachable")

    def last_words(self) -> None:
        """Read what was said before the server closed, after a send found it closed."""
        try:
            self.pump(lambda: False)
        except Closed:
            pass

    def read_to_end(self) -> None:
        """Check that nothing follows an ERROR. A server that drains leaves the end to its clients."""
        while not self.closed:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionError:
                data = b""
            self.closed = not data
            for kind, body in self.reader.feed(data):
                self.file(p.decode_server(kind, body))
