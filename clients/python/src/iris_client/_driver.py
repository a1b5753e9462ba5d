"""Sockets, timers and waiting callers around :class:`._session.Session`.

One :class:`Driver` keeps one user logged in: it connects, reconnects for as long as that makes
sense, and turns the session's events into results for those who wait. When it cannot go on,
``final`` says why, and everybody who waits is told.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
import ssl
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Callable, Optional, TypeVar, Union

from . import _protocol as wire
from ._errors import (
    AuthError,
    ClientClosed,
    ConnectionLost,
    IrisError,
    NotLoggedIn,
    ProtocolError,
    RecvTimeout,
    Rejected,
    Replaced,
    SendTimeout,
    ServerUnavailable,
)
from ._sending import SendAccepted, SendOp, SendRefused, SendUnknown
from ._session import (
    Arrived,
    Draining,
    Ended,
    Event,
    Flushed,
    Live,
    PresenceAnswered,
    PresenceChanged,
    Session,
)
from ._types import Message
from ._watching import QueryOp

Token = Union[str, Callable[[], Union[str, Awaitable[str]]]]
_T = TypeVar("_T")

#: Seconds that closing waits for the server to have read the last acknowledgements.
CLOSE_TIMEOUT = 2.0
#: Seconds that leaving a server that drains waits for open answers.
DRAIN_TIMEOUT = 2.0
#: Bytes not yet taken by the server, above which it counts as dead. A full window of the largest
#: SENDs is less.
UNWRITTEN_MAX = 32 << 20

log = logging.getLogger("iris_client")


@dataclass(frozen=True)
class Settings:
    """Where and how to connect; see :class:`._async.AsyncIrisClient`."""

    host: str
    port: int
    tls: Union[bool, ssl.SSLContext]
    token: Optional[Token]
    device: str
    reconnect: bool
    recv_window: int
    connect_timeout: float
    backoff: tuple[float, float]


class _Link(asyncio.Protocol):
    """One TCP connection; hands everything to its driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.transport: Optional[asyncio.Transport] = None
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "a stream connection"
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._driver.received(self, data)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        _resolve(self.closed)
        self._driver.link_lost(self, exc)


