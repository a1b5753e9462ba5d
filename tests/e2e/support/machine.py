"""A real systemd as PID 1 of namespaces of its own, with the real units and binaries installed (``machine.sh``)."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from .client import Client
from .metrics import Metrics
from .server import binary, clean_env, dies_with_us
from .tokens import user_token
from .wait import PATIENCE, until

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).with_name("machine.sh")
SYSTEMD = Path("/lib/systemd/systemd")

_libc = ctypes.CDLL(None, use_errno=True)
_PTRACE_SEIZE, _PTRACE_INTERRUPT, _WALL = 0x4206, 0x4207, 0x4000_0000

#: What tests need of a configuration: small files, two reactors.
CONFIG = """\
[auth]
keys = [{{ file = "credential:keys_jwt", alg = "HS256" }}]
[listen]
tcp = "127.0.0.1:{tcp}"
admin = "127.0.0.1:{admin}"
[reactor]
count = {reactors}
[wal]
segment_size = "2MiB"
batch_max = "512KiB"
disk_reserve = "0B"
"""


@cache
def lacks() -> str | None:
    """Return why no machine can be booted here, if so."""
    if os.geteuid() != 0:
        return "a systemd in namespaces needs root"
    if not SYSTEMD.exists():
        return "systemd is not installed: apt-get install systemd"
    if not all(map(shutil.which, ("unshare", "nsenter", "pivot_root"))):
        return "unshare, nsenter and pivot_root are needed: apt-get install util-linux"
    if not all(map(shutil.which, ("ip", "ss"))):
        return "ip and ss are needed: apt-get install iproute2"
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        return "this kernel has no overlay file system"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork", "true"], capture_output=True
    )
    return None if tried.returncode == 0 else f"namespaces are not permitted: {tried.stderr.decode().strip()}"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def comm(pid: str) -> str:
    """Return the name of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Machine:
    """One booted systemd. Its network is that of this machine, so clients of tests reach what listens there, or its own."""

    def __init__(self, home: Path, own_network: bool = False) -> None:
        reason = lacks()
        if reason:
            pytest.skip(reason)
        self.home = home
        for name in ("layer", "disk"):
            (home / name).mkdir(parents=True)
        self.cgroup = f"iris-test-{os.getpid()}-{free_port()}"
        self.tcp = ("127.0.0.1", free_port())
        self.admin = f"127.0.0.1:{free_port()}"
        self.key = b"a secret of tests, thirty-two bytes or more"
        with open(home / "boot.log", "wb") as log:
            self.unshare = subprocess.Popen(
                ["sh", str(SCRIPT), "boot", str(home), self.cgroup, *(["--net"] if own_network else [])],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=dies_with_us,
            )  # fmt: skip
        self.pid = until(self._init, "PID 1 has been started")
        self.ns = ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-i", "-C", *(["-n"] if own_network else []), "--"]
        until(self._is_up, "systemd has booted")

    def _init(self) -> int | None:
        assert self.unshare.poll() is None, (self.home / "boot.log").read_text()
        children = Path(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children").read_text().split()
        # Before, there are commands that make its namespaces.
        is_init = [child for child in children if comm(child) == "systemd"]
        return int(is_init[0]) if is_init else None

    def _is_up(self) -> bool:
        assert self.unshare.poll() is None, (self.home / "boot.log").read_text()
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def cleanup(self) -> None:
        """End all that runs in it and forget it."""
        self.unshare.kill()
        self.unshare.wait()
        # The kernel ends the other processes of the namespace with its PID 1.
        until(lambda: not Path(f"/proc/{self.pid}").exists(), "PID 1 has ended")
        clean = ["sh", str(SCRIPT), "clean", str(self.home), self.cgroup]
        until(lambda: subprocess.run(clean, capture_output=True).returncode == 0, "its cgroups are empty", timeout=10)

    # ---- what is on it

    def path(self, name: str) -> Path:
        """Return where a file of it is for us."""
        return Path(f"/proc/{self.pid}/root{name}")

    def write(self, name: str, text: str | bytes, mode: int = 0o644) -> None:
        """Write a file of it, with its folders."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)

    def install(self) -> None:
        """Run ``make install`` into it, and what a package does afterwards."""
        make_install(self.path("/"))
        self.run("systemd-sysusers", "iris.conf")
        self.run("systemd-tmpfiles", "--create", "iris.conf")
        self.configure()

    def configure(self, reactors: int = 2, more: str = "", watchdog_s: float = 30) -> None:
        """Write what an operator writes, and have the service's log in a file."""
        self.write("/etc/iris/keys/jwt", self.key, 0o600)
        admin = self.admin.rsplit(":", 1)[1]
        config = CONFIG.format(tcp=self.tcp[1], admin=admin, reactors=reactors)
        self.write("/etc/iris/iris.toml", config + more)
        log = "append:/var/log/iris.log"
        self.drop_in(f"StandardOutput={log}\nStandardError={log}\nWatchdogSec={watchdog_s}\n")

    def drop_in(self, text: str, unit: str = "iris.service") -> None:
        """Override settings of a service."""
        self.write(f"/etc/systemd/system/{unit}.d/50-test.conf", f"[Service]\n{text}")
        self.systemctl("daemon-reload")

    def log(self) -> str:
        """Return what the service said, in all its lives."""
        path = self.path("/var/log/iris.log")
        return path.read_text(errors="replace") if path.exists() else ""

    # ---- what it does

    def run(self, *args: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on it."""
        done = subprocess.run(
            [*self.ns, *args], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}, text=True,
            capture_output=True, timeout=PATIENCE, **options,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{args}: {done.stdout}{done.stderr}\n{self.log()[-4000:]}"
        return done

    def systemctl(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run systemctl on it."""
        return self.run("systemctl", *args, check=check)

    def show(self, name: str, unit: str = "iris.service") -> str:
        """Return a property of a unit."""
        return self.systemctl("show", unit, "--value", "-p", name).stdout.strip()

    def main_pid(self, unit: str = "iris.service") -> int:
        """Return the service's process, as this machine numbers it."""
        inside = self.show("MainPID", unit)
        assert inside != "0", self.log()[-4000:]
        mine = os.readlink(f"/proc/{self.pid}/ns/pid")
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                if os.readlink(status.with_name("ns") / "pid") != mine:
                    continue
                numbers = next(line for line in status.read_text().splitlines() if line.startswith("NSpid:"))
            except (FileNotFoundError, PermissionError, ProcessLookupError, StopIteration):
                continue
            if numbers.split()[-1] == inside:
                return int(status.parent.name)
        raise AssertionError(f"no process {inside} in {mine}")

    # ---- clients

    def metrics(self) -> Metrics:
        """Read /metrics."""
        return Metrics.read(self.admin)

    def login(self, user: str) -> Client:
        """Return a live connection."""
        client = Client(self.tcp)
        try:
            return client.login(user, user_token(self.key, user))
        except BaseException:
            client.close()
            raise


def debian_package(out: Path) -> Path:
    """Return the package of the binaries under test, made in a folder."""
    if not cargo_deb():
        pytest.skip("cargo-deb not found: `make deb` installs it, or cargo install cargo-deb")
    make("deb", DEB_OUT=str(out), DEB_FLAGS="--fast")
    (made,) = out.glob("*.deb")
    return made


def cargo_deb() -> str | None:
    """Return where cargo-deb is, if anywhere: in the PATH, or where ``make deb`` puts it."""
    return shutil.which("cargo-deb", path=f"{ROOT / 'target/tools/bin'}:{os.environ.get('PATH', '')}")


def make_install(root: Path, **variables: str) -> None:
    """Install below ``root`` as a package does."""
    make("install", DESTDIR=str(root), PREFIX="/usr", SYSCONFDIR="/etc", **variables)


def make(target: str, **variables: str) -> None:
    """Make something of the binaries under test."""
    loadgen = os.environ.get("IRIS_LOADGEN_BIN", "")
    assert loadgen, "IRIS_LOADGEN_BIN does not name the load generator"
    said = {"IRIS": binary(), "LOADGEN": loadgen, **variables}
    env = {name: value for name, value in clean_env({}).items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "-C", str(ROOT), target, *(f"{name}={value}" for name, value in said.items())],
        env=env, text=True, capture_output=True, timeout=5 * PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


class Stuck:
    """Holds one thread of a process where it is, from outside (``ptrace(2)``), as a loop without an end would.

    The server needs no hook for it, so there is none that could be reached.
    """

    def __init__(self, pid: int, thread: str) -> None:
        # glommio puts its own number behind the name, and a helper thread that it starts later inherits both.
        named = re.compile(rf"{thread}-\d+")
        tasks = Path(f"/proc/{pid}/task").iterdir()
        self.tid = min(int(task.name) for task in tasks if named.fullmatch((task / "comm").read_text().strip()))
        for request in (_PTRACE_SEIZE, _PTRACE_INTERRUPT):
            failed = _libc.ptrace(request, self.tid, None, None)
            assert failed == 0, os.strerror(ctypes.get_errno())
        _, status = os.waitpid(self.tid, _WALL)
        assert os.WIFSTOPPED(status)

    def has_died(self) -> bool:
        """Whether the thread has ended; whoever holds it has to take note, or its process stays a zombie."""
        try:
            pid, status = os.waitpid(self.tid, _WALL | os.WNOHANG)
        except ChildProcessError:
            return True
        return pid != 0 and (os.WIFSIGNALED(status) or os.WIFEXITED(status))


def kill(pid: int) -> None:
    """End a process as a power cut would."""
    os.kill(pid, signal.SIGKILL)
