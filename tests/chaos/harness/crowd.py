"""Many clients in one thread. Each is one user by docs/PROTOCOL.md, who comes back and sends again what has no answer.

The thread that causes faults says what users should do by setting their fields; the clients' thread looks at them at
least every few milliseconds. Everything that happens is written into the account.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from iris_client import _protocol as p
from support import ids

from .account import Account, Broken, Key, content

#: Seconds between two looks at what users should do.
TICK = 0.004
#: Seconds that a user waits before connecting again.
COMES_BACK = 0.05
#: Seconds that a connection may take to be made and to be logged in.
LOGIN_PATIENCE = 8.0


class Message:
    """A message of a user, until it is accepted."""

    __slots__ = ("due", "id", "payload", "receipt", "to", "under_way")

    def __init__(self, to: str, msg_id: bytes, payload: bytes, receipt: bool) -> None:
        self.to = to
        self.id = msg_id
        self.payload = payload
        self.receipt = receipt
        self.due = 0.0
        self.under_way = False


class User:
    """One user, who has one connection at a time."""

    def __init__(self, crowd: Crowd, name: str, edges: list[tuple[str, int]]) -> None:
        self.crowd = crowd
        self.name = name
        self.edges = edges
        # What it should do; set by whoever steers.
        self.online = False
        self.quiet = False
        self.acks = True
        self.recipients: list[str] = []
        #: Unanswered SENDs at most; 1 is lock-step.
        self.window = 1
        #: Seconds between new messages; 0: as fast as the window allows.
        self.interval = 0.01
        #: Each n-th message asks for a receipt; 0: none does.
        self.receipt_every = 3
        #: New messages still to be begun.
        self.budget = 0
        #: Ids of messages to say again although they may have been answered, oldest first.
        self.again: list[Message] = []
        # What it does.
        self.unanswered: OrderedDict[bytes, Message] = OrderedDict()
        self.begun: list[Message] = []
        self.refused_for_good: list[str] = []
        self.state = "away"
        self.edge = 0
        self._socket: socket.socket | None = None
        self._life = 0
        self._wake_at = 0.0
        self._next_at = 0.0
        self._out = bytearray()
        self._mask = 0
        self._seq = 0
        self._seqs: dict[int, Message] = {}
        self._reader = p.FrameReader()
        self._unacked = 0
        self._pongs = 0
        self._pings = 0
        self.waiting = 0

    # ---- for whoever steers

    @property
    def is_live(self) -> bool:
        """Whether it is logged in."""
        return self.state == "live"

    @property
    def is_idle(self) -> bool:
        """Whether all it began is answered, and nothing more is to be begun."""
        return not self.unanswered and not self.budget and not self.again

    # ---- the connection

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self.state == "away":
            if self.online and now >= self._wake_at:
                self._connect(now)
        elif not self.online:
            self._leave(now)
        elif self.state != "live":
            if now >= self._wake_at:
                self._fail("no login in time", now)
        else:
            self._send_due(now)
            self._flush(now)

    def _connect(self, now: float) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):
            try:
                self._socket.connect(self.edges[self.edge % len(self.edges)])
            except OSError as error:
                if not isinstance(error, BlockingIOError):
                    self._fail(f"connect: {error}", now)
                    return
        self.state = "connecting"
        self._wake_at = now + LOGIN_PATIENCE
        self._reader = p.FrameReader()
        self._seqs = {}
        self._unacked = self._pongs = self._pings = 0
        for message in self.unanswered.values():
            message.under_way = False
            message.due = 0.0
        self._out = bytearray(p.encode_hello(self.name, "chaos", self.crowd.token(self.name), 1024))
        self._watch(selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _watch(self, mask: int) -> None:
        assert self._socket
        if self._mask == 0:
            self.crowd.selector.register(self._socket, mask, self)
        elif mask != self._mask:
            self.crowd.selector.modify(self._socket, mask, self)
        self._mask = mask

    def _drop(self) -> None:
        if self._socket:
            if self._mask:
                self.crowd.selector.unregister(self._socket)
            self._socket.close()
        self._socket, self._mask, self.state, self._wake_at = None, 0, "away", 0.0

    def _fail(self, why: str, now: float) -> None:
        """The connection ended, and was not meant to: note it, and come back elsewhere."""
        if self.state == "live":
            self.crowd.account.broken.append(Broken(now, self.name, why))
        self._drop()
        self.edge += 1
        self._wake_at = now + COMES_BACK

    def _leave(self, now: float) -> None:
        """Close in order: what was acknowledged has been read by the server."""
        if self.state != "live":
            self._drop()
        elif not self._pings:
            self._ack()
            self._out += p.encode_ping(bytes(8))
            self._pings = 1
            self._flush(now)
        elif self._pongs:
            self._drop()

    def on_event(self, mask: int, now: float) -> None:
        """The socket is ready."""
        try:
            if mask & selectors.EVENT_WRITE:
                self._flush(now)
            if mask & selectors.EVENT_READ and self._socket:
                self._receive(now)
        except OSError as error:
            self._fail(f"{type(error).__name__}", now)

    def _flush(self, now: float) -> None:
        if not self._socket:
            return
        if self.state == "connecting":
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._fail(f"connect: errno {error}", now)
                return
            self.state = "login"
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._fail(f"{type(error).__name__}", now)
            return
        self._watch(selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0))

    # ---- in

    def _receive(self, now: float) -> None:
        assert self._socket
        try:
            data = self._socket.recv(1 << 18)
        except (BlockingIOError, InterruptedError):
            return
        if not data:
            self._fail("closed by the server", now)
            return
        for kind, body in self._reader.feed(data):
            self._handle(p.decode_server(kind, body), now)
            if not self._socket:
                return
        if self._unacked and self.acks:
            self._ack()
        self._send_due(now)
        self._flush(now)

    def _ack(self) -> None:
        if self._unacked and self.acks:
            self._out += p.encode_ack(self._unacked)
            self._unacked = 0

    def _handle(self, said: p.ServerFrame, now: float) -> None:
        account = self.crowd.account
        if isinstance(said, p.Accepted):
            for first, count in said.runs:
                for seq in range(first, first + count):
                    message = self._seqs.pop(seq & 0xFFFF_FFFF)
                    self.unanswered.pop(message.id, None)
                    account.note_accepted(Key(self.name, message.id, message.to), now, said.copies)
        elif isinstance(said, p.Rejections):
            for seq, code, retry_after_ms in said.entries:
                self._refused(self._seqs.pop(seq), code, retry_after_ms, now)
        elif isinstance(said, p.Delivery):
            self._unacked = said.no
            if said.flags & p.IS_RECEIPT:
                account.note_receipt(Key(self.name, said.id, said.sender), now)
            else:
                account.note_received(self._life, Key(said.sender, said.id, self.name), now, said.payload)
        elif isinstance(said, p.Welcome):
            self.waiting = said.waiting
            self._life = account.begin_life(self.name, now, quiet=self.quiet, peek=not self.acks)
            self.state = "live"
        elif isinstance(said, p.Ping):
            self._out += p.encode_pong(said.echo)
        elif isinstance(said, p.Pong):
            self._pongs += 1
        elif isinstance(said, p.ErrorReport):
            self._fail(p.code_name(said.code), now)

    def _refused(self, message: Message, code: int, retry_after_ms: int, now: float) -> None:
        self.crowd.account.refusals[p.code_name(code)] += 1
        message.under_way = False
        if code >= p.RETRYABLE:
            message.due = now + max(retry_after_ms, 20) / 1000
        else:
            self.unanswered.pop(message.id, None)
            self.refused_for_good.append(p.code_name(code))

    # ---- out

    def _send_due(self, now: float) -> None:
        """Say again what has no answer, in the old order, then begin what the window and the interval allow."""
        if self.state != "live":
            return
        while self.again and len(self._seqs) < self.window:
            message = self.again.pop(0)
            self.unanswered[message.id] = message
            self._say(message, now)
        if len(self._seqs) < len(self.unanswered):
            for message in self.unanswered.values():
                if not message.under_way and message.due <= now and len(self._seqs) < p.SEND_WINDOW_MAX:
                    self._say(message, now)
        while self.budget > 0 and len(self.unanswered) < self.window and now >= self._next_at:
            if not self.recipients:
                return
            self._next_at = max(self._next_at + self.interval, now - 10 * self.interval)
            self._say(self._make(), now)

    def _make(self) -> Message:
        count = len(self.begun)
        to = self.recipients[count % len(self.recipients)]
        msg_id = ids.now()
        receipt = bool(self.receipt_every) and count % self.receipt_every == 0
        message = Message(to, msg_id, content(self.name, msg_id), receipt)
        self.begun.append(message)
        self.unanswered[msg_id] = message
        self.budget -= 1
        return message

    def _say(self, message: Message, now: float) -> None:
        self.crowd.account.note_sent(Key(self.name, message.id, message.to), now)
        flags = p.WANTS_RECEIPT if message.receipt else 0
        self._seqs[self._seq] = message
        message.under_way = True
        self._out += p.encode_send(self._seq, message.id, flags, p.encode_name(message.to), 1, message.payload)
        self._seq = (self._seq + 1) & 0xFFFF_FFFF


class Crowd:
    """All users of a round and their thread."""

    def __init__(self, account: Account, token: Callable[[str], str]) -> None:
        self.account = account
        self.token = token
        self.users: dict[str, User] = {}
        self.selector = selectors.DefaultSelector()
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crowd", daemon=True)
        self._thread.start()

    def add(self, name: str, edges: list[tuple[str, int]]) -> User:
        """Return a new user, who is away."""
        user = User(self, name, edges)
        self.users = {**self.users, name: user}
        return user

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for key, mask in self.selector.select(TICK):
                    key.data.on_event(mask, time.monotonic())
                now = time.monotonic()
                for user in self.users.values():
                    user.tick(now)
        except BaseException as failure:  # noqa: BLE001 - raised by check()
            self.failure = failure

    def check(self) -> None:
        """Raise what ended the clients' thread."""
        if self.failure is not None:
            raise AssertionError(f"a client met what the protocol forbids: {self.failure!r}") from self.failure

    def stop(self) -> None:
        """End the thread and close all connections."""
        self._stop.set()
        self._thread.join()
        for user in self.users.values():
            user._drop()
        self.selector.close()
