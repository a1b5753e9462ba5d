"""The frames of proto/vectors/wire-v1.json, which the server's tests read too."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import pytest

import peer
from iris_client import _ids
from iris_client import _protocol as wire


def _named(section: str, direction: str) -> list[Any]:
    rows = [row for row in peer.VECTORS[section] if row["direction"] == direction]
    assert rows, f"no {direction} vectors in {section}"
    return [pytest.param(row, id=row["name"]) for row in rows]


def _only_frame(raw: bytes) -> tuple[int, bytes]:
    (one,) = wire.FrameReader().feed(raw)
    return one


def _encode_client(name: str, f: dict[str, Any]) -> bytes:
    if name == "HELLO":
        versions = (f["version_min"], f["version_max"])
        return wire.encode_hello(f["user"], f["device"], f["token"], f["window"], versions)
    if name == "SEND":
        names = b"".join(map(wire.encode_name, f["to"]))
        msg_id, payload = uuid.UUID(f["id"]).bytes, bytes.fromhex(f["payload"])
        return wire.encode_send(f["seq"], msg_id, f["flags"], names, len(f["to"]), payload)
    if name == "ACK":
        return wire.encode_ack(f["upto"])
    if name == "WINDOW":
        return wire.encode_window(f["window"])
    if name == "PRESENCE_QUERY":
        return wire.encode_presence_query(f["query"], f["users"], watch=f["watch"])
    if name == "UNWATCH":
        return wire.encode_unwatch(f["users"])
    encode = {"PING": wire.encode_ping, "PONG": wire.encode_pong}[name]
    return encode(bytes.fromhex(f["echo"]))


def _describe_server(said: wire.ServerFrame) -> tuple[str, dict[str, Any]]:
    f: dict[str, Any] = said._asdict()
    if isinstance(said, wire.Welcome):
        return "WELCOME", f
    if isinstance(said, wire.Accepted):
        runs = [{"first": first, "count": count} for first, count in said.runs]
        return "ACCEPTED", {"copies": said.copies, "runs": runs}
    if isinstance(said, wire.Rejections):
        names = ("seq", "code", "retry_after_ms")
        return "REJECTED", {"entries": [dict(zip(names, entry)) for entry in said.entries]}
    if isinstance(said, wire.Delivery):
        f["id"] = str(uuid.UUID(bytes=said.id))
        f["from"] = f.pop("sender")
        f["payload"] = said.payload.hex()
        return "MESSAGE", f
    if isinstance(said, wire.PresenceReport):
        names = ("state", "since_ms", "user")
        entries = [dict(zip(names, entry)) for entry in said.entries]
        return "PRESENCE", {"query": said.query, "entries": entries}
    if isinstance(said, (wire.Ping, wire.Pong)):
        f["echo"] = said.echo.hex()
        return type(said).__name__.upper(), f
    if isinstance(said, wire.Ignored):
        return "IGNORED", {}
    return {"Drain": "DRAIN", "ErrorReport": "ERROR"}[type(said).__name__], f


def _encode_server(name: str, f: dict[str, Any]) -> bytes:
    """Encode with the test peer, so that the scripted server speaks what the real one does."""
    if name == "WELCOME":
        return peer.welcome(**f)
    if name == "ACCEPTED":
        runs = [(run["first"], run["count"]) for run in f["runs"]]
        return peer.accepted(*runs, copies=f["copies"])
    if name == "REJECTED":
        return peer.rejected(*(tuple(entry.values()) for entry in f["entries"]))
    if name == "MESSAGE":
        payload = bytes.fromhex(f["payload"])
        msg_id = uuid.UUID(f["id"])
        return peer.message(f["no"], msg_id, f["from"], payload, f["flags"], f["time_ms"])
    if name == "PRESENCE":
        return peer.presence(f["query"], *(tuple(entry.values()) for entry in f["entries"]))
    if name == "DRAIN":
        return peer.drain(**f)
    if name == "ERROR":
        return peer.error(**f)
    if name == "PING":
        return peer.ping(bytes.fromhex(f["echo"]))
    return peer.pong(bytes.fromhex(f["echo"]), f["time_ms"])


@pytest.mark.parametrize("row", _named("frames", "client"))
def test_a_client_frame_is_encoded_to_the_bytes_of_its_vector(row: dict[str, Any]) -> None:
    raw = bytes.fromhex(row["hex"])
    if row["type"] != "IGNORED":
        assert peer.frames(raw) == [(row["type"], row["fields"])]
        if row.get("canonical", True):
            assert _encode_client(row["type"], row["fields"]) == raw


@pytest.mark.parametrize("row", _named("frames", "server"))
def test_a_server_frame_is_decoded_to_the_fields_of_its_vector(row: dict[str, Any]) -> None:
    raw = bytes.fromhex(row["hex"])
    assert _describe_server(wire.decode_server(*_only_frame(raw))) == (row["type"], row["fields"])
    if row.get("canonical", True):
        assert _encode_server(row["type"], row["fields"]) == raw


@pytest.mark.parametrize("row", _named("invalid", "server"))
def test_an_invalid_server_frame_is_refused_by_its_name(row: dict[str, Any]) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.decode_server(*_only_frame(bytes.fromhex(row["hex"])))
    assert caught.value.code == row["error"]


@pytest.mark.parametrize("row", _named("frames", "server"))
def test_a_server_body_cut_anywhere_is_refused_or_another_whole_frame(row: dict[str, Any]) -> None:
    kind, body = _only_frame(bytes.fromhex(row["hex"]))
    for length in range(len(body)):
        try:
            wire.decode_server(kind, body[:length])
        except wire.WireError as error:
            assert error.code == "malformed"


def test_a_stream_gives_the_same_frames_however_it_is_cut() -> None:
    raws = [bytes.fromhex(row["hex"]) for row in peer.VECTORS["frames"]]
    stream = b"".join(raws)
    whole = list(wire.FrameReader().feed(stream))
    assert len(whole) == len(raws)
    for size in (1, 2, 3, 7, 64, 1000):
        reader = wire.FrameReader()
        cut = [
            one for at in range(0, len(stream), size) for one in reader.feed(stream[at : at + size])
        ]
        assert cut == whole


def test_an_oversize_length_is_refused_before_its_body_is_there() -> None:
    with pytest.raises(wire.WireError) as caught:
        list(wire.FrameReader().feed(b"\x44\x01\x00\x02"))
    assert caught.value.code == "oversize"


@pytest.mark.parametrize("row", peer.VECTORS["users"], ids=lambda row: str(row["user"][:8]))
def test_a_user_has_the_key_and_shards_of_its_vector(row: dict[str, Any]) -> None:
    key = hashlib.sha256(row["user"].encode()).digest()[:16]
    assert key.hex() == row["key"]
    for num_shards, shard in row["shards"].items():
        assert int.from_bytes(key[:8], "big") * int(num_shards) >> 64 == shard


@pytest.mark.parametrize("row", peer.VECTORS["ids"], ids=lambda row: str(row["uuid"]))
def test_an_id_has_the_layout_of_its_vector(row: dict[str, Any]) -> None:
    msg_id = uuid.UUID(row["uuid"])
    assert msg_id.hex == row["hex"]
    assert _ids.unix_ms(msg_id) == row["unix_ms"]
    is_v7 = msg_id.variant == uuid.RFC_4122 and msg_id.version == 7
    assert is_v7 == row["is_v7"]
    if is_v7:
        counter = row["rand_a"] << 62 | int(row["rand_b"], 16)
        assert _ids.compose(row["unix_ms"], counter) == msg_id


def test_the_codes_and_limits_are_those_of_the_protocol_page() -> None:
    page = (peer.REPO / "docs/PROTOCOL.md").read_text()
    rows = [
        [cell.strip().strip("`") for cell in line.strip("| ").split("|")]
        for line in page.splitlines()
        if line.startswith("|")
    ]
    codes = {int(row[0]): row[1] for row in rows if len(row) == 5 and row[0].isdigit()}
    assert codes == wire.CODES
    again = {int(row[0]): row[2] for row in rows if len(row) == 5 and row[0].isdigit()}
    assert {code for code, word in again.items() if word == "same id"} == {
        code for code in wire.CODES if code >= wire.RETRYABLE
    }
    limits = {
        row[0]: int(row[1].replace(",", "")) for row in rows if row[0].endswith(("_MAX", "_BYTES"))
    }
    assert len(limits) == 14
    assert limits == {name: getattr(wire, name) for name in limits}
