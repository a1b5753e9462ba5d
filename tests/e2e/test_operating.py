"""docs/OPERATING.md as its readers follow it: what it says to type is typed, on a system that has never seen Iris."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import page
from support.machine import Machine, kill
from support.server import clean_env, dies_with_us
from support.wait import PATIENCE, until

TESTS = Path(__file__).parent
#: Where a node started by hand has its folder: the one disk of the machine that is no overlay.
HOME = "/var/lib/iris"
CONFIG = "/etc/iris/iris.toml"
#: Commands within sentences, and what is typed for them on the node that the walk leaves; `None`: what it is about is
#: not here (another machine, an address), or it is the name of a thing and nothing to type.
MENTIONED: dict[str, str | None] = {
    "curl -X POST --unix-socket admin.sock http://localhost/reload": f"cd {HOME}; curl -fsS -X POST --unix-socket "
    "admin.sock http://localhost/reload",
    "ip address": "ip address",
    "iris COMMAND --help": "for it in serve check token pki status top shard core logout wal capacity support-bundle drain; "
    "do iris $it --help; done",
    "iris capacity --dau N": "iris capacity --dau 1000000",
    "iris check --config F --json": f"iris check --config {CONFIG} --json --load-credential keys:/etc/iris/keys",
    "iris check --config FILE": f"iris check --config {CONFIG} --load-credential keys:/etc/iris/keys",
    "iris check --json": f"iris check --json --config {CONFIG} --load-credential keys:/etc/iris/keys",
    "iris completions SHELL": "for it in bash zsh fish elvish powershell; do iris completions $it; done",
    "iris logout": "iris logout --user alice",
    "iris logout --user NAME": "iris logout --user alice",
    "iris man --out DIR": "iris man --out /tmp/man && test -s /tmp/man/iris-serve.1",
    "iris serve --dev --tls 127.0.0.1:7443": None,  # test_start.py
    "iris shard": "iris shard alice",
    "iris shard USER": "iris shard alice",
    "iris status --admin A --admin B": None,  # the pair below
    "iris status --admin ADDR --admin ADDR": None,
    "iris status --json": "iris status --json",
    "iris wal dump DIR --payloads": f"iris wal dump {HOME} --payloads",
    "iris wal verify|dump|stat|diff": None,  # the block `wal`
    "iris-tune check --connections N": "iris-tune check --connections 1000",
    "iris-tune undo": None,  # the end of the walk
    "kill -9": None,
    "make install": None,  # test_debian.py
    "make deb": None,  # the package comes from it
    "promtool test rules": "cd /usr/share/iris/monitoring && promtool test rules iris-alerts-test.yml",
    "sed s,docs/OPERATING.md,https://YOUR/COPY,": "sed s,docs/OPERATING.md,https://YOUR/COPY, "
    "/usr/share/iris/monitoring/iris-alerts.yml | grep https://YOUR/COPY#",
    "ss -ltnp sport = :PORT": "ss -ltnp sport = :7400 | grep iris",
    "ssh -L 7480:127.0.0.1:7480 NODE": None,
    "sysctl kernel.io_uring_disabled": "sysctl kernel.io_uring_disabled",
    "sysctl net.core.somaxconn": "sysctl net.core.somaxconn",
    "sysctl net.ipv4.tcp_rmem": "sysctl net.ipv4.tcp_rmem",
    "systemctl disable --now iris": "systemctl disable --now iris && systemctl enable --now iris",
    "systemctl status iris": "systemctl status --no-pager iris",
    "ulimit -Hn": "ulimit -Hn",
    "ulimit -l": "ulimit -l",
    "ulimit -l unlimited": None,
}


@pytest.fixture(scope="module")
def clean(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return a booted system with a network of its own and the package in root's folder; nothing is installed."""
    if not shutil.which("prometheus"):
        pytest.skip("prometheus not found: apt-get install prometheus")
    machine = Machine(tmp_path_factory.mktemp("machine"), own_network=True)
    try:
        machine.write(f"/root/{package.name}", package.read_bytes())
        yield machine
    finally:
        machine.cleanup()


def type_in(machine: Machine, text: str, home: str = "/root", code: int = 0, stdin: str = "") -> str:
    """Type this, as root in a folder; return what it said, of which nothing is hidden if it fails."""
    done = machine.run("sh", "-euc", f"cd {home}\n{text}", check=False, input=stdin)
    assert done.returncode == code, f"{text}\n{done.stdout}{done.stderr}\n{machine.log()[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def walk(clean: Machine) -> tuple[Machine, list[str]]:
    """Follow the first section, step by step; return where, and what each step said."""
    said = [type_in(clean, block) for block in page.blocks("first")[:-1]]
    for block in page.blocks("seen"):
        until(lambda block=block: "=> 1" in type_in(clean, block), "Prometheus has seen the node", every=0.5)
    said.append(type_in(clean, page.blocks("first")[-1]))
    return clean, said


