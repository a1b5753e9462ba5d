"""The bytes of docs/PROTOCOL.md, version 1: what a client writes, and what it reads.

Nothing here knows a socket or a clock. Reading checks every length before it takes a byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple, Union

VERSION = 1
MAGIC = b"IRIS"
HEADER_BYTES = 4
IGNORABLE = 0x80

FRAME_BODY_BYTES_MAX = 131_072
PAYLOAD_BYTES_MAX = 65_536
RECIPIENTS_MAX = 256
USER_BYTES_MAX = 128
DEVICE_BYTES_MAX = 64
TOKEN_BYTES_MAX = 4_096
SEND_WINDOW_MAX = 256
RECV_WINDOW_MAX = 1_024
RECV_WINDOW_BYTES = 262_144
DEDUP_IDS_PER_SENDER_MAX = 512
PRESENCE_USERS_MAX = 256
WATCHED_PER_CONNECTION_MAX = 1_024
WATCHERS_PER_USER_MAX = 1_024
INBOX_MESSAGES_MAX = 1_000_000

HELLO = 0x01
SEND = 0x02
ACK = 0x03
WINDOW = 0x04
PRESENCE_QUERY = 0x05
UNWATCH = 0x06
PING = 0x07
PONG = 0x08
WELCOME = 0x41
ACCEPTED = 0x42
REJECTED = 0x43
MESSAGE = 0x44
PRESENCE = 0x45
DRAIN = 0x46
ERROR = 0x47

WANTS_RECEIPT = 1
IS_RECEIPT = 2

OFFLINE = 0
ONLINE = 1
REFUSED = 2

CODES = {
    101: "garbage",
    102: "version",
    103: "oversize",
    104: "unknown_type",
    105: "malformed",
    106: "out_of_order",
    107: "send_window",
    108: "bad_ack",
    109: "bad_seq",
    201: "token_missing",
    202: "token_malformed",
    203: "token_signature",
    204: "token_expired",
    205: "token_not_yet",
    206: "token_key_unknown",
    207: "token_subject",
    208: "logged_out",
    301: "replaced",
    302: "login_timeout",
    303: "idle_timeout",
    304: "slow_reader",
    305: "draining",
    306: "connection_limit",
    307: "unavailable",
    308: "login_rate",
    309: "flood",
    401: "id_too_old",
    402: "id_in_future",
    403: "id_stale",
    404: "id_not_v7",
    405: "payload_too_large",
    501: "inbox_full",
    502: "low_disk",
    503: "overloaded",
    504: "shard_unavailable",
    505: "send_rate",
}


#: Codes from here on: the same message may be sent again later.
RETRYABLE = 500


def code_name(number: int) -> str:
    """Return the stable name of a code, ``code_N`` for one of a later server."""
    return CODES.get(number, f"code_{number}")


class WireError(Exception):
    """Bytes that break the protocol; ``code`` is the name of the rule."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(f"{code}: {what}")
        self.code = code


class Welcome(NamedTuple):
    """WELCOME: the terms of this connection."""

    version: int
    server_time_ms: int
    waiting: int
    send_window: int
    recv_window: int
    payload_max: int
    recipients_max: int
    idle_timeout_ms: int
    token_expires_s: int
    dedup_window_ms: int
    region: str
    node: str
    user: str


class Accepted(NamedTuple):
    """ACCEPTED: runs of (first, count)."""

    copies: int
    runs: list[tuple[int, int]]


class Rejections(NamedTuple):
    """REJECTED: entries of (seq, code, retry_after_ms)."""

    entries: list[tuple[int, int, int]]


class Delivery(NamedTuple):
    """MESSAGE."""

    no: int
    id: bytes
    time_ms: int
    flags: int
    sender: str
    payload: bytes


class PresenceReport(NamedTuple):
    """PRESENCE: entries of (state, since_ms, user); query 0 is a change."""

    query: int
    entries: list[tuple[int, int, str]]


class Drain(NamedTuple):
    """DRAIN, in milliseconds."""

    retry_after_ms: int
    jitter_ms: int


class ErrorReport(NamedTuple):
    """ERROR."""

    code: int
    retry_after_ms: int
    text: str


class Ping(NamedTuple):
    """PING."""

    echo: bytes


