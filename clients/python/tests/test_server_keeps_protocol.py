"""The real server against docs/PROTOCOL.md, byte by byte, as another client would see it."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from typing import Any, Optional, TypeVar

import pytest

import peer
from iris_client import _ids
from iris_client import _protocol as wire
from server import PATIENCE, Server

SOON = PATIENCE
_F = TypeVar("_F")


class Raw:
    """A TCP connection that speaks frames and nothing else."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), SOON)
        self._reader = wire.FrameReader()
        self._heard: list[wire.ServerFrame] = []
        self.ids = _ids.MessageIds()

    def say(self, *data: bytes) -> None:
        # The server may have closed already; what it said before that still counts.
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(b"".join(data))

    def next(self) -> Optional[wire.ServerFrame]:
        """Return the next frame, None at the end."""
        while not self._heard:
            try:
                data = self._socket.recv(65_536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._heard += [wire.decode_server(*one) for one in self._reader.feed(data)]
        return self._heard.pop(0)

    def hear(self, kind: type[_F]) -> _F:
        """Return the next frame of this type."""
        while (said := self.next()) is not None:
            if isinstance(said, kind):
                return said
        raise AssertionError(f"closed before {kind.__name__}")

    def login(self, server: Server, user: str, window: int = 256) -> wire.Welcome:
        self.say(wire.encode_hello(user, "", server.token(user), window))
        welcome = self.hear(wire.Welcome)
        self.ids.set_clock(welcome.server_time_ms, time.monotonic())
        return welcome

    def send(self, seq: int, to: str, payload: bytes = b"", **options: Any) -> bytes:
        msg_id: uuid.UUID = options.get("msg_id") or self.ids.next(time.monotonic())
        names = b"".join(map(wire.encode_name, to.split()))
        count = len(to.split())
        return wire.encode_send(seq, msg_id.bytes, options.get("flags", 0), names, count, payload)

    def accepted(self, count: int) -> list[int]:
        """Return the numbers of the next so many SENDs that are accepted."""
        seqs: list[int] = []
        while len(seqs) < count:
            for first, length in self.hear(wire.Accepted).runs:
                seqs += [(first + n) & 0xFFFF_FFFF for n in range(length)]
        return seqs

    def sync(self) -> list[wire.ServerFrame]:
        """Return all that the server said before it answered a PING."""
        self.say(wire.encode_ping(b"up-to-me"))
        before: list[wire.ServerFrame] = []
        while not isinstance(said := self.next(), wire.Pong):
            assert said is not None, "closed before PONG"
            before.append(said)
        return before

    def ends_with(self) -> str:
        """Return the code of the ERROR that ends the connection."""
        last: Optional[wire.ServerFrame] = None
        while (said := self.next()) is not None:
            last = said
        assert isinstance(last, wire.ErrorReport), f"ended by {last}"
        assert last.text
        return wire.code_name(last.code)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def raw(shared: Server) -> Iterator[Raw]:
    connection = Raw(shared.port)
    yield connection
    connection.close()


def _invalid() -> list[Any]:
    rows = [row for row in peer.VECTORS["invalid"] if row["direction"] == "client"]
    return [pytest.param(row, id=row["name"]) for row in rows]


@pytest.mark.parametrize("row", _invalid())
def test_an_invalid_frame_ends_the_connection_by_its_name(
    shared: Server, raw: Raw, row: dict[str, Any]
) -> None:
    if not row["name"].startswith("hello"):
        raw.login(shared, "invalid")
    raw.say(bytes.fromhex(row["hex"]))
    assert raw.ends_with() == row["error"]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: iris\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
        b"\xff" * 300,
        bytes(300),
        wire.encode_ping(b"12345678"),
        wire.frame(0x99, b"ignorable, but not before HELLO"),
    ],
    ids=["http", "tls", "ones", "zeros", "ping", "ignorable"],
)
def test_what_is_no_hello_is_refused_at_once(raw: Raw, data: bytes) -> None:
    raw.say(data)
    assert raw.ends_with() in ("garbage", "oversize", "unknown_type", "out_of_order")