@pytest.fixture
def node(walk: tuple[Machine, list[str]]) -> Machine:
    """Return the system of the walk, with its node up."""
    walk[0].systemctl("start", "iris")
    return walk[0]


@pytest.fixture
def stopped(walk: tuple[Machine, list[str]]) -> Machine:
    """Return the system of the walk, with its node down."""
    walk[0].systemctl("stop", "iris")
    return walk[0]


def test_from_a_package_to_a_watched_node(walk: tuple[Machine, list[str]]) -> None:
    _, (install, _, tune, check, start, send, watch, again) = walk
    assert "iris 0." in install
    assert "connections_max" in tune or "90-iris.conf" in tune
    assert "sound" in check and "10000 connections" in check
    assert "Active: active (running)" in start and "serving: 0 connections" in start
    assert "healthy" in start and "all is as it was applied" in start
    assert re.match(r"[\w-]+\.[\w-]+\.[\w-]+\n", send), "a token of three parts"
    assert "SUCCESS" in watch and "accepted" in watch
    assert "healthy" in again


def test_commands_within_sentences_are_known(node: Machine) -> None:
    assert page.mentioned() == set(MENTIONED), "what else the page says to type belongs into the table"
    for command in MENTIONED.values():
        if command:
            type_in(node, command)


def test_every_block_has_a_name_by_which_a_test_runs_it() -> None:
    tests = "".join(path.read_text() for path in TESTS.glob("test_*.py"))
    for name in page.names():
        assert name and any(f'page.{how}("{name}")' in tests for how in ("blocks", "lines")), name


class ByHand:
    """A server that somebody starts in a folder of the machine, without the service manager."""

    def __init__(self, machine: Machine, home: str, command: str) -> None:
        with open(machine.home / "by-hand.log", "ab") as log:
            self.nsenter = subprocess.Popen(
                [*machine.ns, "sh", "-euc", f"cd {home}; exec {command}"],
                env={"PATH": "/usr/bin:/bin"}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=dies_with_us,
            )  # fmt: skip

    def kill(self) -> None:
        """End it as a power cut would."""
        children = Path(f"/proc/{self.nsenter.pid}/task/{self.nsenter.pid}/children").read_text().split()
        for child in children:
            kill(int(child))
        self.nsenter.kill()
        self.nsenter.wait()


def is_ready(machine: Machine, port: int = 7480) -> bool:
    return machine.run("curl", "-fsS", f"http://127.0.0.1:{port}/readyz", check=False).returncode == 0


def test_a_server_is_started_by_hand(stopped: Machine) -> None:
    home, said = f"{HOME}/by-hand", ""
    stopped.run("mkdir", home)
    served: list[ByHand] = []
    try:
        for line in page.lines("start"):
            if line.startswith("iris serve"):
                served.append(ByHand(stopped, home, line))
                until(lambda: is_ready(stopped), "it serves")
            else:
                said = type_in(stopped, line, home)
        assert said.count(".") == 2, "the last line printed a token"
    finally:
        for server in served:
            server.kill()
    stopped.run("rm", "-r", home)


def test_completions_and_manual_pages_go_where_shells_look(walk: tuple[Machine, list[str]]) -> None:
    for block in page.blocks("completions"):
        type_in(walk[0], block)
    assert "iris" in type_in(walk[0], "cat /etc/bash_completion.d/iris")
    type_in(walk[0], "test -s /usr/local/share/man/man1/iris.1")


def test_a_bundle_is_made_of_the_node(node: Machine) -> None:
    for block in page.blocks("bundle"):
        type_in(node, block)
    listed = type_in(node, "tar tzf iris-support-*.tar.gz")
    assert "MANIFEST.txt" in listed and "tune.txt" in listed and "server.log" in listed
    type_in(node, "rm iris-support-*.tar.gz")


def test_logs_are_read_while_no_server_runs(stopped: Machine) -> None:
    stopped.run("cp", "-a", HOME, "/root/COPY")
    for line in page.lines("wal"):
        said = type_in(stopped, f"DIR={HOME} COPY=/root/COPY; {line.replace(' DIR', ' $DIR').replace(' COPY', ' $COPY')}")
        assert said, line
    stopped.run("rm", "-r", "/root/COPY")


def waiting(machine: Machine) -> int:
    """Return how many messages wait in the node's inboxes."""
    said = json.loads(type_in(machine, "iris status --json"))
    return int(said["nodes"][0]["status"]["inboxes"]["messages"])