class Pong(NamedTuple):
    """PONG."""

    echo: bytes
    time_ms: int


class Ignored(NamedTuple):
    """A frame of a later version that may be skipped."""

    kind: int


ServerFrame = Union[
    Welcome, Accepted, Rejections, Delivery, PresenceReport, Drain, ErrorReport, Ping, Pong, Ignored
]

# ---- writing -----------------------------------------------------------------------------------

_SEND_HEAD = struct.Struct("<I16sBH")


def frame(kind: int, body: bytes) -> bytes:
    """Return a frame: header and body."""
    return struct.pack("<I", kind | len(body) << 8) + body


def encode_name(user: str) -> bytes:
    """Return a user's name behind its length byte. ``ValueError`` if it is none."""
    raw = user.encode()
    if not 1 <= len(raw) <= USER_BYTES_MAX:
        raise ValueError(f"a user's name has 1 to {USER_BYTES_MAX} bytes of UTF-8, not {len(raw)}")
    return bytes((len(raw),)) + raw


def encode_hello(
    user: str,
    device: str,
    token: str,
    window: int,
    versions: tuple[int, int] = (VERSION, VERSION),
) -> bytes:
    """Return a HELLO. ``ValueError`` if a text is too long for it."""
    fields = []
    for what, text, bound in (
        ("user", user, USER_BYTES_MAX),
        ("device", device, DEVICE_BYTES_MAX),
        ("token", token, TOKEN_BYTES_MAX),
    ):
        raw = text.encode()
        if len(raw) > bound:
            raise ValueError(f"a {what} has at most {bound} bytes of UTF-8, not {len(raw)}")
        length = struct.pack("<H", len(raw)) if what == "token" else bytes((len(raw),))
        fields.append(length + raw)
    return frame(HELLO, MAGIC + struct.pack("<BBHI", *versions, 0, window) + b"".join(fields))


def encode_send(
    seq: int, msg_id: bytes, flags: int, names: bytes, count: int, payload: bytes
) -> bytes:
    """Return a SEND to ``count`` recipients, whose names stand encoded one after the other."""
    body_bytes = _SEND_HEAD.size + len(names) + len(payload)
    head = struct.pack("<I", SEND | body_bytes << 8)
    return head + _SEND_HEAD.pack(seq, msg_id, flags, count) + names + payload


def encode_ack(upto: int) -> bytes:
    """Return an ACK."""
    return frame(ACK, struct.pack("<I", upto))


def encode_window(window: int) -> bytes:
    """Return a WINDOW."""
    return frame(WINDOW, struct.pack("<I", window))


def encode_presence_query(query: int, users: Sequence[str], *, watch: bool) -> bytes:
    """Return a PRESENCE_QUERY."""
    names = b"".join(map(encode_name, users))
    return frame(PRESENCE_QUERY, struct.pack("<IBH", query, watch, len(users)) + names)


def encode_unwatch(users: Sequence[str]) -> bytes:
    """Return an UNWATCH; of nobody means of all."""
    return frame(UNWATCH, struct.pack("<H", len(users)) + b"".join(map(encode_name, users)))


def encode_ping(echo: bytes) -> bytes:
    """Return a PING with its eight bytes."""
    return frame(PING, echo)


def encode_pong(echo: bytes) -> bytes:
    """Return a client's PONG."""
    return frame(PONG, echo + bytes(8))


# ---- reading -----------------------------------------------------------------------------------


class FrameReader:
    """Cuts a stream into frames. It holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield type and body of each frame that is now whole. ``WireError`` if one is oversize."""
        held = self._held
        held += data
        at, end = 0, len(held)
        try:
            while end - at >= HEADER_BYTES:
                kind = held[at]
                body_bytes = int.from_bytes(held[at + 1 : at + HEADER_BYTES], "little")
                if body_bytes > FRAME_BODY_BYTES_MAX:
                    raise WireError("oversize", f"a body of {body_bytes} bytes")
                start = at + HEADER_BYTES
                if end - start < body_bytes:
                    break
                at = start + body_bytes
                yield kind, bytes(held[start:at])
        finally:
            del held[:at]


