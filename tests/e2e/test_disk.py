"""A disk that fills up or fails: sends are refused by name, acknowledgements go on, nothing accepted is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support import confine, ids
from support.client import Closed
from support.disks import MIB, Ballast, free, mounted, run
from support.server import Server, binary
from support.wait import PATIENCE, until

DISK_MIB, RESERVE_MIB = 96, 24
ENV = {
    "IRIS_WAL__SEGMENT_SIZE": "2MiB",
    "IRIS_WAL__BATCH_MAX": "256KiB",
    "IRIS_WAL__DISK_RESERVE": f"{RESERVE_MIB}MiB",
}

pytestmark = pytest.mark.skipif(not confine.is_root(), reason="mounting file systems needs root")


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system of our own."""
    with mounted(request.param, tmp_path / "disk", DISK_MIB) as place:
        yield place


@pytest.fixture
def server(disk: Path, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "home", ENV)
    server.data = disk / "data"
    yield server.start()
    server.cleanup()


def waits_for(server: Server, answer: str, user: str = "probe") -> None:
    """Wait until a SEND gets this answer."""
    with server.login(user) as client:
        until(lambda: client.ask("sink", bytes(100)) == answer, f"a SEND is answered {answer}", every=0.05)


def test_low_disk_refuses_sends_takes_acks_and_recovers(disk: Path, server: Server) -> None:
    with server.login("a") as a:
        for i in range(100):
            assert a.ask("b", b"%d" % i) == "accepted"
    ballast = Ballast(disk)
    ballast.leave((RESERVE_MIB - 2) * MIB)
    waits_for(server, "low_disk")
    assert server.metrics().sum("iris_wal_low_disk") == 1
    assert server.metrics().rejected("low_disk") >= 1
    msg_id = ids.now()
    with server.login("a") as a, server.login("b") as b:
        assert a.ask("b", b"later", msg_id=msg_id) == "low_disk"
        got = b.take(100)
        assert [d.payload for d in got] == [b"%d" % i for i in range(100)]
        b.ack(60)
        b.sync()
        until(lambda: server.metrics().sum("iris_acked_total") >= 60, "ACKs are taken")
        ballast.drop()
        until(lambda: a.ask("b", b"later", msg_id=msg_id) == "accepted", "it recovers by itself", every=0.1)
    assert server.stop() == 0
    server.start()
    with server.login("b") as b:
        got = b.take(41)
        assert [d.payload for d in got] == [b"%d" % i for i in range(60, 100)] + [b"later"]


def test_a_full_disk_under_load_stops_nothing_and_loses_nothing(disk: Path, server: Server) -> None:
    """Every byte is taken while messages come: what was accepted is there, what was refused may be sent again."""
    ballast = Ballast(disk)
    accepted: list[bytes] = []
    refused: list[bytes] = []
    with server.login("a") as a:
        for i in range(600):
            if i == 20:
                ballast.leave(0)
            payload = b"%06d" % i + bytes(20_000)
            answer = a.ask("b", payload)
            assert answer in ("accepted", "low_disk"), answer
            (accepted if answer == "accepted" else refused).append(payload)
        assert len(refused) > 100
        # Five go, or their TOMB finds no room and they stay owed.
        with server.login("b") as b:
            got = b.take(5)
            b.ack(5)
            b.sync()
        server.kill()
    ballast.drop()
    server.start()
    waits_for(server, "accepted")
    with server.login("a") as a:
        for payload in refused[:50]:
            assert a.ask("b", payload) == "accepted"
    with server.login("b") as b:
        rest = [d.payload for d in b.drain_inbox()]
    first = len(accepted) + 50 - len(rest)
    assert first in (0, 5), "acknowledged five, or their TOMB was not yet written"
    assert rest == (accepted + refused[:50])[first:]
    assert [d.payload for d in got] == accepted[:5]
    code = run(os.environ["IRIS_BIN"], "wal", "verify", str(server.data)).returncode
    assert code == 0


