"""The client for ordinary programs: the asyncio client in a thread of its own.

A thread, because the connection has to live on while the program thinks: PINGs are answered, and a
lost connection is made again. Messages cross over through a deque that the caller's thread takes
from, so that an interrupted ``recv_msg`` (Ctrl-C) has not handed one out.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
import uuid
from collections import deque
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, Union

from ._async import AsyncIrisClient
from ._driver import Token
from ._errors import ClientClosed, NotLoggedIn, RecvTimeout
from ._types import Body, Message, Presence, ServerInfo, Users

_T = TypeVar("_T")


class IrisClient:
    """A client. It may be used by several threads; one of them should receive.

    Messages are acknowledged when the application asks for the next one, or closes the client:
    having asked for more says that the one before is dealt with. A program that dies in between
    gets the message again. With ``auto_ack=False`` only ``Message.ack()`` acknowledges.

    ::

        with IrisClient(token=token) as client:
            client.login("alice")
            client.send_msg("bob", "hello")
            for message in client:
                print(message.sender, message.text)
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

        The arguments are those of :class:`AsyncIrisClient`.
        """
        self._client = AsyncIrisClient(
            host,
            port,
            tls,
            token,
            device,
            auto_ack=False,
            reconnect=reconnect,
            recv_window=recv_window,
            connect_timeout=connect_timeout,
            backoff=backoff,
        )
        self._auto_ack = auto_ack
        self._news = threading.Condition()
        self._handed: deque[Message] = deque()
        self._to_ack: deque[Message] = deque()
        self._ack_due = False
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._thread: Optional[threading.Thread] = None
        self._closed = False
        self._driver = self._client._driver
        self._driver.on_news = self._tell
        self._driver.session.receiving.on_ack = self._ack

    # ---- the thread ----------------------------------------------------------------------------

    def _start(self) -> None:
        if self._closed:
            raise ClientClosed("the client was closed")
        if self._thread is None:
            loop = asyncio.new_event_loop()
            self._loop = loop
            self._thread = threading.Thread(
                target=_run, args=(loop,), name="iris-client", daemon=True
            )
            self._thread.start()

    def _stop(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the client's thread; an interrupt here cancels it there."""
        loop = self._loop
        if loop is None:
            work.close()
            if self._closed:
                raise ClientClosed("the client was closed")
            raise NotLoggedIn("call login() first")
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def login(self, user: Optional[str] = None) -> None:
        """Connect and log in. From then on the client reconnects by itself.

        Without a user, the token says who it is. Without a token, the environment variable
        ``IRIS_TOKEN`` is used. This first attempt is not repeated, so that a wrong address or token
        shows at once.
        """
        self._start()
        self._call(self._client.login(user))

    def close(self) -> None:
        """Acknowledge the last message handed out, and disconnect. Doing it again does nothing.

        Returns once the server has read the acknowledgements, or after 2 s.
        """
        self._close(ack_last=True)

    def _close(self, *, ack_last: bool) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._loop is not None:
                if ack_last and self._auto_ack:
                    self._to_ack.extend(self._handed)
                    self._handed.clear()
                self._call(self._finish())
        finally:
            self._stop()

    async def _finish(self) -> None:
        self._flush_acks()
        await self._client.close()

    def __enter__(self) -> IrisClient:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Close. Leaving by an exception does not acknowledge the last message: it comes again."""
        self._close(ack_last=kind is None)

    # ---- sending -------------------------------------------------------------------------------

    def send_msg(
        self, to: Users, body: Body, *, receipt: bool = False, timeout: Optional[float] = 30.0
    ) -> uuid.UUID:
        """Send a message to a user or up to 256 of them; return its id once it is accepted.

        Accepted means: in every recipient's inbox, on disk. This sends once: :class:`Rejected` and
        :class:`ConnectionLost` come to the caller. With ``receipt``, a :class:`Message` with
        ``is_receipt`` comes for each recipient that acknowledged it.
        """
        return self._call(self._client.send_msg(to, body, receipt=receipt, timeout=timeout))

    def send_reliable(
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
        work = self._client.send_reliable(to, body, msg_id, timeout, receipt=receipt)
        return self._call(work)

    def new_msg_id(self) -> uuid.UUID:
        """Return an id for :meth:`send_reliable`: a UUIDv7 on the server's clock."""

        async def make() -> uuid.UUID:
            return self._client.new_msg_id()

        return self._call(make())

    # ---- receiving -----------------------------------------------------------------------------

    def recv_msg(self, timeout: Optional[float] = None) -> Message:
        """Return the next message. :class:`RecvTimeout` if none comes in ``timeout`` seconds.

        Messages of one sender come in their order. Each comes once, also after a reconnect.
        """
        self._check_usable()
        if self._auto_ack:
            while self._handed:
                self._ack(self._handed.popleft())
        inbox = self._driver.session.receiving.inbox
        message = self._take(inbox.popleft, timeout, "no message")
        if self._auto_ack:
            self._handed.append(message)
        return message

    def __iter__(self) -> IrisClient:
        return self

    def __next__(self) -> Message:
        """Return the next message; the loop ends when the client is closed."""
        try:
            return self.recv_msg()
        except ClientClosed:
            raise StopIteration from None

    def _check_usable(self) -> None:
        if self._closed:
            raise ClientClosed("the client was closed")
        self._driver.check_usable()

    def _take(self, take: Callable[[], _T], timeout: Optional[float], what: str) -> _T:
        """Take from a collection that the other thread fills; it raises while it is empty."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._news:
            while True:
                try:
                    return take()
                except LookupError:
                    self._driver.check_final()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise RecvTimeout(f"{what} in time")
                self._news.wait(left)

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    def _ack(self, message: Message) -> None:
        self._to_ack.append(message)
        loop = self._loop
        if not self._ack_due and loop is not None:
            self._ack_due = True
            with contextlib.suppress(RuntimeError):  # closed by another thread just now
                loop.call_soon_threadsafe(self._flush_acks)

    def _flush_acks(self) -> None:
        self._ack_due = False
        while self._to_ack:
            self._client._ack(self._to_ack.popleft())

    # ---- presence ------------------------------------------------------------------------------

    def presence(self, users: Users, *, timeout: Optional[float] = 10.0) -> dict[str, Presence]:
        """Ask who of these is online now."""
        return self._call(self._client.presence(users, timeout=timeout))

    def watch(self, users: Users, *, timeout: Optional[float] = 10.0) -> dict[str, Presence]:
        """Ask who of these is online, and be told of changes by :meth:`recv_presence`.

        Watching goes on across reconnects. At most 1,024 users can be watched. The state of a user
        whom the server refuses to watch is "unknown".
        """
        return self._call(self._client.watch(users, timeout=timeout))

    def unwatch(self, users: Optional[Users] = None) -> None:
        """Stop watching these users, or everybody."""
        self._call(self._client.unwatch(users))

    def recv_presence(self, timeout: Optional[float] = None) -> Presence:
        """Return the next change of a watched user; only the newest state of each user counts.

        :class:`RecvTimeout` if none comes in ``timeout`` seconds.
        """
        self._check_usable()
        changes = self._driver.session.watching.changes
        return self._take(lambda: changes.popitem(last=False)[1], timeout, "no change of presence")

    # ---- facts ---------------------------------------------------------------------------------

    def get_server_region(self) -> str:
        """Return the region of the server of the latest login; empty if it names none."""
        return self._client.get_server_region()

    @property
    def info(self) -> ServerInfo:
        """What the server said at the latest login."""
        return self._client.info

    @property
    def is_connected(self) -> bool:
        """Whether a login is live right now."""
        return self._client.is_connected


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