class Fields:
    """A cursor over a body. Every read that does not fit is ``malformed``."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        start, self._at = self._at, self._at + count
        if self._at > len(self._body):
            raise WireError("malformed", "a field does not fit its frame")
        return self._body[start : self._at]

    def numbers(self, form: struct.Struct) -> tuple[Any, ...]:
        """Return the next integers."""
        return form.unpack(self.take(form.size))

    def text(self, length_bytes: int) -> str:
        """Return a text behind its length of one or two bytes."""
        raw = self.take(int.from_bytes(self.take(length_bytes), "little"))
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise WireError("malformed", "a text that is not UTF-8") from error

    def name(self) -> str:
        """Return a user's name."""
        start = self._at
        name = self.text(1)
        if not 1 <= self._at - start - 1 <= USER_BYTES_MAX:
            raise WireError("malformed", f"a name of {self._at - start - 1} bytes")
        return name

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._body) - self._at)

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._body) - self._at

    def end(self) -> None:
        """Check that nothing is left."""
        if self.left:
            raise WireError("malformed", f"{self.left} bytes too many")


_WELCOME = struct.Struct("<BxQIIIIHIQQ")
_RUN = struct.Struct("<IH")
_REJECTION = struct.Struct("<IHI")
_DELIVERY = struct.Struct("<I16sQB")
_PRESENCE = struct.Struct("<BQ")
_U32 = struct.Struct("<I")
_U32_U32 = struct.Struct("<II")
_ERROR = struct.Struct("<HI")
_U64 = struct.Struct("<Q")


def decode_server(kind: int, body: bytes) -> ServerFrame:
    """Return what a server said. ``WireError`` if it is not allowed to say so."""
    decode = _DECODERS.get(kind)
    if decode is not None:
        fields = Fields(body)
        said = decode(fields)
        fields.end()
        return said
    if kind & IGNORABLE:
        return Ignored(kind)
    raise WireError("unknown_type", f"type 0x{kind:02x} from a server")


def _welcome(fields: Fields) -> Welcome:
    numbers = fields.numbers(_WELCOME)
    return Welcome._make((*numbers, fields.text(1), fields.text(1), fields.name()))


def _packed(fields: Fields, form: struct.Struct, what: str) -> list[tuple[int, ...]]:
    body = fields.rest()
    if not body or len(body) % form.size:
        raise WireError("malformed", f"{len(body)} bytes of {what}")
    return list(form.iter_unpack(body))


def _accepted(fields: Fields) -> Accepted:
    copies = fields.take(1)[0]
    runs = [(first, count) for first, count in _packed(fields, _RUN, "runs")]
    if not all(count for _, count in runs):
        raise WireError("malformed", "a run of no SEND")
    return Accepted(copies, runs)


def _rejected(fields: Fields) -> Rejections:
    entries = _packed(fields, _REJECTION, "entries")
    return Rejections([(seq, code, retry_after_ms) for seq, code, retry_after_ms in entries])


def _delivery(fields: Fields) -> Delivery:
    return Delivery._make((*fields.numbers(_DELIVERY), fields.name(), fields.rest()))


def _presence(fields: Fields) -> PresenceReport:
    (query,) = fields.numbers(_U32)
    entries = []
    while fields.left:
        state, since_ms = fields.numbers(_PRESENCE)
        if state > REFUSED:
            raise WireError("malformed", f"presence state {state}")
        entries.append((state, since_ms, fields.name()))
    return PresenceReport(query, entries)


def _drain(fields: Fields) -> Drain:
    return Drain(*fields.numbers(_U32_U32))


def _error(fields: Fields) -> ErrorReport:
    return ErrorReport._make((*fields.numbers(_ERROR), fields.text(2)))


def _ping(fields: Fields) -> Ping:
    return Ping(fields.take(8))


def _pong(fields: Fields) -> Pong:
    return Pong(fields.take(8), *fields.numbers(_U64))


_DECODERS: dict[int, Callable[[Fields], ServerFrame]] = {
    WELCOME: _welcome,
    ACCEPTED: _accepted,
    REJECTED: _rejected,
    MESSAGE: _delivery,
    PRESENCE: _presence,
    DRAIN: _drain,
    ERROR: _error,
    PING: _ping,
    PONG: _pong,
}