def test_frames_before_welcome_are_out_of_order(shared: Server, raw: Raw) -> None:
    hello = wire.encode_hello("early", "", shared.token("early"), 1)
    raw.say(hello + wire.encode_ping(b"12345678"))
    assert raw.ends_with() == "out_of_order"


def test_a_second_hello_is_out_of_order(shared: Server, raw: Raw) -> None:
    raw.login(shared, "twice-hello")
    raw.say(wire.encode_hello("twice-hello", "", shared.token("twice-hello"), 1))
    assert raw.ends_with() == "out_of_order"


def test_the_hello_vectors_get_as_far_as_their_token(shared: Server) -> None:
    for row in peer.VECTORS["frames"]:
        if row["type"] == "HELLO":
            raw = Raw(shared.port)
            raw.say(bytes.fromhex(row["hex"]))
            expected = "token_malformed" if row["fields"]["token"] else "token_missing"
            assert raw.ends_with() == expected, row["name"]
            raw.close()


def test_welcome_states_the_terms(shared: Server, raw: Raw) -> None:
    welcome = raw.login(shared, "terms", window=5000)
    assert (welcome.version, welcome.user, welcome.waiting) == (1, "terms", 0)
    assert 1 <= welcome.send_window <= wire.SEND_WINDOW_MAX
    assert welcome.recv_window == wire.RECV_WINDOW_MAX
    assert welcome.payload_max <= wire.PAYLOAD_BYTES_MAX
    assert welcome.recipients_max == wire.RECIPIENTS_MAX
    assert abs(welcome.server_time_ms / 1000 - time.time()) < 600
    assert abs(welcome.token_expires_s - 3600 - time.time()) < 600


def test_an_empty_user_is_whom_the_token_names(shared: Server, raw: Raw) -> None:
    raw.say(wire.encode_hello("", "", shared.token("sub-user"), 1))
    assert raw.hear(wire.Welcome).user == "sub-user"


def test_a_ping_is_answered_with_the_clock(shared: Server, raw: Raw) -> None:
    raw.login(shared, "ping")
    raw.say(wire.encode_ping(b"\x00\xff345678"))
    pong = raw.hear(wire.Pong)
    assert pong.echo == b"\x00\xff345678"
    assert abs(pong.time_ms / 1000 - time.time()) < 600


def test_an_ignorable_frame_and_reserved_bits_are_ignored(shared: Server, raw: Raw) -> None:
    raw.login(shared, "lenient")
    raw.say(wire.frame(0x80, b""), wire.frame(0xFF, bytes(wire.FRAME_BODY_BYTES_MAX)))
    raw.say(raw.send(0, "lenient", b"x", flags=0xFE))
    delivery = raw.hear(wire.Delivery)
    assert delivery.flags & (wire.WANTS_RECEIPT | wire.IS_RECEIPT) == 0
    raw.say(wire.frame(wire.PONG, bytes(8) + b"\x01" * 8), wire.encode_ack(1))
    raw.sync()


def test_a_frame_may_come_in_single_bytes(shared: Server, raw: Raw) -> None:
    for byte in wire.encode_hello("slow", "", shared.token("slow"), 8):
        raw.say(bytes((byte,)))
    raw.ids.set_clock(raw.hear(wire.Welcome).server_time_ms, time.monotonic())
    for byte in raw.send(7, "slow", b"hello"):
        raw.say(bytes((byte,)))
    assert raw.hear(wire.Accepted).runs == [(7, 1)]


def test_every_send_is_answered_once_and_seq_wraps(shared: Server, raw: Raw) -> None:
    raw.login(shared, "answers")
    seqs = [(0xFFFF_FFF0 + n) & 0xFFFF_FFFF for n in range(200)]
    raw.say(*(raw.send(seq, "answers-to") for seq in seqs))
    assert sorted(raw.accepted(len(seqs))) == sorted(seqs)
    assert not [said for said in raw.sync() if isinstance(said, (wire.Accepted, wire.Rejections))]


