"""What the application gets to see."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Callable, Optional, Union

Body = Union[bytes, bytearray, memoryview, str]
Users = Union[str, Iterable[str]]


def _datetime(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1000, timezone.utc)


class Message:
    """A message out of the inbox, or a receipt.

    A receipt (``is_receipt``) says that ``sender`` acknowledged your message ``id``; its body is
    empty. ``time_ms`` is when the server accepted it, in Unix milliseconds.
    """

    __slots__ = (
        "_no",
        "_on_ack",
        "body",
        "id",
        "is_receipt",
        "sender",
        "time_ms",
        "wants_receipt",
    )

    def __init__(
        self,
        msg_id: uuid.UUID,
        sender: str,
        body: bytes,
        time_ms: int,
        *,
        wants_receipt: bool,
        is_receipt: bool,
        no: int,
        on_ack: Callable[[Message], None],
    ) -> None:
        self.id = msg_id
        self.sender = sender
        self.body = body
        self.time_ms = time_ms
        self.wants_receipt = wants_receipt
        self.is_receipt = is_receipt
        self._no = no
        self._on_ack = on_ack

    @property
    def text(self) -> str:
        """The body as UTF-8 text. ``UnicodeDecodeError`` if it is none."""
        return self.body.decode()

    @property
    def time(self) -> datetime:
        """When the server accepted it."""
        return _datetime(self.time_ms)

    def ack(self) -> None:
        """Tell the server that this message is done, so that it never comes again.

        Only needed with ``auto_ack=False``. Calling it again, or after the client was closed, does
        nothing. Acknowledgements reach the server in order: an older message that is not
        acknowledged holds back those after it.
        """
        self._on_ack(self)

    def __repr__(self) -> str:
        what = "receipt" if self.is_receipt else f"{len(self.body)} bytes"
        return f"<Message {self.id} from {self.sender!r}: {what}>"


@dataclass(frozen=True)
class Presence:
    """Whether a user is online. True in a condition if they are.

    ``state`` is "online", "offline", or "unknown" where the server refused to watch this user
    because a limit was reached. ``since_ms`` is in Unix milliseconds, None if unknown.
    """

    user: str
    state: str
    since_ms: Optional[int] = None

    @property
    def online(self) -> bool:
        """Whether a login of this user is live."""
        return self.state == "online"

    @property
    def since(self) -> Optional[datetime]:
        """Since when."""
        return None if self.since_ms is None else _datetime(self.since_ms)

    def __bool__(self) -> bool:
        return self.online


@dataclass(frozen=True)
class ServerInfo:
    """What the server said at the latest login."""

    region: str
    node: str
    user: str
    version: int
    waiting: int
    token_expires_s: int
    idle_timeout: float
    dedup_window: float
    payload_max: int
    recipients_max: int
