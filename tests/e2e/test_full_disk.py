"""Restarts on a full disk: the reserve is there for acknowledgements, however often the server starts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import confine
from support.disks import MIB, Ballast, mounted
from support.server import Server
from support.wait import until

ENV = {
    "IRIS_WAL__SEGMENT_SIZE": "2MiB",
    "IRIS_WAL__BATCH_MAX": "256KiB",
    "IRIS_WAL__DISK_RESERVE": "16MiB",
}
SENDERS, EACH = 80, 400

pytestmark = pytest.mark.skipif(not confine.is_root(), reason="mounting file systems needs root")


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system of our own."""
    with mounted(request.param, tmp_path / "disk", 64) as place:
        yield place


@pytest.fixture
def server(disk: Path, tmp_path: Path) -> Iterator[Server]:
    """A server whose data, and nothing else, lies on the small disk."""
    server = Server(tmp_path / "home", ENV)
    server.data = disk / "data"
    yield server.start()
    server.cleanup()


def fill_inbox(server: Server) -> int:
    """Many senders, so that a checkpoint of what is known of them takes room worth speaking of."""
    for number in range(SENDERS):
        with server.login(f"sender-{number}") as sender:
            for _ in range(EACH // 200):
                seqs = [sender.send("reader", bytes(64)) for _ in range(200)]
                assert all(sender.answer(seq) == "accepted" for seq in seqs)
    return SENDERS * EACH


@pytest.mark.parametrize("left", [0, MIB])
def test_acks_free_space_after_any_number_of_restarts_on_a_full_disk(
    disk: Path, server: Server, left: int
) -> None:
    count = fill_inbox(server)
    ballast = Ballast(disk)
    ballast.leave(left)
    for _ in range(20):
        # An orderly end writes out whatever the start had begun.
        assert server.stop() == 0
        server.start()
        with server.login("reader", 1) as reader:
            assert reader.welcome and reader.welcome.waiting == count
            reader.take(1)
    with server.login("reader", 1024) as reader:
        assert len(reader.drain_until_empty(count)) == count
    until(lambda: server.metrics().sum("iris_inbox_messages") == 0, "every ACK is taken")
    until(lambda: server.metrics().sum("iris_wal_reclaimed_segments_total") >= 3, "segments are reclaimed")
    ballast.drop()
    with server.login("writer") as writer:
        until(lambda: writer.ask("reader", b"again") == "accepted", "SENDs are taken again", every=0.05)


def test_a_disk_too_small_for_a_regular_checkpoint_frees_space_all_the_same(
    disk: Path, server: Server
) -> None:
    """Fewer segments than lie between two checkpoints: one is written for the space's sake."""
    with server.login("writer") as writer:
        for _ in range(150):
            assert writer.ask("reader", bytes(50_000)) == "accepted"
    Ballast(disk).leave(0)
    with server.login("writer") as writer:
        until(lambda: writer.ask("nobody", bytes(50_000)) == "low_disk", "the disk is full", every=0.01)
    with server.login("reader") as reader:
        assert len(reader.drain_until_empty(150)) == 150
    until(lambda: server.metrics().sum("iris_wal_reclaimed_segments_total") >= 2, "segments are reclaimed")


def test_acks_share_blocks_while_the_disk_is_low(disk: Path, server: Server) -> None:
    """Each write takes a block of the reserve at least, so acknowledgements one by one must gather."""
    with server.login("writer") as writer:
        for _ in range(5):
            seqs = [writer.send("reader", bytes(64)) for _ in range(200)]
            assert all(writer.answer(seq) == "accepted" for seq in seqs)
        Ballast(disk).leave(MIB)
        until(lambda: writer.ask("nobody", bytes(64)) == "low_disk", "the disk is full")
    with server.login("reader", 1024) as reader:
        reader.take(1000)
        before, began = server.metrics().sum("iris_wal_batches_total"), time.monotonic()
        for count in range(1, 1001):
            reader.ack(count)
            reader.sync()
        until(lambda: server.metrics().sum("iris_acked_total") == 1000, "every ACK is taken")
        elapsed = time.monotonic() - began
    # One in a quarter of a second, and what ends them: the rest, and a MARK.
    assert server.metrics().sum("iris_wal_batches_total") - before <= 4 + 5 * elapsed
