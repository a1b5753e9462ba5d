"""Damage on disk: the server starts, says what is damaged, loses nothing else, and never hands out anything wrong.

Each test works on a copy of one directory that a real server wrote and left by kill -9. Every message of it has a
frame of its own, so that it is known which message a damage may cost.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ids
from support.fleet import content
from support.logs import BLOCK, TRAILER_BYTES, Place, copy_of, find, flip, has_footer
from support.logs import overwrite, verdict, verify
from support.server import Server, iris
from support.wait import until

COUNT = 160
ENV = {"IRIS_WAL__SEGMENT_SIZE": "1MiB", "IRIS_WAL__BATCH_MAX": "256KiB"}
SIZES = (32, 200, 3_000, 9_000, 30_000)


class Written:
    """The directory, what is in it, and where."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.payloads: dict[bytes, bytes] = {}
        self.places: dict[bytes, Place] = {}

    def write(self) -> None:
        with self.server.login("writer") as writer:
            for i in range(COUNT):
                msg_id = ids.now()
                payload = content("writer", msg_id, SIZES[i % len(SIZES)])
                assert writer.ask("reader", payload, msg_id=msg_id) == "accepted"
                self.payloads[msg_id] = payload
        until(self.is_sealed, "all segments but the last have footers")
        self.server.kill()
        segments = self.server.segments()
        for msg_id, payload in self.payloads.items():
            self.places[msg_id] = find(segments, payload)

    def is_sealed(self) -> bool:
        """Whether every segment before the one that is written to has its footer."""
        used = [s for s in self.server.segments() if any(i in s.read_bytes() for i in self.payloads)]
        return all(map(has_footer, used[:-1]))

    def ids(self) -> list[bytes]:
        return list(self.payloads)

    def hit_by(self, path: Path, start: int, end: int) -> set[bytes]:
        return {i for i, place in self.places.items() if place.overlaps(path, start, end)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    server = Server(tmp_path_factory.mktemp("written"), ENV)
    server.start()
    written = Written(server)
    try:
        written.write()
        assert len({place.path for place in written.places.values()}) >= 2
        yield written
    finally:
        server.cleanup()


@pytest.fixture
def copy(written: Written, tmp_path: Path) -> Iterator[Server]:
    server = copy_of(written.server, tmp_path / "copy")
    yield server
    server.cleanup()


def here(server: Server, place: Place) -> Path:
    """The same file in the copy."""
    return server.data / "wal" / "p000" / place.path.name


def read_all(server: Server, written: Written) -> list[bytes]:
    """Start, take all that comes, leave it unacknowledged, and check each for its content; return the ids."""
    server.start()
    got: list[bytes] = []
    with server.login("reader", 1024) as reader:
        mark = ids.now()
        reader.send("reader", b"", msg_id=mark)
        while True:
            (delivery,) = reader.take(1)
            if delivery.id == mark:
                reader.ack(delivery.no)
                reader.sync()
                break
            assert delivery.sender == "writer" and delivery.id in written.payloads
            assert delivery.payload == written.payloads[delivery.id], "never anything else"
            got.append(delivery.id)
            reader.ack(delivery.no)
    assert got == sorted(set(got)), "in order, once"
    return got


def assert_lost_at_most(got: list[bytes], written: Written, hit: set[bytes]) -> None:
    lost = set(written.ids()) - set(got)
    assert lost <= hit, f"{len(lost - hit)} undamaged messages are lost"


def assert_goes_on(server: Server) -> None:
    """New messages are taken and survive a crash."""
    with server.login("later") as later:
        assert later.ask("later", b"after the damage") == "accepted"
    server.restart()
    with server.login("later") as later:
        assert later.take(1)[0].payload == b"after the damage"


def test_an_undamaged_directory_is_sound_and_holds_everything(copy: Server, written: Written) -> None:
    assert verdict(copy) == "sound"
    dump = iris("wal", "dump", str(copy.data), "--json")
    assert dump.returncode == 0
    records = [json.loads(line) for line in dump.stdout.splitlines()]
    assert sum(record.get("type") == "MSG" for record in records) == COUNT
    assert read_all(copy, written) == written.ids()


def cut_end(server: Server, written: Written) -> Place:
    """Take away all behind the last message's first block, as if its write had been cut short by a power cut."""
    place = written.places[[i for i in written.ids() if len(written.payloads[i]) > 2 * BLOCK][-1]]
    path = here(server, place)
    keep = place.start + BLOCK
    size = path.stat().st_size
    overwrite(path, keep, bytes(size - keep))
    return place


def test_a_torn_tail_costs_only_the_batch_that_was_being_written(
    copy: Server, written: Written
) -> None:
    place = cut_end(copy, written)
    behind = written.hit_by(place.path, place.start, 1 << 31)
    assert len(behind) < len(SIZES)
    for later in copy.segments():
        if later.name > place.path.name:
            assert not any(p.path.name == later.name for p in written.places.values())
    assert verdict(copy) == "torn"
    got = read_all(copy, written)
    assert set(got) == set(written.ids()) - behind
    assert_goes_on(copy)
    assert copy.stop() == 0
    assert verdict(copy) == "sound"


def tail_of(written: Written) -> Path:
    return max(place.path for place in written.places.values())


def victim(written: Written, *, sealed: bool) -> bytes:
    """A message in the middle of a segment with a footer, or of the one without."""
    tail = tail_of(written)
    inside = [i for i in written.ids() if (written.places[i].path == tail) != sealed]
    return inside[len(inside) // 2]


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("where", ["payload", "frame header", "record header"])
def test_a_flipped_bit_costs_that_message_alone_and_is_told(
    copy: Server, written: Written, sealed: bool, where: str
) -> None:
    msg_id = victim(written, sealed=sealed)
    place = written.places[msg_id]
    assert has_footer(here(copy, place)) == sealed
    at = {"payload": place.payload + 5, "frame header": place.start + 20, "record header": place.start + 64 + 30}
    flip(here(copy, place), at[where], 3)
    code, lines = verify(copy)
    assert code == 1
    faults = [line for line in lines if line["kind"] == "fault"]
    for fault in faults:
        assert fault["segment"] == int(place.path.stem, 16)
        assert place.start <= fault["from"] < fault["to"] <= place.end
    before = here(copy, place).read_bytes()
    got = read_all(copy, written)
    assert_lost_at_most(got, written, {msg_id})
    if where == "payload":
        assert msg_id not in got
    if msg_id not in got:
        names = ("iris_wal_unreadable_ranges", "iris_unreadable_deliveries_total")
        until(lambda: any(copy.metrics().sum(name) for name in names), "it is told")
    assert_goes_on(copy)
    copy.kill()
    assert here(copy, place).read_bytes() == before, "damage is kept as it is, for those who repair"


@pytest.mark.parametrize("what", ["the trailer's last byte", "all of the trailer", "an entry"])
def test_a_damaged_or_missing_footer_costs_nothing(copy: Server, written: Written, what: str) -> None:
    path = here(copy, written.places[victim(written, sealed=True)])
    size = path.stat().st_size
    assert has_footer(path)
    match what:
        case "the trailer's last byte":
            flip(path, size - 1)
        case "all of the trailer":
            overwrite(path, size - TRAILER_BYTES, bytes(TRAILER_BYTES))
        case _:
            trailer = path.read_bytes()[-TRAILER_BYTES:]
            entries = int.from_bytes(trailer[24:28], "little")
            flip(path, entries + 50)
    assert read_all(copy, written) == written.ids()
    until(lambda: has_footer(path), "it is written again")
    copy.kill()
    assert verdict(copy) in ("sound", "torn")


def test_what_is_left_of_the_last_use_of_a_recycled_file_counts_for_nothing(
    copy: Server, written: Written
) -> None:
    """Blocks of an older segment stand where the log goes on, whole by every checksum but their place."""
    tail = here(copy, written.places[max(written.ids())])
    end = max(place.end for place in written.places.values() if place.path.name == tail.name)
    older = copy.segments()[0].read_bytes()
    data = tail.read_bytes()
    # An idle mark may follow the last message.
    while data[end : end + 4] == b"IRBF":
        end += BLOCK
    overwrite(tail, end, older[end:])
    unused = [s for s in copy.segments() if s.name > tail.name]
    for segment in unused:
        overwrite(segment, BLOCK, older[BLOCK:])
    assert verdict(copy) == "sound"
    assert read_all(copy, written) == written.ids()
    assert_goes_on(copy)


def test_a_stale_block_over_a_message_costs_that_message_alone(copy: Server, written: Written) -> None:
    """A write that went astray: the block of another frame, sound by itself, in place of this one's."""
    target = written.places[victim(written, sealed=False)]
    source = written.places[victim(written, sealed=True)]
    stale = source.path.read_bytes()[source.start : source.start + BLOCK]
    overwrite(here(copy, target), target.start, stale)
    hit = written.hit_by(target.path, target.start, target.start + BLOCK)
    assert verdict(copy) == "damaged"
    got = read_all(copy, written)
    assert_lost_at_most(got, written, hit)
    assert_goes_on(copy)


def test_a_missing_segment_costs_what_was_in_it(copy: Server, written: Written) -> None:
    place = written.places[victim(written, sealed=True)]
    gone = {i for i, other in written.places.items() if other.path == place.path}
    here(copy, place).unlink()
    got = read_all(copy, written)
    assert set(got) == set(written.ids()) - gone
    assert_goes_on(copy)


@pytest.mark.parametrize("keep", [0, 1000, BLOCK, 300_000, 700_000])
def test_a_segment_cut_short_costs_what_was_cut_off(copy: Server, written: Written, keep: int) -> None:
    place = written.places[victim(written, sealed=True)]
    path = here(copy, place)
    with path.open("r+b") as file:
        file.truncate(keep)
    assert verdict(copy) == "damaged"
    got = read_all(copy, written)
    assert_lost_at_most(got, written, written.hit_by(path, keep, 1 << 31))
    assert_goes_on(copy)


def test_a_segment_of_another_node_stops_the_start_by_name(
    copy: Server, written: Written, tmp_path: Path
) -> None:
    other = Server(tmp_path / "other", ENV).start()
    other.kill()
    foreign = other.segments()[0]
    place = copy.data / "wal" / "p000" / "000000ff.seg"
    data = bytearray(foreign.read_bytes())
    place.write_bytes(data)
    copy.start(wait=False)
    assert copy.ended() == 73
    said = copy.log().splitlines()[-1]
    assert said.startswith("iris: ") and "belongs to another log" in said and place.name in said


def test_any_damage_costs_at_most_what_it_touched(written: Written, tmp_path: Path) -> None:
    number = int(os.environ.get("IRIS_E2E_SEED", random.randrange(1 << 32)))
    print(f"IRIS_E2E_SEED={number}")
    for i in range(int(os.environ.get("IRIS_E2E_ROUNDS", "60"))):
        pick = random.Random(number + i)
        server = copy_of(written.server, tmp_path / f"copy-{i}")
        hit: set[bytes] = set()
        for _ in range(pick.choice((1, 1, 2, 5))):
            path = pick.choice(server.segments())
            size = path.stat().st_size
            start = pick.randrange(size)
            match pick.choice(("flip", "zeros", "noise", "block")):
                case "flip":
                    end = start + 1
                    flip(path, start, pick.randrange(8))
                case "zeros":
                    end = min(size, start + pick.choice((1, 100, BLOCK, 20_000)))
                    overwrite(path, start, bytes(end - start))
                case "noise":
                    end = min(size, start + pick.choice((8, 64, BLOCK)))
                    overwrite(path, start, pick.randbytes(end - start))
                case _:
                    start = start // BLOCK * BLOCK
                    end = start + BLOCK
                    source = pick.choice(server.segments()).read_bytes()
                    at = pick.randrange(len(source) // BLOCK) * BLOCK
                    overwrite(path, start, source[at : at + BLOCK])
            hit |= written.hit_by(path, start, end)
        try:
            verdict(server)
            got = read_all(server, written)
            assert_lost_at_most(got, written, hit)
            assert_goes_on(server)
        except BaseException:
            print(f"round {i} of IRIS_E2E_SEED={number}: {server.log()[-3000:]}")
            raise
        finally:
            server.cleanup()
        shutil.rmtree(server.home)