#: Sends so many messages to somebody who is away.
SENDER = """
import sys
from support.client import Client
from support.tokens import user_token
key = open(sys.argv[1], "rb").read().strip()
with Client(("127.0.0.1", 7400)) as client:
    client.login("alice", user_token(key, "alice"))
    assert all(client.ask("bob", b"hello") == "accepted" for _ in range(int(sys.argv[2])))
"""


def send(machine: Machine, count: int) -> None:
    """Send to somebody who is away, within the machine's network."""
    path = f"{TESTS}:{TESTS.parents[1] / 'clients/python/src'}"
    done = subprocess.run(
        ["nsenter", "-t", str(machine.pid), "-n", "--", sys.executable, "-c", SENDER,
         str(machine.path("/etc/iris/keys/jwt")), str(count)],
        env=clean_env({"PYTHONPATH": path}), text=True, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_newest_copy_is_put_back_with_what_was_in_it(node: Machine) -> None:
    for copied in (5, 10):
        send(node, 5)
        until(lambda copied=copied: waiting(node) == copied, "they wait")
        for block in page.blocks("copy"):
            type_in(node, block)
    until(lambda: waiting(node) == 10, "a restart keeps them")
    send(node, 1)
    for block in page.blocks("restore"):
        type_in(node, block)
    until(lambda: waiting(node) == 10, "what came before the copy is there, and nothing else")


def configuration(number: int, cores: str) -> str:
    """Return the file of a core, from what the page shows of the first one."""
    own = {
        "node_id": str(number),
        "listen": f'"10.0.0.{number}:7410"',
        "cert": f'"node-{number}.pem"',
        "key": f'"node-{number}-key.pem"',
    }
    lines = []
    for line in page.toml("[cluster]").splitlines():
        key = line.split(" = ")[0]
        lines.append(cores if key == "cores" else f"{key} = {own[key]}" if key in own else line)
    lines.insert(lines.index("[node]") + 1, 'data_dir = "data"')
    return "\n".join([*lines, "[listen]", f'admin = "127.0.0.1:{7479 + number}"', ""])


def test_two_cores_become_a_pair_and_one_is_given_up(stopped: Machine) -> None:
    homes = {number: f"{HOME}/core-{number}" for number in (1, 2)}
    for number, home in homes.items():
        stopped.run("mkdir", home)
        stopped.run("ip", "address", "add", f"10.0.0.{number}/32", "dev", "lo")
    for block in page.blocks("pki"):
        type_in(stopped, block)
    type_in(stopped, "iris pki issue --node 2")
    (cores,) = [said for said in page.PAGE.read_text().split("`") if said.startswith("cores = [{") and "node = 2" in said]
    running: dict[int, ByHand] = {}
    asked = " ".join(f"--admin 127.0.0.1:{7479 + number}" for number in homes)

    def names() -> list[str]:
        done = stopped.run("sh", "-c", f"iris status --json {asked}", check=False)
        return [problem["name"] for problem in json.loads(done.stdout)["problems"]]

    try:
        for number, home in homes.items():
            stopped.write(f"{home}/iris.toml", configuration(number, cores))
            type_in(stopped, f"cp pki/ca.pem pki/node-{number}.pem pki/node-{number}-key.pem {home}")
            type_in(stopped, "iris check --config iris.toml", home)
            running[number] = ByHand(stopped, home, "iris serve --config iris.toml")
        until(lambda: names() == [], "both have two copies", every=0.1)
        running.pop(2).kill()
        until(lambda: set(names()) == {"unreachable", "solo"}, "the other one is alone", every=0.1)
        for line in page.lines("retire"):
            # It asks whoever sits at a terminal.
            said = type_in(stopped, f"script -qec '{line}' /dev/null", stdin="2\n")
            assert "node 2 is retired" in said
    finally:
        for server in running.values():
            server.kill()


def test_a_node_is_back_once_the_machine_has_again_what_it_lacked(node: Machine) -> None:
    setting = "/proc/sys/net/core/somaxconn"
    before = type_in(node, f"cat {setting}").strip()
    type_in(node, f"echo 128 > {setting}")
    kill(node.main_pid())
    until(lambda: node.show("ExecMainStatus") == "71", "it says what it lacks")
    type_in(node, f"echo {before} > {setting}")
    until(lambda: is_ready(node), "it serves again")


def test_undo_puts_the_machine_back(stopped: Machine) -> None:
    type_in(stopped, "iris-tune undo")
    type_in(stopped, "test ! -e /etc/sysctl.d/90-iris.conf && test ! -e /etc/iris/iris-tune.toml")
