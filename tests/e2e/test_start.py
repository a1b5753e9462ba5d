"""A start that cannot work says so in one clear line with the next step, exits with its code, and touches nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import confine
from support.server import Server, binary, clean_env
from support.wait import PATIENCE, until

Snapshot = dict[str, tuple[int, int, int, str]]

# sysexits.h, and docs/ of `iris`
UNAVAILABLE, DATA_DIR, IN_USE, PERMISSION, CONFIG, USAGE = 69, 73, 75, 77, 78, 2


def snapshot(place: Path) -> Snapshot:
    """Everything below a directory: mode, size, modification time, content."""
    seen: Snapshot = {}
    for path in sorted(place.rglob("*")):
        if path.name == "LOCK":
            continue  # It is taken to look at the rest, and says by whom.
        try:
            stat = path.lstat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        except FileNotFoundError:
            continue  # A server that runs has just renamed it.
        except PermissionError:
            digest = "may not be read"
        seen[str(path)] = (stat.st_mode, stat.st_size, stat.st_mtime_ns, digest)
    return seen


def refused(
    place: Path,
    *args: str,
    before: Callable[[], None] | None = None,
    env: dict[str, str] | None = None,
    iris: str | None = None,
    lines: int = 1,
) -> tuple[int, str]:
    """Start a server that must refuse; return its exit code and what it said. Nothing below ``place`` may change."""
    was = snapshot(place)
    done = subprocess.run(
        [iris or binary(), "serve", *args],
        cwd=place,
        env=clean_env({"IRIS_LOG__LEVEL": "warn", **(env or {})}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=before,
    )
    assert done.returncode not in (0, 101, 134, -6), done.stderr
    assert done.stdout == "", "no banner of a server that does not serve"
    said = done.stderr.splitlines()
    assert len(said) == lines, done.stderr
    for line in said:
        assert line.startswith("iris: "), line
        assert "; " in line, f"cause; next step: {line}"
        assert "panicked" not in line
    assert snapshot(place) == was, "something on disk changed"
    return done.returncode, done.stderr


def settled(server: Server) -> Server:
    """Wait until a server that runs has prepared its segments and marked its end, so that its directory holds still."""
    seen: list[tuple[Snapshot, float]] = []

    def holds_still() -> bool:
        """As it was when its partitions had turned three times fewer."""
        metrics = server.metrics()
        if metrics.sum("iris_wal_segments", state="ready") < 2:
            return False
        turns = metrics.sum("iris_partition_turns_total")
        now = snapshot(server.home)
        if not seen or seen[0][0] != now:
            seen[:] = [(now, turns)]
        return turns >= seen[0][1] + 3

    until(holds_still, "its directory holds still")
    return server


FREE_PORTS = ("--tcp", "127.0.0.1:0", "--admin", "127.0.0.1:0")


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield "127.0.0.1:%d" % holder.getsockname()[1]


@pytest.mark.parametrize("which", ["tcp", "admin"])
def test_a_port_in_use_is_named_with_its_key(tmp_path: Path, taken: str, which: str) -> None:
    ports = {"tcp": "127.0.0.1:0", "admin": "127.0.0.1:0", which: taken}
    args = ("--tcp", ports["tcp"], "--admin", ports["admin"])
    code, said = refused(tmp_path, "--dev", "--data-dir", "data", *args, lines=2)
    assert code == IN_USE
    assert f"{taken} is in use; waiting" in said
    assert taken in said and f"listen.{which}" in said and "ss -ltnp" in said


def test_a_port_of_another_server_is_not_shared_with_it(tmp_path: Path, server: Server) -> None:
    tcp = "127.0.0.1:%d" % server.tcp[1]
    code, said = refused(
        settled(server).home,
        "--dev", "--data-dir", str(tmp_path / "other"), "--tcp", tcp, "--admin", server.admin,
        lines=3,
    )  # fmt: skip
    assert code == IN_USE and tcp in said and server.admin in said
    assert not (tmp_path / "other").exists()
    server.login("anybody").close()


def test_a_second_server_on_the_same_directory_is_refused_and_the_first_goes_on(
    server: Server,
) -> None:
    with server.login("a") as a:
        code, said = refused(
            settled(server).home, "--dev", "--data-dir", str(server.data), *FREE_PORTS
        )
        assert code == IN_USE
        assert str(server.data) in said and str(server.pid) in said
        assert a.ask("a", b"still there") == "accepted"


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("precious")
    code, said = refused(tmp_path, "--dev", "--data-dir", "data", *FREE_PORTS)
    assert code == DATA_DIR and "data" in said and "--data-dir" in said


def test_a_directory_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    code, _ = refused(tmp_path, "--dev", "--data-dir", "file/data", *FREE_PORTS)
    assert code == DATA_DIR


@pytest.fixture(scope="module")
def public() -> Iterator[tuple[Path, str]]:
    with confine.public_place(binary()) as place:
        yield place


def owned(home: Path, name: str) -> Path:
    """Make a directory of the user without rights."""
    place = home / name
    place.mkdir()
    if confine.is_root():
        os.chown(place, confine.NOBODY, confine.NOBODY)
    return place


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o300])
def test_a_directory_without_the_rights_is_refused(public: tuple[Path, str], mode: int) -> None:
    home, iris = public
    place = owned(home, f"mode-{mode:o}")
    data = owned(place, "data")
    data.chmod(mode)
    try:
        code, said = refused(
            place, "--dev", "--data-dir", str(data), *FREE_PORTS,
            before=confine.without_rights, iris=iris,
        )  # fmt: skip
        assert code == PERMISSION and str(data) in said
    finally:
        data.chmod(0o700)


def test_a_missing_directory_in_a_parent_without_the_rights_is_refused(
    public: tuple[Path, str],
) -> None:
    home, iris = public
    place = owned(home, "parent")
    place.chmod(0o555)
    code, said = refused(
        place, "--dev", "--data-dir", str(place / "a/b"), *FREE_PORTS,
        before=confine.without_rights, iris=iris,
    )  # fmt: skip
    assert code == PERMISSION and str(place) in said
    place.chmod(0o755)


@pytest.mark.parametrize("which", ["the newest", "the first"])
def test_a_segment_that_may_not_be_read_stops_the_start(
    public: tuple[Path, str], make_server: Callable[..., Server], which: str
) -> None:
    home, iris = public
    server = make_server(home=owned(home, f"segment {which}"))
    server.before = confine.without_rights
    server.start()
    with server.login("a") as a:
        for i in range(64):
            assert a.ask("a", bytes(60_000)) == "accepted"
    server.kill()
    segment = server.segments()[0 if which == "the first" else -1]
    segment.chmod(0o000)
    code, said = refused(
        server.data / "wal", "--dev", "--data-dir", str(server.data), *FREE_PORTS,
        before=confine.without_rights, iris=iris,
    )  # fmt: skip
    assert code == DATA_DIR and segment.name in said
    segment.chmod(0o640)
    server.start()
    with server.login("a", window=4) as a:
        assert a.welcome and a.welcome.waiting == 64


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_without_io_uring_the_seccomp_filter_is_blamed(tmp_path: Path, error: int) -> None:
    code, said = refused(
        tmp_path, "--dev", "--data-dir", "data", *FREE_PORTS, before=confine.without_io_uring(error)
    )
    assert code == UNAVAILABLE
    assert "seccomp" in said and "io_uring_setup" in said


def test_too_few_descriptors_say_how_many_are_needed(tmp_path: Path) -> None:
    code, said = refused(
        tmp_path, "--dev", "--data-dir", "data", *FREE_PORTS,
        before=confine.limit(resource.RLIMIT_NOFILE, 64),
    )  # fmt: skip
    assert code == UNAVAILABLE
    assert " 64 " in said and "LimitNOFILE" in said


def test_the_number_of_descriptors_it_names_is_enough(
    tmp_path: Path, make_server: Callable[..., Server]
) -> None:
    _, said = refused(
        tmp_path, "--dev", "--data-dir", "data", *FREE_PORTS,
        before=confine.limit(resource.RLIMIT_NOFILE, 64),
    )  # fmt: skip
    needed = int(said.split("raise it to ")[1].split()[0])
    server = make_server({"IRIS_REACTOR__CONNECTIONS_MAX": "1000"})
    server.before = confine.limit(resource.RLIMIT_NOFILE, needed)
    server.start()
    with server.login("a") as a:
        assert a.ask("a", b"x") == "accepted"


@pytest.mark.parametrize("who", ["root", "nobody"])
def test_too_little_locked_memory_says_how_much_is_needed(public: tuple[Path, str], who: str) -> None:
    home, iris = public
    place = owned(home, f"memlock-{who}")

    def before() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65_536, 65_536))
        if who == "nobody":
            confine.without_rights()

    code, said = refused(
        place, "--dev", "--data-dir", str(place / "data"), *FREE_PORTS, before=before, iris=iris
    )
    assert code == UNAVAILABLE
    assert "65536" in said and "ulimit -l" in said


# ---- configuration


def test_without_a_key_nobody_serves_outside_dev(tmp_path: Path) -> None:
    (tmp_path / "iris.toml").write_text('[node]\ndata_dir = "data"\n')
    code, said = refused(tmp_path, "--config", "iris.toml")
    assert code == CONFIG and "auth.keys" in said and "--dev" in said


def test_every_unknown_key_is_named_with_its_line_and_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "iris.toml").write_text(
        '[node]\ndatadir = "data"\n[wal]\nsegment_sice = "1MiB"\n[lisen]\ntcp = "127.0.0.1:1"\n'
    )
    code, said = refused(tmp_path, "--dev", "--config", "iris.toml", lines=3)
    assert code == CONFIG
    assert "iris.toml:2" in said and "data_dir" in said
    assert "iris.toml:4" in said and "segment_size" in said
    assert "lisen" in said


def test_unknown_keys_in_the_environment_are_errors_too(tmp_path: Path) -> None:
    code, said = refused(tmp_path, "--dev", env={"IRIS_REACTOR__COUNTT": "2"})
    assert code == CONFIG and "IRIS_REACTOR__COUNTT" in said


def test_serve_without_a_configuration_says_what_to_type(tmp_path: Path) -> None:
    code, said = refused(tmp_path)
    assert code == USAGE and "--dev" in said and "--config" in said


# ---- directories of others


def test_a_directory_founded_with_other_shards_or_as_another_node_is_refused(server: Server) -> None:
    with server.login("a") as a:
        assert a.ask("a", b"kept") == "accepted"
    server.kill()
    for env in ({"IRIS_CORE__NUM_SHARDS": "128"}, {"IRIS_NODE__NODE_ID": "2"}):
        code, said = refused(server.home, "--dev", "--data-dir", str(server.data), *FREE_PORTS, env=env)
        assert code == CONFIG, said
        assert str(server.data) in said
    server.start()
    with server.login("a") as a:
        assert a.take(1)[0].payload == b"kept"


def flipped(data: bytes, *places: int) -> bytes:
    """Return the bytes with a bit flipped at each place."""
    rotten = bytearray(data)
    for place in places:
        rotten[place] ^= 1
    return bytes(rotten)


@pytest.mark.parametrize("damage", ["empty", "garbage", "a flipped bit in each copy"])
def test_a_damaged_identity_is_refused_and_not_founded_anew(server: Server, damage: str) -> None:
    server.kill()
    node = server.data / "node"
    whole = node.read_bytes()
    copies = flipped(whole, 100, len(whole) // 2 + 50)
    node.write_bytes({"empty": b"", "garbage": os.urandom(100)}.get(damage, copies))
    code, said = refused(server.home, "--dev", "--data-dir", str(server.data), *FREE_PORTS)
    assert code == DATA_DIR and str(node) in said


def test_rot_in_one_copy_of_the_identity_is_made_up_for(server: Server) -> None:
    for place in (50, 4096 + 50):
        server.kill()
        node = server.data / "node"
        node.write_bytes(flipped(node.read_bytes(), place))
        server.start()
        with server.login("a") as a:
            assert a.ask("a", b"goes on") == "accepted"


def test_a_log_without_its_identity_is_refused(server: Server) -> None:
    server.kill()
    (server.data / "node").unlink()
    code, said = refused(server.home, "--dev", "--data-dir", str(server.data), *FREE_PORTS)
    assert code == DATA_DIR and str(server.data) in said


def test_a_foreign_directory_is_left_as_it_is(tmp_path: Path) -> None:
    """Somebody's home directory, named by mistake."""
    data = tmp_path / "data"
    (data / "wal").mkdir(parents=True)
    (data / "wal" / "notes.txt").write_text("precious")
    (data / "letter.txt").write_text("precious")
    done = subprocess.run(
        [binary(), "check", "--defaults"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0
    server = Server(tmp_path)
    server.start()
    server.stop()
    assert (data / "letter.txt").read_text() == "precious"
    assert (data / "wal" / "notes.txt").read_text() == "precious"


def test_the_ports_file_tells_where_it_listens_and_a_bad_place_for_it_is_an_error(
    tmp_path: Path, server: Server
) -> None:
    said = json.loads((server.home / "ports-1.json").read_text())
    assert set(said) == {"tcp", "admin"}
    with socket.create_connection(server.tcp, timeout=PATIENCE):
        pass