def test_more_unanswered_sends_than_the_window_end_the_connection(shared: Server, raw: Raw) -> None:
    welcome = raw.login(shared, "flood")
    names = " ".join(f"flood-{n}" for n in range(60))
    raw.say(*(raw.send(seq, names) for seq in range(20 * welcome.send_window)))
    assert raw.ends_with() == "send_window"


def test_a_payload_above_the_maximum_is_refused_and_the_connection_lives(
    shared: Server, raw: Raw
) -> None:
    welcome = raw.login(shared, "large")
    raw.say(raw.send(3, "large", b"x" * (welcome.payload_max + 1)))
    assert raw.hear(wire.Rejections).entries == [(3, 405, 0)]
    raw.say(raw.send(4, "large", b"x" * welcome.payload_max))
    assert raw.hear(wire.Accepted).runs == [(4, 1)]


def test_ids_are_refused_by_name_at_both_ends_of_the_window(shared: Server, raw: Raw) -> None:
    welcome = raw.login(shared, "edges")
    now, window = welcome.server_time_ms, welcome.dedup_window_ms
    cases = [
        (_ids.compose(now - window - 5_000, 1), 401),
        (_ids.compose(now + 900_000, 1), 402),
        (uuid.UUID("919108f7-52d1-4320-9bac-f847db4148a8"), 404),
        (_ids.compose(now - window + 900_000, 1), None),
        (_ids.compose(now + 240_000, 1), None),
    ]
    for seq, (msg_id, code) in enumerate(cases):
        raw.say(raw.send(seq, "edges-to", msg_id=msg_id))
        if code is None:
            assert raw.hear(wire.Accepted).runs == [(seq, 1)]
        else:
            assert raw.hear(wire.Rejections).entries == [(seq, code, 0)]


def test_an_id_below_the_remembered_ones_is_stale_and_those_remembered_are_repeats(
    shared: Server, raw: Raw
) -> None:
    raw.login(shared, "stale")
    base = raw.ids.next(time.monotonic())
    ids = [uuid.UUID(int=base.int + n) for n in range(1 + wire.DEDUP_IDS_PER_SENDER_MAX)]
    for at in range(0, len(ids), 100):
        some = ids[at : at + 100]
        raw.say(*(raw.send(at + n, "stale-to", msg_id=one) for n, one in enumerate(some)))
        raw.accepted(len(some))
    seq = len(ids)
    raw.say(raw.send(seq, "stale-to", msg_id=ids[-1]), raw.send(seq + 1, "stale-to", msg_id=ids[1]))
    raw.accepted(2)
    raw.say(raw.send(seq + 2, "stale-to", msg_id=uuid.UUID(int=base.int - 1)))
    assert raw.hear(wire.Rejections).entries == [(seq + 2, 403, 0)]


def test_numbers_of_sends_that_do_not_follow_end_the_connection(shared: Server) -> None:
    for seqs in ((0, 2), (5, 5), (1, 0), (0xFFFF_FFFF, 1)):
        with contextlib.closing(Raw(shared.port)) as raw:
            raw.login(shared, "counts")
            raw.say(*(raw.send(seq, "counts-to") for seq in seqs))
            assert raw.ends_with() == "bad_seq"


def test_deliveries_count_from_one_and_stop_at_the_window(shared: Server, raw: Raw) -> None:
    with shared.login("counted-from") as sender:
        for n in range(10):
            sender.send_msg("counted", str(n))
    assert raw.login(shared, "counted", window=4).waiting == 10
    assert [raw.hear(wire.Delivery).no for _ in range(4)] == [1, 2, 3, 4]
    assert raw.sync() == []
    raw.say(wire.encode_ack(3))
    assert [raw.hear(wire.Delivery).no for _ in range(3)] == [5, 6, 7]
    raw.say(wire.encode_window(0), wire.encode_ack(7))
    assert raw.sync() == []
    raw.say(wire.encode_ack(2), wire.encode_ack(0), wire.encode_window(2))
    assert [raw.hear(wire.Delivery).payload for _ in range(2)] == [b"7", b"8"]
    raw.say(wire.encode_ack(10))
    assert raw.ends_with() == "bad_ack"


