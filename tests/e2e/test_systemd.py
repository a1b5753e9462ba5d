"""The units of ``systemd/``: what systemd thinks of them, and what they do under a real systemd as PID 1."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.client import Client, Closed
from support.loadgen import loadgen
from support.machine import ROOT, Machine, Stuck, kill
from support.server import binary, clean_env
from support.tokens import user_token
from support.wait import PATIENCE, until

UNITS = ("iris.service", "iris-core.service", "iris-edge@.service")
needs_analyze = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze not found: apt-get install systemd"
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Return a folder with the units, which start the binary under test."""
    for unit in (*UNITS, "iris.slice"):
        text = (ROOT / "systemd" / unit).read_text()
        (tmp_path / unit).write_text(text.replace("/usr/bin/iris", binary()))
    return tmp_path


@needs_analyze
def test_systemd_ignores_nothing_in_the_units(units: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=yes", "--man=no", *(f"./{unit}" for unit in UNITS)],
        cwd=units, text=True, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "iris" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@needs_analyze
@pytest.mark.parametrize("unit", UNITS)
def test_the_sandbox_leaves_an_exposure_of_1_5_at_most(units: Path, unit: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=15", f"./{unit}"],
        cwd=units, text=True, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert said and float(said[1]) <= 1.5


def test_all_units_have_one_sandbox() -> None:
    def sandbox(unit: str) -> str:
        return (ROOT / "systemd" / unit).read_text().split("# Sandbox", 1)[1].split("[Install]")[0]

    assert len({sandbox(unit) for unit in UNITS}) == 1


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return a booted systemd with Iris installed."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        machine.install()
        yield machine
    finally:
        machine.cleanup()


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """Return it with the service running, as it is delivered."""
    booted.configure()
    booted.systemctl("start", "iris.service")
    yield booted
    booted.systemctl("stop", "iris.service")
    booted.systemctl("reset-failed", "iris.service", check=False)


class Stream:
    """A client that connects, logs in and goes, again and again, and counts what comes of it."""

    def __init__(self, machine: Machine) -> None:
        self.address, self.token = machine.tcp, user_token(machine.key, "stream")
        self.served, self.sent_away, self.refused = 0, 0, 0
        self.ends = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.ends:
            try:
                with Client(self.address) as client:
                    client.login("stream", self.token)
                    self.served += 1
            except ConnectionRefusedError:
                self.refused += 1
            # It was served by the life that ends, and told to come back.
            except (Closed, ConnectionResetError, BrokenPipeError):
                self.sent_away += 1

    def serves(self, more: int = 20) -> None:
        """Wait until it was served some more times."""
        before = self.served
        until(lambda: self.served >= before + more, "clients are served")

    def stop(self) -> None:
        self.ends = True
        self.thread.join()


def inodes(machine: Machine) -> set[str]:
    """Return the listening sockets on the clients' port."""
    local = f":{machine.tcp[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[1].endswith(local) and row[3] == "0A"}


def test_the_service_starts_in_its_sandbox_serves_and_says_so(machine: Machine) -> None:
    assert machine.show("ActiveState") == "active"
    assert machine.show("StatusText").startswith("serving: ")
    assert machine.show("NFileDescriptorStore") == "2"
    assert machine.show("Slice") == "iris.slice"
    with machine.login("a") as a:
        assert a.ask("a", b"through io_uring") == "accepted"
        assert a.take(1)[0].payload == b"through io_uring"
        a.ack(a.inbox[-1].inbox_seq if a.inbox else 1)
    status = Path(f"/proc/{machine.main_pid()}/status").read_text()
    said = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (said["CapEff"], said["CapBnd"], said["NoNewPrivs"], said["Seccomp"]) == ("0" * 16, "0" * 16, "1", "2")
    uid = machine.run("id", "-u", "iris").stdout.strip()
    assert uid != "0" and set(said["Uid"].split()) == {uid}
    # Keys are root's, and the process has its own copy of them.
    assert machine.run("stat", "-c", "%U %a", "/etc/iris/keys").stdout.split() == ["root", "700"]


def test_a_reload_is_told_and_one_with_problems_fails_and_changes_nothing(machine: Machine) -> None:
    pid = machine.main_pid()
    machine.configure(more='[limits]\naccepts = "1000/s"\n')
    machine.systemctl("reload", "iris.service")
    until(lambda: machine.metrics().sum("iris_limits_revision") >= 1, "the reactors have the limits")
    assert (machine.show("ActiveState"), machine.main_pid()) == ("active", pid)
    machine.configure(more="[limits]\nno_such_key = 1\n")
    done = machine.systemctl("reload", "iris.service", check=False)
    assert done.returncode != 0
    assert "no_such_key" in machine.log()
    assert (machine.show("ActiveState"), machine.main_pid()) == ("active", pid)
    # By the signal alone, past the check, the node says it as its status.
    machine.systemctl("kill", "--signal=SIGHUP", "iris.service")
    until(lambda: machine.show("StatusText").startswith("not reloaded"), "the node says that it was not reloaded")
    until(lambda: machine.show("ActiveState") == "active", "the reload is over")
    with machine.login("a") as a:
        assert a.ask("a", b"still here") == "accepted"


def test_a_restart_keeps_the_listeners_and_refuses_nobody(machine: Machine) -> None:
    stream, sockets = Stream(machine), inodes(machine)
    try:
        with machine.login("kept") as client:
            assert client.ask("kept", b"before") == "accepted"
            for _ in range(3):
                stream.serves()
                before = machine.main_pid()
                machine.systemctl("restart", "iris.service")
                assert machine.main_pid() != before
                stream.serves()
    finally:
        stream.stop()
    assert stream.refused == 0, f"{stream.served} served, {stream.sent_away} sent away"
    assert len(sockets) == 2 and inodes(machine) == sockets
    with machine.login("kept") as client:
        assert [delivery.payload for delivery in client.take(1)] == [b"before"]


def test_a_crash_refuses_nobody_and_is_mended(machine: Machine) -> None:
    stream, sockets, restarts = Stream(machine), inodes(machine), int(machine.show("NRestarts"))
    try:
        stream.serves()
        kill(machine.main_pid())
        until(lambda: int(machine.show("NRestarts")) > restarts, "it is started again")
        stream.serves()
    finally:
        stream.stop()
    assert stream.refused == 0, f"{stream.served} served, {stream.sent_away} sent away"
    assert inodes(machine) == sockets


@pytest.mark.parametrize("reactors", [1, 3])
def test_another_number_of_reactors_takes_all_listeners_that_were_kept(machine: Machine, reactors: int) -> None:
    stream, sockets = Stream(machine), inodes(machine)
    try:
        stream.serves()
        machine.configure(reactors=reactors)
        machine.systemctl("restart", "iris.service")
        # Connections are spread over the sockets by chance: 64 would not all miss one of three.
        stream.serves(64)
    finally:
        stream.stop()
    assert stream.refused == 0, f"{stream.served} served, {stream.sent_away} sent away"
    assert sockets <= inodes(machine) and len(inodes(machine)) == max(reactors, 2)
    assert machine.show("NFileDescriptorStore") == str(max(reactors, 2))


def test_another_address_lets_the_kept_listeners_go(machine: Machine) -> None:
    old = machine.tcp
    with Client(old):
        pass
    from support.machine import free_port

    try:
        machine.tcp = ("127.0.0.1", free_port())
        machine.configure()
        machine.systemctl("restart", "iris.service")
        machine.login("a").close()
        with pytest.raises(ConnectionRefusedError):
            Client(old)
        assert machine.show("NFileDescriptorStore") == "2"
    finally:
        machine.tcp = old


def test_the_watchdog_restarts_a_node_whose_reactor_is_stuck(machine: Machine) -> None:
    machine.configure(watchdog_s=8)
    machine.systemctl("restart", "iris.service")
    restarts, pid = int(machine.show("NRestarts")), machine.main_pid()
    stream = Stream(machine)
    try:
        stream.serves()
        stuck = Stuck(pid, "iris-r1")
        until(lambda: machine.show("StatusText") == "stuck: iris-r1", "the status names the thread")
        until(stuck.has_died, "systemd ends it")
        until(lambda: int(machine.show("NRestarts")) == restarts + 1, "systemd starts it again")
        stream.serves()
    finally:
        stream.stop()
    assert '"thread":"iris-r1"' in machine.log() and "a thread does not turn" in machine.log()
    assert machine.main_pid() != pid
    assert stream.refused == 0, f"{stream.served} served, {stream.sent_away} sent away"


def test_the_watchdog_leaves_a_busy_node_alone(machine: Machine, tmp_path: Path) -> None:
    machine.configure(watchdog_s=2)
    machine.systemctl("restart", "iris.service")
    restarts, pid = machine.show("NRestarts"), machine.main_pid()
    key = tmp_path / "key"
    key.write_bytes(machine.key)
    key.chmod(0o600)
    turns = machine.metrics().sum("iris_reactor_turns_total")
    host, port = machine.tcp
    done = subprocess.run(
        [loadgen(), "throughput", "--addr", f"{host}:{port}", "--key", str(key), "--duration", "8s",
         "--connections", "50"],
        env=clean_env({}), text=True, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode in (0, 2, 99), done.stdout + done.stderr
    assert (machine.show("NRestarts"), machine.main_pid()) == (restarts, pid)
    assert machine.metrics().sum("iris_reactor_turns_total") > turns
    assert "does not turn" not in machine.log().split('"ready"')[-1]


def test_an_idle_node_is_alive_for_the_watchdog(machine: Machine) -> None:
    machine.configure(watchdog_s=2)
    machine.systemctl("restart", "iris.service")
    restarts, pid = machine.show("NRestarts"), machine.main_pid()
    start = time.monotonic()
    until(lambda: time.monotonic() - start > 6, "three times the watchdog's time is over", every=0.2)
    assert (machine.show("NRestarts"), machine.main_pid()) == (restarts, pid)


def test_a_stop_drains_says_so_and_lets_the_listeners_go(machine: Machine) -> None:
    with machine.login("a") as a:
        stop = subprocess.Popen([*machine.ns, "systemctl", "stop", "iris.service"])
        with pytest.raises(Closed):
            a.pump(lambda: False)
        assert a.drain is not None
        assert stop.wait(PATIENCE) == 0
    assert (machine.show("ActiveState"), machine.show("Result")) == ("inactive", "success")
    assert machine.show("NFileDescriptorStore") == "0" and inodes(machine) == set()
    with pytest.raises(ConnectionRefusedError):
        Client(machine.tcp)
    assert '"stopped"' in machine.log()


def test_a_socket_unit_may_listen_for_all_reactors(booted: Machine) -> None:
    machine = booted
    machine.configure()
    unit = f"[Socket]\nListenStream=127.0.0.1:{machine.tcp[1]}\nFileDescriptorName=tcp\nService=iris.service\n"
    machine.write("/etc/systemd/system/iris-tcp.socket", unit)
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "iris-tcp.socket")
    try:
        # The first one who connects starts the node, and is served.
        with machine.login("a") as a:
            assert a.ask("a", b"first") == "accepted"
        assert machine.show("ActiveState") == "active"
        assert machine.show("NFileDescriptorStore") == "0"
        stream = Stream(machine)
        try:
            stream.serves()
            machine.systemctl("restart", "iris.service")
            stream.serves()
        finally:
            stream.stop()
        assert stream.refused == 0 and len(inodes(machine)) == 1
    finally:
        machine.systemctl("stop", "iris-tcp.socket", "iris.service")
        machine.path("/etc/systemd/system/iris-tcp.socket").unlink()
        machine.systemctl("daemon-reload")


def test_what_a_restart_does_not_mend_is_not_tried_again(booted: Machine) -> None:
    booted.configure(more="[limits]\nno_such_key = 1\n")
    restarts = booted.show("NRestarts")
    assert booted.systemctl("start", "iris.service", check=False).returncode != 0
    assert booted.show("ExecMainStatus") == "78"
    assert (booted.show("ActiveState"), booted.show("NRestarts")) == ("failed", restarts)
    booted.systemctl("reset-failed", "iris.service")


def test_core_and_edge_are_units_of_one_cluster(booted: Machine, tmp_path: Path) -> None:
    machine = booted
    from support.cluster import Pki
    from support.machine import free_port

    pki, link, log = Pki(tmp_path / "pki"), free_port(), "append:/var/log/iris.log"
    for number in (1, 2):
        cert, key = pki.issue(number)
        machine.write(f"/etc/iris/keys/node-{number}", key.read_bytes(), 0o600)
        machine.write(f"/etc/iris/tls/node-{number}.pem", cert.read_bytes())
    machine.write("/etc/iris/tls/ca.pem", (pki.dir / "ca.pem").read_bytes())
    machine.write("/etc/iris/keys/jwt", machine.key, 0o600)
    cluster = f"""
[cluster]
id = "{pki.cluster}"
listen = "127.0.0.1:{link}"
cores = [{{ node = 1, addr = "127.0.0.1:{link}" }}]
ca = "/etc/iris/tls/ca.pem"
"""
    for number, name, role, unit in ((1, "core", "core", "iris-core"), (2, "edge-a", "edge", "iris-edge@a")):
        admin = machine.admin.rsplit(":", 1)[1] if role == "edge" else free_port()
        socket = "none" if role == "core" else "/run/iris-edge-a/admin.sock"
        machine.write(
            f"/etc/iris/{name}.toml",
            f'[node]\nroles = ["{role}"]\nnode_id = {number}\n[listen]\ntcp = "127.0.0.1:{machine.tcp[1]}"\n'
            f'admin = "127.0.0.1:{admin}"\nadmin_socket = "{socket}"\n[wal]\nsegment_size = "2MiB"\n'
            f'batch_max = "512KiB"\ndisk_reserve = "0B"\n[auth]\n'
            f'keys = [{{ file = "credential:keys_jwt", alg = "HS256" }}]\n{cluster}'
            f'cert = "/etc/iris/tls/node-{number}.pem"\nkey = "credential:keys_node-{number}"\n',
        )
        machine.drop_in(f"StandardOutput={log}\nStandardError={log}\n", f"{unit}.service")
    try:
        # The edge is ready when it has found a core for each shard, however long that takes.
        start = subprocess.Popen([*machine.ns, "systemctl", "start", "iris-edge@a.service"])
        until(lambda: machine.show("StatusText", "iris-edge@a.service").startswith("waiting for a core"), "the edge waits")
        assert machine.show("ActiveState", "iris-edge@a.service") == "activating"
        machine.systemctl("start", "iris-core.service")
        assert start.wait(PATIENCE) == 0
        stream = Stream(machine)
        try:
            with machine.login("a") as a:
                assert a.ask("a", b"by an edge") == "accepted"
            machine.systemctl("restart", "iris-edge@a.service")
            stream.serves()
        finally:
            stream.stop()
        assert stream.refused == 0
        assert machine.show("StatusText", "iris-core.service").endswith("messages waiting")
        assert os.path.exists(machine.path("/run/iris-edge-a/admin.sock"))
    finally:
        machine.systemctl("stop", "iris-edge@a.service", "iris-core.service")