def test_acknowledging_on_a_full_disk_gives_the_room_back(disk: Path, server: Server) -> None:
    with server.login("a") as a:
        # Fill it with messages, until it refuses by itself.
        count = 0
        seqs = []
        while True:
            seqs = [a.send("b", bytes(50_000)) for _ in range(20)]
            answers = [a.answer(seq) for seq in seqs]
            count += answers.count("accepted")
            assert set(answers) <= {"accepted", "low_disk"}
            if "low_disk" in answers:
                break
            assert count < 2 * DISK_MIB * MIB // 50_000
    assert free(disk) > 0
    # Also after a restart, which finds no room for another segment.
    server.restart()
    with server.login("b", 1024) as b:
        assert b.welcome and b.welcome.waiting == count
        assert len(b.drain_until_empty(count)) == count
    waits_for(server, "accepted")
    until(lambda: free(disk) > RESERVE_MIB * MIB, "segments are given back", every=0.05)


@pytest.mark.parametrize("left", [0, 4 * MIB])
def test_a_start_on_a_full_disk_serves(disk: Path, server: Server, left: int) -> None:
    with server.login("a") as a:
        for i in range(50):
            assert a.ask("b", b"%d" % i) == "accepted"
    server.kill()
    Ballast(disk).leave(left)
    server.start()
    with server.login("a") as a, server.login("b") as b:
        assert a.ask("b", b"x" * 60_000) == "low_disk"
        assert [d.payload for d in b.take(50)] == [b"%d" % i for i in range(50)]
        b.ack(50)
        until(lambda: server.metrics().sum("iris_acked_total") == 50, "ACKs are taken")


def test_an_error_that_finds_no_room_on_stderr_is_an_exit_code_all_the_same(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        args = [binary(), "serve", "--config", str(tmp_path / "missing")]
        done = subprocess.run(args, stdout=full, stderr=full, timeout=PATIENCE)
    assert done.returncode == 78


def test_a_first_start_on_a_full_disk_says_so_in_one_line(disk: Path) -> None:
    Ballast(disk).leave(100_000)
    server = Server(disk / "home", ENV)
    server.start(wait=False)
    try:
        assert server.ended() not in (0, 101, 134, -6)
        said = server.log().splitlines()[-1]
        assert said.startswith("iris: ") and "; " in said, said
    finally:
        server.cleanup()


def test_a_failed_write_stops_the_node_by_name_and_acknowledges_nothing(tmp_path: Path) -> None:
    """A loop device whose backing file lies on a full file system: writes to its holes fail (I6)."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir(), inner.mkdir()
    if run("mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(outer)).returncode != 0:
        pytest.skip("mounting is not possible here")
    try:
        image = outer / "image"
        with image.open("wb") as file:
            file.truncate(80 * MIB)
        if run("mkfs.ext4", "-q", "-O", "^has_journal", str(image)).returncode != 0:
            pytest.skip("no mkfs.ext4")
        if run("mount", "-o", "loop", str(image), str(inner)).returncode != 0:
            pytest.skip("no loop device")
        try:
            server = Server(tmp_path / "home", ENV)
            server.data = inner / "data"
            fails_by_name(outer, image, server)
        finally:
            assert run("umount", "-l", str(inner)).returncode == 0
    finally:
        assert run("umount", "-l", str(outer)).returncode == 0


def fails_by_name(outer: Path, image: Path, server: Server) -> None:
    server.start()
    try:
        with server.login("a") as a:
            assert a.ask("b", b"fine") == "accepted"
            done = run("fallocate", "--punch-hole", "--offset", "0", "--length", str(80 * MIB), str(image))
            assert done.returncode == 0, done.stderr
            with (outer / "ballast").open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            # The first writes may still find room next to what was written in between.
            with pytest.raises((Closed, ConnectionError)):
                for _ in range(2000):
                    assert a.ask("b", bytes(60_000)) == "accepted", "a failed write is no refusal"
            assert not a.answers, "the last one was not acknowledged"
        assert server.ended() == 74
        said = server.log().splitlines()[-1]
        assert said.startswith("iris: ") and "the node stops" in said, said
    finally:
        server.cleanup()