class Driver:
    """See the module's description."""

    def __init__(self, settings: Settings, on_ack: Callable[[Message], None]) -> None:
        self._settings = settings
        self._rng = random.SystemRandom()
        self.session = Session(settings.device, settings.recv_window, on_ack, self._rng)
        self.final: Optional[IrisError] = None
        self.on_news: Callable[[], None] = lambda: None
        self._user = ""
        self._link: Optional[_Link] = None
        self._link_ended: Optional[asyncio.Future[Ended]] = None
        self._welcomed: Optional[asyncio.Future[None]] = None
        self._flushed: Optional[asyncio.Future[None]] = None
        self._supervisor: Optional[asyncio.Task[None]] = None
        self._login_begun = False
        self._flush_due = False
        self._timer: Optional[asyncio.TimerHandle] = None
        self._drain_until: Optional[float] = None
        self._leave_timer: Optional[asyncio.TimerHandle] = None
        self._sends: dict[SendOp, asyncio.Future[None]] = {}
        self._queries: dict[QueryOp, asyncio.Future[None]] = {}
        self._waiters: set[asyncio.Future[None]] = set()

    # ---- logging in, and staying so ------------------------------------------------------------

    async def login(self, user: str) -> None:
        """Make the first connection, once; afterwards they are made in the background."""
        self.check_final()
        if self._login_begun:
            raise NotLoggedIn("this client logged in before: make another one")
        self._user = user
        self._login_begun = True
        try:
            await self._connect()
        except BaseException:
            self._login_begun = False
            raise
        self._supervisor = asyncio.ensure_future(self._supervise())

    async def _fresh_token(self) -> str:
        token: Any = self._settings.token
        if callable(token):
            if inspect.iscoroutinefunction(token):
                token = await token()
            else:
                token = await asyncio.get_running_loop().run_in_executor(None, token)
                token = await token if inspect.isawaitable(token) else token
        if token == "" and self._settings.tls:
            return ""  # The certificate of the context says who this is.
        token = token or os.environ.get("IRIS_TOKEN")
        if not token:
            raise AuthError(
                "no token: pass token=..., or set IRIS_TOKEN; "
                f"for a development server: iris token --user {self._user or 'NAME'}"
            )
        return str(token)

    async def _connect(self) -> None:
        """Make one connection up to WELCOME, or raise."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.connect_timeout
        token = await self._fresh_token()
        link = await self._open()
        try:
            self.check_final()
            self._link = link
            self._link_ended = loop.create_future()
            self._welcomed = loop.create_future()
            self.session.start(self._user, token, loop.time())
            self._process()
            waits: set[asyncio.Future[Any]] = {self._welcomed, self._link_ended}
            await asyncio.wait(
                waits, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
            # A connection that was welcomed and ended at once is the supervisor's business.
            if not self._welcomed.done():
                if self._link_ended.done():
                    raise error_of(self._link_ended.result())
                raise ConnectionLost(f"no WELCOME from {self._settings.host} in time")
        except BaseException:
            self._drop_link(Ended(0, "connection_lost", "the login failed", 0))
            if link.transport is not None:
                link.transport.close()
            raise

    async def _open(self) -> _Link:
        settings = self._settings
        context: Union[bool, ssl.SSLContext, None] = settings.tls or None
        if context is True:
            context = ssl.create_default_context()
            context.set_alpn_protocols(["iris/1"])
        where = f"{settings.host}:{settings.port}"
        opening = asyncio.get_running_loop().create_connection(
            lambda: _Link(self), settings.host, settings.port, ssl=context
        )
        try:
            return (await asyncio.wait_for(opening, settings.connect_timeout))[1]
        except asyncio.TimeoutError:
            raise ConnectionLost(f"no connection to {where} in time") from None
        except OSError as error:
            raise ConnectionLost(f"cannot connect to {where}: {error}") from error

    async def _supervise(self) -> None:
        """Reconnect for as long as that makes sense."""
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            assert self._link_ended is not None, "login made the first connection"
            began = loop.time()
            # `wait` leaves the future alone when this task is cancelled: close() waits for it too.
            await asyncio.wait({self._link_ended})
            error = error_of(self._link_ended.result())
            if loop.time() - began > self._settings.backoff[1]:
                attempt = 0
            while True:
                if not (self._settings.reconnect and self._may_reconnect(error)):
                    self._finish(error)
                    return
                delay = self._delay(error, attempt)
                log.info("connection to Iris ended (%s); again in %.2f s", error.code, delay)
                await asyncio.sleep(delay)
                attempt += 1
                try:
                    await self._connect()
                    break
                except IrisError as failed:
                    error = failed
                except Exception as failed:
                    log.warning("no token for Iris: %r", failed)
                    error = ConnectionLost(f"no token: {failed!r}")

    def _delay(self, error: IrisError, attempt: int) -> float:
        """Seconds before the next attempt: what the server asked for, or a random wait."""
        until, self._drain_until = self._drain_until, None
        if until is not None:
            return max(0.0, until - asyncio.get_running_loop().time())
        least, most = self._settings.backoff
        wait = self._rng.uniform(0, min(most, least * 2.0 ** min(attempt, 30)))
        return max(wait, (error.retry_after or 0.0) * (1 + self._rng.random()))

    def _may_reconnect(self, error: IrisError) -> bool:
        if isinstance(error, AuthError):
            return error.code == "token_expired" and callable(self._settings.token)
        return isinstance(error, ConnectionLost)

    # ---- the link ------------------------------------------------------------------------------

    def received(self, link: _Link, data: bytes) -> None:
        """Take bytes from a link, if it is still the one."""
        if link is self._link:
            self.session.receive(data, asyncio.get_running_loop().time())
            self._process()

    def link_lost(self, link: _Link, exc: Optional[Exception]) -> None:
        """Note that a link is gone."""
        if link is self._link:
            text = "the server closed the connection" if exc is None else f"{exc}"
            self._drop_link(Ended(0, "connection_lost", text, 0))

    def flush_soon(self) -> None:
        """Write once at the end of this turn of the loop, however many calls asked for it."""
        if not self._flush_due and self._link is not None:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._process)

    def _drop_link(self, ended: Ended) -> None:
        """End the connection, whoever wants it; the first reason counts."""
        link, self._link = self._link, None
        if link is None:
            return
        if link.transport is not None:
            link.transport.close()
        if self._leave_timer is not None:
            self._leave_timer.cancel()
        self.session.lost()
        self._process()
        if self._link_ended is not None and not self._link_ended.done():
            self._link_ended.set_result(ended)

    def _process(self) -> None:
        """Act on all that the session has to say."""
        self._flush_due = False
        ended: Optional[Ended] = None
        news = False
        events = self.session.events
        while events:
            event = events.popleft()
            if isinstance(event, Ended):
                ended = event
            elif isinstance(event, (Arrived, PresenceChanged)):
                news = True
            else:
                self._handle(event)
        if news:
            self._tell_waiters()
        if ended is not None:
            self._drop_link(ended)
            return
        if self._link is not None and self._link.transport is not None:
            out = self.session.output()
            if out:
                self._link.transport.write(out)
            if self._link.transport.get_write_buffer_size() > UNWRITTEN_MAX:
                self._link.transport.abort()
        self._arm_timer()

    def _handle(self, event: Event) -> None:
        if isinstance(event, SendAccepted):
            _resolve(self._sends.pop(event.op, None))
        elif isinstance(event, SendRefused):
            _fail(self._sends.pop(event.op, None), _rejected(event))
        elif isinstance(event, SendUnknown):
            lost = ConnectionLost("the connection was lost before the answer")
            _fail(self._sends.pop(event.op, None), lost.about(event.op.sent_id))
        elif isinstance(event, PresenceAnswered):
            _resolve(self._queries.pop(event.op, None))
        elif isinstance(event, Live):
            _resolve(self._welcomed)
        elif isinstance(event, Flushed):
            _resolve(self._flushed)
        elif isinstance(event, Draining):
            self._drain(event)

    def _arm_timer(self) -> None:
        due = self.session.next_tick() if self.final is None else None
        if self._timer is not None:
            if due is not None and self._timer.when() <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.session.tick(asyncio.get_running_loop().time())
        self._process()

    def _drain(self, event: Draining) -> None:
        """Leave when the server said, between messages rather than in the middle of one."""
        if self._drain_until is not None:
            return
        now = asyncio.get_running_loop().time()
        delay = (event.retry_after_ms + self._rng.random() * event.jitter_ms) / 1000
        self._drain_until = now + delay
        self._leave_at(self._drain_until)

    def _leave_at(self, when: float) -> None:
        self._leave_timer = asyncio.get_running_loop().call_at(when, self._leave)

    def _leave(self) -> None:
        assert self._drain_until is not None, "a drain set the timer"
        now = asyncio.get_running_loop().time()
        self.session.paused = True
        if self.session.sending.has_unanswered and now < self._drain_until + DRAIN_TIMEOUT:
            self._leave_at(now + 0.05)
        else:
            self._drop_link(Ended(0, "drained", "left a server that drains", 0))

    # ---- callers that wait ---------------------------------------------------------------------

    def check_final(self) -> None:
        """Raise what ended it all, if something did."""
        if self.final is not None:
            raise self.final.about(None)

    def check_usable(self) -> None:
        """Raise unless a login succeeded and nothing ended it all since."""
        self.check_final()
        if self.session.welcome is None:
            raise NotLoggedIn("call login() first")

    async def send(self, op: SendOp, timeout: Optional[float]) -> uuid.UUID:
        """Wait until a message is accepted; return its id."""
        self.check_usable()
        loop = asyncio.get_running_loop()
        future = self._sends[op] = loop.create_future()
        self.session.send(op, loop.time())
        self.flush_soon()
        try:
            await _within(future, timeout)
        except asyncio.TimeoutError:
            why = f": last refused as {op.last_refusal}" if op.last_refusal else ""
            raise SendTimeout(f"not accepted in {timeout} s{why}", msg_id=op.sent_id) from None
        finally:
            if self._sends.pop(op, None) is not None:
                self.session.sending.give_up(op)
        assert op.id is not None, "an accepted message has an id"
        return op.id

    async def query(self, op: QueryOp, timeout: Optional[float]) -> None:
        """Wait until a question is answered."""
        self.check_usable()
        loop = asyncio.get_running_loop()
        future = self._queries[op] = loop.create_future()
        self.session.ask(op, loop.time())
        self.flush_soon()
        try:
            await _within(future, timeout)
        except asyncio.TimeoutError:
            raise RecvTimeout("no answer about presence in time") from None
        finally:
            if self._queries.pop(op, None) is not None:
                self.session.watching.give_up(op)

    async def news(self, deadline: Optional[float], what: str) -> None:
        """Wait until something came, or the end did."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.add(waiter)
        try:
            await _within(waiter, None if deadline is None else deadline - loop.time())
        except asyncio.TimeoutError:
            raise RecvTimeout(f"{what} in time") from None
        finally:
            self._waiters.discard(waiter)

    def _tell_waiters(self) -> None:
        for waiter in self._waiters:
            _resolve(waiter)
        self.on_news()

    # ---- the end -------------------------------------------------------------------------------

    async def close(self) -> None:
        """Hand over the acknowledgements, disconnect, and tell all who wait."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.wait({supervisor})
        link = self._link
        if self.session.finish():
            assert self._link_ended is not None, "live means that a link was made"
            self._flushed = asyncio.get_running_loop().create_future()
            self._process()
            waits: set[asyncio.Future[Any]] = {self._flushed, self._link_ended}
            await asyncio.wait(waits, timeout=CLOSE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        self._drop_link(Ended(0, "connection_lost", "the client was closed", 0))
        self._finish(ClientClosed("the client was closed"))
        if link is not None and link.transport is not None:
            await asyncio.wait({link.closed}, timeout=CLOSE_TIMEOUT)
            link.transport.abort()

    def _finish(self, error: IrisError) -> None:
        """Nothing will come any more: tell everybody who waits."""
        if self.final is not None:
            return
        self.final = error
        self._arm_timer()
        for op, future in self._sends.items():
            self.session.sending.give_up(op)
            _fail(future, error.about(op.sent_id))
        for future in self._queries.values():
            _fail(future, error.about(None))
        self._sends.clear()
        self._queries.clear()
        self._tell_waiters()


def error_of(ended: Ended) -> IrisError:
    """Return the exception for the end of a connection."""
    kind: type[IrisError]
    if ended.name in ("connection_lost", "silent", "drained"):
        kind = ConnectionLost
    elif ended.name == "replaced":
        kind = Replaced
    elif 200 <= ended.code < 300:
        kind = AuthError
    elif 300 <= ended.code < 400:
        kind = ServerUnavailable
    else:
        kind = ProtocolError
    code = None if kind is ConnectionLost else ended.name
    return kind(ended.text, code=code, retry_after=ended.retry_after_ms / 1000 or None)


def _rejected(event: SendRefused) -> Rejected:
    name = wire.code_name(event.code)
    again = event.code >= wire.RETRYABLE
    return Rejected(
        f"refused: {name}",
        code=name,
        retry_after=event.retry_after_ms / 1000 if again else None,
        msg_id=event.op.id,
    )


def _resolve(future: Optional[asyncio.Future[None]]) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _fail(future: Optional[asyncio.Future[None]], error: IrisError) -> None:
    if future is not None and not future.done():
        future.set_exception(error)


async def _within(future: asyncio.Future[_T], timeout: Optional[float]) -> _T:
    """Await a future for so long.

    Unlike ``asyncio.wait_for``, no task comes in between in which a result could be lost.
    """
    if timeout is None or future.done():
        return await future
    handle = asyncio.get_running_loop().call_later(max(timeout, 0.0), _expire, future)
    try:
        return await future
    finally:
        handle.cancel()


def _expire(future: asyncio.Future[_T]) -> None:
    if not future.done():
        future.set_exception(asyncio.TimeoutError())