def test_a_large_backlog_keeps_within_the_bytes_under_way(shared: Server, raw: Raw) -> None:
    with shared.login("bytes-from") as sender:
        for _ in range(8):
            sender.send_msg("bytes", b"x" * wire.PAYLOAD_BYTES_MAX)
    raw.login(shared, "bytes")
    got = [raw.hear(wire.Delivery) for _ in range(3)]
    got += [said for said in raw.sync() if isinstance(said, wire.Delivery)]
    assert 3 <= len(got) < 8
    assert sum(len(one.payload) for one in got[:-1]) < wire.RECV_WINDOW_BYTES
    for no in range(len(got), 8):
        raw.say(wire.encode_ack(no))
        assert raw.hear(wire.Delivery).no > no


def test_a_replaced_connection_hears_so_and_its_deliveries_start_again(shared: Server) -> None:
    with shared.login("moving-from") as sender:
        sender.send_msg("moving", "hello")
    older, newer = Raw(shared.port), Raw(shared.port)
    older.login(shared, "moving")
    first = older.hear(wire.Delivery)
    newer.login(shared, "moving")
    assert older.ends_with() == "replaced"
    again = newer.hear(wire.Delivery)
    assert again == first
    older.close()
    newer.close()


def test_presence_names_each_user_once_and_zero_is_a_change(shared: Server, raw: Raw) -> None:
    raw.login(shared, "asks")
    users = ["asks", *(f"nobody-{n}" for n in range(255))]
    raw.say(wire.encode_presence_query(77, users, watch=True))
    named: list[str] = []
    while len(named) < len(users):
        report = raw.hear(wire.PresenceReport)
        assert report.query == 77
        assert all(state == int(user == "asks") for state, _, user in report.entries)
        named += [user for _, _, user in report.entries]
    assert sorted(named) == sorted(users)
    with shared.login("nobody-7"):
        report = raw.hear(wire.PresenceReport)
        assert report.query == 0
        assert [(state, user) for state, _, user in report.entries] == [(1, "nobody-7")]
        assert report.entries[0][1] > 0
    assert [e[::2] for e in raw.hear(wire.PresenceReport).entries] == [(0, "nobody-7")]
    raw.say(wire.encode_unwatch([]))
    assert raw.sync() == []


def test_half_a_frame_and_a_vanished_client_harm_nobody(shared: Server) -> None:
    halves = [Raw(shared.port) for _ in range(20)]
    for number, half in enumerate(halves):
        if number % 2:
            half.login(shared, f"half-{number}")
            half.say(half.send(0, "half", bytes(1000))[:500])
        else:
            half.say(wire.encode_hello("half", "", "token", 1)[:-3])
    with shared.login("whole") as client:
        client.send_msg("whole", "still fine")
        assert client.recv_msg(timeout=SOON).text == "still fine"
    for number, half in enumerate(halves):
        if number % 3:
            linger = struct.pack("ii", 1, 0)
            half._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        half.close()
    with shared.login("whole") as client:
        client.send_msg("whole", "and after")
        assert client.recv_msg(timeout=SOON).text == "and after"


def test_a_server_that_stops_says_drain_or_why_it_closes(own: Server) -> None:
    raw = Raw(own.port)
    raw.login(own, "leaving")
    own.stop()
    heard = []
    while (said := raw.next()) is not None:
        heard.append(said)
    raw.close()
    kinds = {type(said) for said in heard}
    assert kinds <= {wire.Drain, wire.ErrorReport}
    assert kinds
