"""The client for asyncio programs."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from types import TracebackType
from typing import Optional, Union

from . import _protocol as wire
from ._driver import Driver, Settings, Token
from ._errors import ClientClosed, NotLoggedIn, Rejected
from ._sending import SendOp
from ._types import Body, Message, Presence, ServerInfo, Users
from ._watching import QueryOp


class AsyncIrisClient:
    """A client for asyncio programs. See :class:`IrisClient` for the same without asyncio.

    Messages are acknowledged when the application asks for the next one, or closes the client:
    having asked for more says that the one before is dealt with. A program that dies in between
    gets the message again. With ``auto_ack=False`` only ``Message.ack()`` acknowledges; choose that
    if several tasks receive from one client.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 7400,
        tls: Union[bool, ssl.SSLContext] = False,
        token: Optional[Token] = None,
        device: Optional[str] = None,
        *,
        auto_ack: bool = True,
        reconnect: bool = True,
        recv_window: int = 256,
        connect_timeout: float = 10.0,
        backoff: tuple[float, float] = (0.25, 30.0),
    ) -> None:
        """Prepare a client; nothing is connected before :meth:`login`.

        ``tls`` is True for the system's trust store, or an ``SSLContext``. ``token`` is a JWT or a
        function (also a coroutine function) that returns a fresh one; without it the environment
        variable ``IRIS_TOKEN`` is used. ``recv_window`` is how many messages (1 to 1,024) may be
        under way unacknowledged. ``backoff`` is the first and the largest bound of the random wait
        before a reconnect, in seconds.
        """
        if not 1 <= recv_window <= wire.RECV_WINDOW_MAX:
            raise ValueError(f"recv_window is 1 to {wire.RECV_WINDOW_MAX}, not {recv_window}")
        self._auto_ack = auto_ack
        settings = Settings(
            host,
            port,
            tls,
            token,
            device or "",
            reconnect,
            recv_window,
            connect_timeout,
            backoff,
        )
        self._driver = Driver(settings, self._ack)
        self._session = self._driver.session
        self._handed: list[Message] = []

    # ---- from login to close -------------------------------------------------------------------

    async def login(self, user: Optional[str] = None) -> None:
        """Connect and log in. From then on the client reconnects by itself.

        Without a user, the token says who it is. This first attempt is not repeated, so that a
        wrong address or token shows at once: :class:`AuthError`, :class:`ConnectionLost`,
        :class:`ServerUnavailable`, :class:`ProtocolError`.
        """
        if user:
            wire.encode_name(user)
        await self._driver.login(user or "")

    async def close(self) -> None:
        """Acknowledge the last message handed out, and disconnect. Doing it again does nothing.

        Returns once the server has read the acknowledgements, or after 2 s.
        """
        if self._auto_ack:
            self._ack_handed()
        await self._driver.close()

    async def __aenter__(self) -> AsyncIrisClient:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Close. Leaving by an exception does not acknowledge the last message: it comes again."""
        if kind is not None:
            self._handed.clear()
        await self.close()

    # ---- sending -------------------------------------------------------------------------------

    async def send_msg(
        self, to: Users, body: Body, *, receipt: bool = False, timeout: Optional[float] = 30.0
    ) -> uuid.UUID:
        """Send a message to a user or up to 256 of them; return its id once it is accepted.

        Accepted means: in every recipient's inbox, on disk. Any number of calls may be under way at
        the same time. This sends once: :class:`Rejected` and :class:`ConnectionLost` come to the
        caller. With ``receipt``, a :class:`Message` with ``is_receipt`` comes for each recipient
        that acknowledged it.
        """
        op = SendOp(_names(to, wire.RECIPIENTS_MAX), _bytes(body), receipt=receipt)
        return await self._driver.send(op, timeout)

    async def send_reliable(
        self,
        to: Users,
        body: Body,
        msg_id: Union[uuid.UUID, str, None] = None,
        timeout: Optional[float] = 60.0,
        *,
        receipt: bool = False,
    ) -> uuid.UUID:
        """Send until accepted, across reconnects and refusals that pass; return the id.

        The same id goes with every attempt that may have arrived, so the message gets into each
        inbox once. A program that must survive its own crash makes the id first
        (:meth:`new_msg_id`), writes it down with the message, and passes it here again afterwards.
        :class:`SendTimeout` after ``timeout`` seconds; :class:`Rejected` for what never passes.
        """
        given = uuid.UUID(msg_id) if isinstance(msg_id, str) else msg_id
        names = _names(to, wire.RECIPIENTS_MAX)
        op = SendOp(names, _bytes(body), receipt=receipt, reliable=True, msg_id=given)
        return await self._driver.send(op, timeout)

    def new_msg_id(self) -> uuid.UUID:
        """Return an id for :meth:`send_reliable`: a UUIDv7 on the server's clock."""
        self._driver.check_usable()
        return self._session.ids.next(asyncio.get_running_loop().time())

    # ---- receiving -----------------------------------------------------------------------------

    async def recv_msg(self, timeout: Optional[float] = None) -> Message:
        """Return the next message. :class:`RecvTimeout` if none comes in ``timeout`` seconds.

        Messages of one sender come in their order. Each comes once, also after a reconnect.
        """
        self._driver.check_usable()
        if self._auto_ack:
            self._ack_handed()
        inbox = self._session.receiving.inbox
        deadline = _deadline(timeout)
        while not inbox:
            self._driver.check_final()
            await self._driver.news(deadline, "no message")
        message = inbox.popleft()
        if self._auto_ack:
            self._handed.append(message)
        return message

    def __aiter__(self) -> AsyncIrisClient:
        return self

    async def __anext__(self) -> Message:
        """Return the next message; the loop ends when the client is closed."""
        try:
            return await self.recv_msg()
        except ClientClosed:
            raise StopAsyncIteration from None

    def _ack(self, message: Message) -> None:
        self._session.done(message)
        self._driver.flush_soon()

    def _ack_handed(self) -> None:
        for message in self._handed:
            self._ack(message)
        self._handed.clear()

    # ---- presence ------------------------------------------------------------------------------

    async def presence(
        self, users: Users, *, timeout: Optional[float] = 10.0
    ) -> dict[str, Presence]:
        """Ask who of these is online now."""
        return await self._query(_names(users), timeout, watch=False)

    async def watch(self, users: Users, *, timeout: Optional[float] = 10.0) -> dict[str, Presence]:
        """Ask who of these is online, and be told of changes by :meth:`recv_presence`.

        Watching goes on across reconnects. At most 1,024 users can be watched. The state of a user
        whom the server refuses to watch is "unknown".
        """
        names = _names(users)
        if len({*self._session.watching.watched, *names}) > wire.WATCHED_PER_CONNECTION_MAX:
            raise ValueError(f"at most {wire.WATCHED_PER_CONNECTION_MAX} users can be watched")
        return await self._query(names, timeout, watch=True)

    async def unwatch(self, users: Optional[Users] = None) -> None:
        """Stop watching these users, or everybody."""
        self._driver.check_usable()
        self._session.unwatch(None if users is None else _names(users))
        self._driver.flush_soon()

    async def recv_presence(self, timeout: Optional[float] = None) -> Presence:
        """Return the next change of a watched user; only the newest state of each user counts.

        :class:`RecvTimeout` if none comes in ``timeout`` seconds.
        """
        self._driver.check_usable()
        changes = self._session.watching.changes
        deadline = _deadline(timeout)
        while not changes:
            self._driver.check_final()
            await self._driver.news(deadline, "no change of presence")
        return changes.popitem(last=False)[1]

    async def _query(
        self, users: list[str], timeout: Optional[float], *, watch: bool
    ) -> dict[str, Presence]:
        op = QueryOp(users, watch=watch)
        await self._driver.query(op, timeout)
        return {user: op.answers[user] for user in users}

    # ---- facts ---------------------------------------------------------------------------------

    def get_server_region(self) -> str:
        """Return the region of the server of the latest login; empty if it names none."""
        return self.info.region

    @property
    def info(self) -> ServerInfo:
        """What the server said at the latest login."""
        welcome = self._session.welcome
        if welcome is None:
            raise NotLoggedIn("call login() first")
        return ServerInfo(
            region=welcome.region,
            node=welcome.node,
            user=welcome.user,
            version=welcome.version,
            waiting=welcome.waiting,
            token_expires_s=welcome.token_expires_s,
            idle_timeout=welcome.idle_timeout_ms / 1000,
            dedup_window=welcome.dedup_window_ms / 1000,
            payload_max=welcome.payload_max,
            recipients_max=welcome.recipients_max,
        )

    @property
    def is_connected(self) -> bool:
        """Whether a login is live right now."""
        return self._session.is_live


def _deadline(timeout: Optional[float]) -> Optional[float]:
    return None if timeout is None else asyncio.get_running_loop().time() + timeout


def _names(users: Users, most: Optional[int] = None) -> list[str]:
    """Return users as a list without repeats, checked."""
    names = [users] if isinstance(users, str) else list(dict.fromkeys(users))
    for name in names:
        wire.encode_name(name)
    if not names or (most is not None and len(names) > most):
        raise ValueError(f"1 to {most or 'any number of'} users, not {len(names)}")
    return names


def _bytes(body: Body) -> bytes:
    raw = body.encode() if isinstance(body, str) else bytes(body)
    if len(raw) > wire.PAYLOAD_BYTES_MAX:
        raise Rejected(
            f"a message has at most {wire.PAYLOAD_BYTES_MAX} bytes, not {len(raw)}",
            code="payload_too_large",
        )
    return raw
