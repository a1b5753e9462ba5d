"""Client of the Iris messaging server.

:class:`IrisClient` for ordinary programs, :class:`AsyncIrisClient` for asyncio. Both reconnect by
themselves, put each message into its inbox once, and hand each message out once.
"""

from ._async import AsyncIrisClient
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
from ._sync import IrisClient
from ._types import Message, Presence, ServerInfo

__all__ = [
    "AsyncIrisClient",
    "AuthError",
    "ClientClosed",
    "ConnectionLost",
    "IrisClient",
    "IrisError",
    "Message",
    "NotLoggedIn",
    "Presence",
    "ProtocolError",
    "RecvTimeout",
    "Rejected",
    "Replaced",
    "SendTimeout",
    "ServerInfo",
    "ServerUnavailable",
]
__version__ = "0.1.0"
