"""Random frames, whole and mangled, from clients who logged in: the server goes on, and ends them only by name."""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from collections.abc import Callable

from iris_client import _protocol as p
from support import ids
from support.client import Client, Closed, NotYet
from support.server import Server
from support.witness import Witness

USERS = ["x", "y", "fuzz", "z" * 128, "\U0001f600"]


def frame(pick: random.Random, seq: int) -> bytes:
    """A frame that a client may send, with numbers from everywhere, but mostly the right one in a SEND."""
    number = pick.choice((0, 1, 2, 255, 1024, 65_535, 2**31, 2**32 - 1, pick.randrange(2**32)))
    users = [pick.choice(USERS) for _ in range(pick.choice((1, 1, 2, 5, 256)))]
    names = b"".join(map(p.encode_name, users))
    match pick.randrange(9):
        case 0 | 1 | 2:
            when = ids.ms() + pick.choice((0, 0, 0, -7_200_000, 3_600_000, -1000))
            msg_id = pick.choice((ids.at(max(0, when)), bytes(16), pick.randbytes(16)))
            payload = bytes(pick.choice((0, 1, 100, 65_536, 65_537)))
            seq = seq if pick.random() < 0.95 else number
            return p.encode_send(seq, msg_id, pick.randrange(256), names, len(users), payload)
        case 3:
            return p.encode_ack(pick.choice((0, 0, number)))
        case 4:
            return p.encode_window(number)
        case 5:
            body = struct.pack("<IBH", max(number, 1), pick.randrange(4), len(users)) + names
            return p.frame(p.PRESENCE_QUERY, body)
        case 6:
            return p.frame(p.UNWATCH, struct.pack("<H", len(users)) + names)
        case 7:
            return pick.choice((p.encode_ping, p.encode_pong))(pick.randbytes(8))
        case _:
            return p.frame(0x80 | pick.randrange(128), pick.randbytes(pick.randrange(300)))


def mangle(pick: random.Random, data: bytes) -> bytes:
    """Change a few bytes, cut, or lengthen."""
    raw = bytearray(data)
    match pick.randrange(4):
        case 0:
            for _ in range(pick.randrange(1, 4)):
                raw[pick.randrange(len(raw))] = pick.randrange(256)
        case 1:
            del raw[pick.randrange(len(raw)) :]
        case 2:
            raw += pick.randbytes(pick.randrange(1, 50))
        case _:
            raw[0] = pick.randrange(256)
    return bytes(raw)


def is_alive(client: Client) -> bool:
    """Ask until an answer or the end comes. A frame that was cut short swallows PINGs, up to the longest frame."""
    last = b"the end."
    for count in (1, 16, p.FRAME_BODY_BYTES_MAX // 12 + 2):
        client.raw(p.encode_ping(last) * count)
        try:
            client.pump(lambda: any(pong.echo == last for pong in client.pongs), 0.2 if count < 100 else None)
            return True
        except NotYet:
            continue
    return False


def one_life(server: Server, pick: random.Random) -> str:
    """Log in, send until thrown out or tired; return how it ended."""
    user = pick.choice(("fuzz", "x", "y"))
    client = Client(server.tcp).login(user, server.token(user), pick.choice((0, 1, 16, 1024)))
    seq = pick.choice((0, 7, 2**32 - 3))
    try:
        for _ in range(pick.randrange(1, 60)):
            data = frame(pick, seq)
            seq = (seq + (data[0] == p.SEND)) % 2**32
            if pick.random() < 0.05:
                data = mangle(pick, data)
            at = pick.randrange(len(data) + 1) if pick.random() < 0.3 and data else len(data)
            client.raw(data[:at])
            client.raw(data[at:])
        return "alive" if is_alive(client) else "mute"
    except ConnectionError:
        client.last_words()
    except Closed:
        pass
    finally:
        pick.choice((client.close, client.abort))()
    return p.code_name(client.error.code) if client.error else "no word"


def test_random_frames_end_by_name_or_not_at_all(make_server: Callable[..., Server]) -> None:
    number = int(os.environ.get("IRIS_E2E_SEED", random.randrange(1 << 32)))
    print(f"IRIS_E2E_SEED={number}")
    pick = random.Random(number)
    server = make_server({"IRIS_CORE__PARTITIONS": "3"}).start()
    witness = Witness(server)
    endings: Counter[str] = Counter()
    try:
        for _ in range(int(os.environ.get("IRIS_E2E_ROUNDS", "200"))):
            endings[one_life(server, pick)] += 1
        witness.check()
        print(dict(endings))
        allowed = {"malformed", "unknown_type", "bad_ack", "bad_seq", "out_of_order", "oversize", "garbage"}
        assert set(endings) <= allowed | {"alive", "no word", "replaced", "slow_reader"}, endings
        assert endings["malformed"] and endings["bad_ack"] and endings["bad_seq"]
    finally:
        witness.stop()
    # What was accepted meanwhile is sound on disk.
    server.restart()
    for user in ("x", "y", "fuzz"):
        with server.login(user, 1024) as client:
            client.drain_inbox()
    assert server.stop() == 0
