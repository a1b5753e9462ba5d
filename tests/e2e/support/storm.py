"""Clients that come in an open loop, each to send one message and leave, or to stay; all do what DRAIN and ERROR say.

One thread, epoll, no library: how a connection begins and ends is what is looked at. A client whose connection ends before
its message was accepted comes back, when it was told to if it was, and sends the message again with the same id.
"""

from __future__ import annotations

import errno
import heapq
import os
import random
import selectors
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from iris_client import _protocol as p

from . import ids, tokens

#: The wait after an end that said nothing, at most, seconds (docs/PROTOCOL.md, section 9, first attempt).
BACKOFF = 0.25


@dataclass(eq=False)
class Guest:
    """One client, in as many connections as it takes."""

    user: str
    token: str
    stays: bool
    msg_id: bytes = b""
    socket: socket.socket | None = None
    reader: p.FrameReader = field(default_factory=p.FrameReader)
    is_connecting: bool = False
    is_welcome: bool = False
    is_done: bool = False
    #: When it comes back and when it must be back at the latest, by what it was told.
    due: float = 0.0
    promised: float | None = None


class Storm(threading.Thread):
    """`rate` clients a second from start to :meth:`stop`, besides `residents` who stay."""

    def __init__(self, address: tuple[str, int], key: bytes, to: str, rate: float, residents: int) -> None:
        super().__init__(daemon=True)
        self.address, self.key, self.to, self.rate = address, key, to, rate
        self.selector = selectors.DefaultSelector()
        self.residents = [self.guest(f"resident-{number}", True) for number in range(residents)]
        self.made: list[Guest] = []
        self.waiting: list[tuple[float, int, Guest]] = []
        #: How connections began and ended.
        self.counts: Counter[str] = Counter()
        #: Seconds after what was advertised, of each client that was told when to come back; below 0: before.
        self.lateness: list[float] = []
        self.failure: BaseException | None = None
        self.closing = threading.Event()
        self.made_until = 0.0

    # ---- for tests

    def stop(self, timeout: float) -> None:
        """Let nobody more come, and wait until all who came are done and all residents are there."""
        self.closing.set()
        self.join(timeout)
        if self.failure:
            raise self.failure
        assert not self.is_alive(), f"not all are done: {self.counts}"

    def online(self) -> int:
        """Return how many residents are logged in."""
        return sum(guest.is_welcome for guest in self.residents)

    # ---- the loop

    def guest(self, user: str, stays: bool) -> Guest:
        """Return a client that has not come yet."""
        return Guest(user, tokens.user_token(self.key, user), stays)

    def run(self) -> None:
        """Run until all are done."""
        try:
            for resident in self.residents:
                self.connect(resident)
            began = time.monotonic()
            while not self.is_over():
                now = time.monotonic()
                if not self.closing.is_set():
                    self.made_until = now - began
                    while len(self.made) < self.made_until * self.rate:
                        self.made.append(self.guest(f"guest-{len(self.made)}", False))
                        self.connect(self.made[-1])
                while self.waiting and self.waiting[0][0] <= now:
                    self.connect(heapq.heappop(self.waiting)[2])
                for key, _ in self.selector.select(0.001):
                    self.ready(key.data)
        except BaseException as failure:
            self.failure = failure
        finally:
            for guest in [*self.residents, *self.made]:
                if guest.socket:
                    guest.socket.close()

    def is_over(self) -> bool:
        if not self.closing.is_set() or self.waiting:
            return False
        return all(guest.is_done for guest in self.made) and self.online() == len(self.residents)

    def connect(self, guest: Guest) -> None:
        """Begin a connection."""
        self.counts["attempts"] += 1
        guest.due = 0.0
        guest.socket, guest.reader = socket.socket(), p.FrameReader()
        guest.socket.setblocking(False)
        guest.is_connecting = True
        code = guest.socket.connect_ex(self.address)
        assert code in (0, errno.EINPROGRESS), os.strerror(code)
        self.selector.register(guest.socket, selectors.EVENT_WRITE, guest)

    def ready(self, guest: Guest) -> None:
        """Go on with a connection."""
        assert guest.socket
        if guest.is_connecting:
            guest.is_connecting = False
            code = guest.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                return self.end(guest, errno.errorcode[code])
            self.counts["connected"] += 1
            self.selector.modify(guest.socket, selectors.EVENT_READ, guest)
            return self.say(guest, p.encode_hello(guest.user, "storm", guest.token, 0))
        try:
            data = guest.socket.recv(1 << 16)
        except ConnectionError as error:
            return self.end(guest, "reset" if isinstance(error, ConnectionResetError) else "broken")
        for kind, body in guest.reader.feed(data):
            self.hear(guest, p.decode_server(kind, body))
            if guest.socket is None:
                return None
        return None if data else self.end(guest, "closed")

    def say(self, guest: Guest, data: bytes) -> None:
        """Send; an error shows at the next read."""
        assert guest.socket
        try:
            guest.socket.send(data)
        except OSError:
            self.counts["not_sent"] += 1

    def hear(self, guest: Guest, frame: object) -> None:
        """Take what the server says."""
        if isinstance(frame, p.Welcome):
            guest.is_welcome = True
            self.counts["welcomed"] += 1
            if guest.promised is not None:
                self.lateness.append(time.monotonic() - guest.promised)
            guest.promised, guest.due = None, 0.0
            guest.msg_id = guest.msg_id or ids.now()
            to = p.encode_name(self.to)
            if not guest.is_done:
                self.say(guest, p.encode_send(0, guest.msg_id, 0, to, 1, guest.user.encode()))
        elif isinstance(frame, p.Accepted):
            guest.is_done = True
            if not guest.stays:
                self.end(guest, "done")
        elif isinstance(frame, p.Ping):
            self.say(guest, p.encode_pong(frame.echo))
        elif isinstance(frame, p.Drain):
            self.counts["told"] += 1
            self.promise(guest, frame.retry_after_ms, frame.jitter_ms)
        elif isinstance(frame, p.ErrorReport):
            self.counts[p.code_name(frame.code)] += 1
            if guest.promised is None:
                self.promise(guest, frame.retry_after_ms, max(frame.retry_after_ms, int(BACKOFF * 1000)))
            # Who is told why closes; the server waits for that.
            self.end(guest, "closed")

    def promise(self, guest: Guest, least_ms: int, jitter_ms: int) -> None:
        """Note when to come back."""
        now = time.monotonic()
        guest.due = now + (least_ms + random.random() * jitter_ms) / 1000
        guest.promised = now + (least_ms + jitter_ms) / 1000

    def end(self, guest: Guest, how: str) -> None:
        """A connection is over."""
        assert guest.socket
        self.counts[how] += 1
        self.selector.unregister(guest.socket)
        guest.socket.close()
        guest.socket, guest.is_welcome = None, False
        if how != "done":
            now = time.monotonic()
            due = max(now, guest.due or now + random.random() * BACKOFF)
            heapq.heappush(self.waiting, (due, id(guest), guest))
