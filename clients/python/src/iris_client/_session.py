"""One user's session over any number of connections, without I/O.

The machine takes bytes and the monotonic time in; bytes (:meth:`Session.output`) and events
(:attr:`Session.events`) come out. It owns what must outlive a connection: messages that are not
decided yet, which ones were seen, whom to watch. Whoever drives it owns sockets, timers and waiting
callers, and does after each call: write ``output()``, act on ``events``, look at ``next_tick()``.

Nothing grows on the server's word: windows, bytes and numbers are checked against what it granted.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Optional, Union

from . import _protocol as wire
from ._ids import MessageIds
from ._receiving import Receiving
from ._sending import SendAccepted, Sending, SendOp, SendRefused, SendUnknown
from ._types import Message
from ._watching import QueryOp, Watching

#: Silence, in seconds, after which a connection that owes answers counts as dead.
ANSWER_SILENCE = 20.0


class Live(NamedTuple):
    """The login is done."""

    welcome: wire.Welcome


class Arrived(NamedTuple):
    """There is something new in the inbox."""


class PresenceAnswered(NamedTuple):
    """A question about presence is answered."""

    op: QueryOp


class PresenceChanged(NamedTuple):
    """There is something new in the changes."""


class Draining(NamedTuple):
    """The server asks to come back later."""

    retry_after_ms: int
    jitter_ms: int


class Flushed(NamedTuple):
    """The server has read everything up to :meth:`Session.finish`."""


class Ended(NamedTuple):
    """This connection is over.

    ``code`` is the number of an ERROR, or 0 where this side found the fault: ``name`` is that of
    the rule the server broke, or "silent".
    """

    code: int
    name: str
    text: str
    retry_after_ms: int


Event = Union[
    Live,
    Arrived,
    SendAccepted,
    SendRefused,
    SendUnknown,
    PresenceAnswered,
    PresenceChanged,
    Draining,
    Flushed,
    Ended,
]


class Session:
    """See the module's description."""

    def __init__(
        self,
        device: str = "",
        window: int = 256,
        on_ack: Optional[Callable[[Message], None]] = None,
        rng: Optional[random.Random] = None,
    ) -> None:
        self.device = device
        self.window = window
        self.ids = MessageIds()
        self.events: deque[Event] = deque()
        self.welcome: Optional[wire.Welcome] = None
        self.paused = False
        self.sending = Sending(self.ids, rng or random.Random())
        self.receiving = Receiving(on_ack or self.done)
        self.watching = Watching()
        self._out: list[bytes] = []
        self._reader = wire.FrameReader()
        self._state = "idle"
        self._heard = 0.0
        self._pinged = False
        self._flush_echo: Optional[bytes] = None
        self._echoes = itertools.count(1)

    @property
    def is_live(self) -> bool:
        """Whether WELCOME came and the connection did not end since."""
        return self._state == "live"

    # ---- the connection ------------------------------------------------------------------------

    def start(self, user: str, token: str, now: float) -> None:
        """Begin a new connection: HELLO is the first output."""
        assert self._state == "idle", "a session has one connection at a time"
        self._out = [wire.encode_hello(user, self.device, token, self.window)]
        self._state = "login"
        self._reader = wire.FrameReader()
        self._heard = now
        self._pinged = False
        self._flush_echo = None
        self.paused = False

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the server."""
        if self._state not in ("login", "live"):
            return
        try:
            for kind, body in self._reader.feed(data):
                self._heard = now
                self._pinged = False
                self._handle(wire.decode_server(kind, body), now)
                if self._state == "ended":
                    return
        except wire.WireError as error:
            self._end(Ended(0, error.code, f"the server broke the protocol: {error}", 0))
            return
        self._pump(now)

    def output(self) -> bytes:
        """Return the bytes to write now; one ACK covers all that was done since the last call."""
        if self.is_live:
            self._out.append(self.receiving.ack())
        out = b"".join(self._out)
        self._out.clear()
        return out

    def lost(self) -> None:
        """End the connection on this side: what may be repeated waits for the next one."""
        self._state = "idle"
        self._out.clear()
        self.events.extend(self.sending.lost())
        self.receiving.lost()
        self.watching.lost()

    def finish(self) -> bool:
        """Ask the server to say when it has read all acknowledgements; then `Flushed` comes."""
        if not self.is_live:
            return False
        self._out.append(self.receiving.ack())
        self._out.append(wire.encode_window(0))
        self._flush_echo = self._ping()
        return True

    def _end(self, ended: Ended) -> None:
        self._state = "ended"
        self.events.append(ended)

    def _handle(self, said: wire.ServerFrame, now: float) -> None:
        if isinstance(said, wire.ErrorReport):
            name = wire.code_name(said.code)
            self._end(Ended(said.code, name, said.text or name, said.retry_after_ms))
        elif self._state == "login":
            if not isinstance(said, wire.Welcome):
                raise wire.WireError("out_of_order", f"{type(said).__name__} before WELCOME")
            self._welcome(said, now)
        elif isinstance(said, wire.Delivery):
            if self.receiving.delivery(said):
                self._tell(Arrived())
        elif isinstance(said, wire.Accepted):
            self.events.extend(self.sending.accepted(said))
        elif isinstance(said, wire.Rejections):
            self.events.extend(self.sending.rejected(said, now))
        elif isinstance(said, wire.PresenceReport):
            self._presence(said)
        else:
            self._control(said, now)

    def _control(self, said: wire.ServerFrame, now: float) -> None:
        if isinstance(said, wire.Ping):
            self._out.append(wire.encode_pong(said.echo))
        elif isinstance(said, wire.Pong):
            self.ids.set_clock(said.time_ms, now)
            if said.echo == self._flush_echo:
                self.events.append(Flushed())
        elif isinstance(said, wire.Drain):
            self.events.append(Draining(said.retry_after_ms, said.jitter_ms))
        elif isinstance(said, wire.Welcome):
            raise wire.WireError("out_of_order", "a second WELCOME")

    def _welcome(self, welcome: wire.Welcome, now: float) -> None:
        if welcome.version != wire.VERSION:
            raise wire.WireError("version", f"WELCOME to version {welcome.version}")
        if welcome.send_window == 0 or welcome.recv_window > self.window:
            raise wire.WireError("malformed", "WELCOME with windows that cannot be")
        self.welcome = welcome
        self.ids.set_clock(welcome.server_time_ms, now)
        self.receiving.restart(welcome.recv_window)
        self.watching.restart()
        self._state = "live"
        self.events.append(Live(welcome))

    def _presence(self, said: wire.PresenceReport) -> None:
        answered, news = self.watching.report(said)
        if answered is not None:
            self.events.append(PresenceAnswered(answered))
        if news:
            self._tell(PresenceChanged())

    def _tell(self, news: Union[Arrived, PresenceChanged]) -> None:
        if not self.events or type(self.events[-1]) is not type(news):
            self.events.append(news)

    def _ping(self) -> bytes:
        echo = next(self._echoes).to_bytes(8, "little")
        self._out.append(wire.encode_ping(echo))
        return echo

    def _pump(self, now: float) -> None:
        if self.is_live and not self.paused and self.welcome is not None:
            self.watching.pump(self._out)
            window = min(self.welcome.send_window, wire.SEND_WINDOW_MAX)
            self.sending.pump(window, now, self._out)

    # ---- time ----------------------------------------------------------------------------------

    def next_tick(self) -> Optional[float]:
        """When to call :meth:`tick`, or None."""
        retry = self.sending.next_retry
        if not self.is_live:
            return retry
        silence = self._heard + self._silence_max() * (1.0 if self._pinged else 0.5)
        return silence if retry is None else min(retry, silence)

    def tick(self, now: float) -> None:
        """Do what is due."""
        self.sending.tick(now)
        if self.is_live:
            silent, bound = now - self._heard, self._silence_max()
            if silent >= bound:
                self._end(Ended(0, "silent", f"nothing heard for {silent:.0f} s", 0))
                return
            if silent >= bound / 2 and not self._pinged:
                self._pinged = True
                self._ping()
        self._pump(now)

    def _silence_max(self) -> float:
        assert self.welcome is not None, "live means welcomed"
        idle = max(self.welcome.idle_timeout_ms / 1000, 1.0)
        owed = self.sending.has_unanswered or self.watching.has_unanswered
        return min(idle, ANSWER_SILENCE) if owed else idle

    # ---- what the application wants ------------------------------------------------------------

    def send(self, op: SendOp, now: float) -> None:
        """Send a message now, or when the connection and its window allow."""
        self.sending.add(op)
        self._pump(now)

    def done(self, message: Message) -> None:
        """Acknowledge a message; the ACK leaves with the next output that can carry it."""
        self.receiving.done(message)

    def ask(self, op: QueryOp, now: float) -> None:
        """Ask about presence now, or after the next login."""
        self.watching.add(op)
        self._pump(now)

    def unwatch(self, users: Optional[Iterable[str]]) -> None:
        """Stop watching these, or everybody."""
        frames = self.watching.unwatch(users)
        if self.is_live:
            self._out.extend(frames)
