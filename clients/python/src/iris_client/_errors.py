"""What can go wrong, as types. Each carries a stable ``code``, the name in docs/PROTOCOL.md."""

from __future__ import annotations

import copy
import uuid
from typing import Optional, TypeVar

_E = TypeVar("_E", bound="IrisError")


class IrisError(Exception):
    """Base of all errors of this package.

    ``code`` is a stable name for programs. ``retry_after`` is the server's advice in seconds, if it
    gave one. ``msg_id`` is set where a message is concerned whose first SEND had already left.
    """

    default_code = "error"

    def __init__(
        self,
        message: str,
        *,
        code: Optional[str] = None,
        retry_after: Optional[float] = None,
        msg_id: Optional[uuid.UUID] = None,
    ) -> None:
        super().__init__(message)
        self.code: str = code or self.default_code
        self.retry_after = retry_after
        self.msg_id = msg_id

    def about(self: _E, msg_id: Optional[uuid.UUID]) -> _E:
        """Return a copy that names this message: each caller raises its own."""
        error = copy.copy(self)
        error.msg_id = msg_id
        return error


class AuthError(IrisError):
    """There is no token, or the server does not take it: ``token_missing``, ``token_expired``, ...

    Or an operator ended the sessions of the user: ``logged_out``.
    Final: the client does not try again by itself.
    """

    default_code = "token_missing"


class Replaced(IrisError):
    """A newer login of the same user took over.

    Final: reconnecting would throw the other one out, for ever.
    """

    default_code = "replaced"


class Rejected(IrisError):
    """The server refused a message: ``code`` says why, ``retry_after`` when to try again."""

    default_code = "rejected"

    @property
    def retryable(self) -> bool:
        """Whether the same message may be accepted later."""
        return self.retry_after is not None


class ConnectionLost(IrisError, ConnectionError):
    """The connection could not be made, or ended before the answer.

    With a ``msg_id``, the outcome of that message is unknown: ``send_reliable(..., msg_id=...)``
    finds out without repeating it.
    """

    default_code = "connection_lost"


class ServerUnavailable(ConnectionLost):
    """The server ended the connection for now: ``draining``, ``connection_limit``, ..."""

    default_code = "unavailable"


class ProtocolError(IrisError):
    """One side broke the protocol: a fault in the client, the server or what is between. Final."""

    default_code = "malformed"


class SendTimeout(IrisError, TimeoutError):
    """No answer in time. With a ``msg_id`` it may still be accepted; without, it never left."""

    default_code = "send_timeout"


class RecvTimeout(IrisError, TimeoutError):
    """Nothing came in time. The client is as good as before."""

    default_code = "recv_timeout"


class ClientClosed(IrisError):
    """The client was closed."""

    default_code = "closed"


class NotLoggedIn(IrisError):
    """``login()`` comes first, and once."""

    default_code = "not_logged_in"
