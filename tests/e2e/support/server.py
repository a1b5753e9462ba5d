"""Real servers: started on free ports in a directory of their own, ended by pid, their log shown when a test fails."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Callable

from . import tokens
from .client import Client
from .metrics import Metrics
from .wait import PATIENCE, until

#: Small segments, so that tests cross their borders and fill little disk.
SMALL_LOG = {"IRIS_WAL__SEGMENT_SIZE": "2MiB", "IRIS_WAL__BATCH_MAX": "512KiB"}

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def binary() -> str:
    """Return the path of the server under test."""
    path = os.environ.get("IRIS_BIN", "")
    assert path and os.access(path, os.X_OK), "IRIS_BIN does not name a server; run `make test-e2e`"
    return path


def clean_env(extra: dict[str, str]) -> dict[str, str]:
    """Return the environment without configuration of ours, plus ``extra``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IRIS_")}
    return {**kept, **extra}


def dies_with_us() -> None:
    """Have the kernel end this child if the tests are killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def iris(*args: str, cwd: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of ``iris`` to its end."""
    env = clean_env(options.pop("env", {}))
    done = subprocess.run(
        [binary(), *args], cwd=cwd, env=env, text=True, capture_output=True, timeout=PATIENCE, **options
    )
    return done


class Server:
    """One data directory and the server on it, which may be killed and started again."""

    def __init__(self, home: Path, env: dict[str, str] | None = None) -> None:
        self.home = home
        self.home.mkdir(parents=True, exist_ok=True)
        self.data = home / "data"
        self.env = {**SMALL_LOG, **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.tcp: tuple[str, int] = ("", 0)
        self.tls: tuple[str, int] = ("", 0)
        self.admin = ""
        #: What the admin server asks for, if anything.
        self.admin_token = ""
        self.starts = 0
        #: What is run.
        self.binary = binary()
        #: What runs it, if anything, and the descriptors that it passes on.
        self.launcher: list[str] = []
        self.pass_fds: list[int] = []
        #: More arguments of the command.
        self.args: list[str] = []
        #: Run in the child before it becomes the server: limits, filters.
        self.before: Callable[[], None] | None = None

    # ---- life

    def start(self, *, wait: bool = True, env: dict[str, str] | None = None) -> Server:
        """Start, and wait until clients are served."""
        assert self.process is None, "it runs already"
        self.starts += 1
        ports = self.home / f"ports-{self.starts}.json"
        args = ["serve", "--dev", "--data-dir", str(self.data), "--ports-file", str(ports)]
        args += ["--tcp", "127.0.0.1:0", "--admin", "127.0.0.1:0", *self.args]

        def prepare() -> None:
            dies_with_us()
            if self.before:
                self.before()

        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.launcher, self.binary, *args],
                pass_fds=self.pass_fds,
                env=clean_env({**self.env, **(env or {})}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=prepare,
            )
        if wait:
            self.wait_ready(ports)
        return self

    def wait_ready(self, ports: Path) -> None:
        """Wait for the ports file and read it."""
        process = self.process
        assert process

        def is_ready() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"ended with {process.returncode} before ready: {self.log()}")
            return ports.exists()

        until(is_ready, "the server is ready", every=0.003)
        said = json.loads(ports.read_text())
        self.admin = said["admin"]
        if said["tcp"]:
            host, port = said["tcp"].rsplit(":", 1)
            self.tcp = (host, int(port))
        if said.get("tls"):
            host, port = said["tls"].rsplit(":", 1)
            self.tls = (host, int(port))

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self.process
        return self.process.pid

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        self.stop(signal.SIGKILL)

    def pause(self) -> None:
        """Hold all of its threads (SIGSTOP) until it gets SIGCONT; one that still waits for a CPU could answer otherwise."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.process.pid}/task")

        def state(task: Path) -> str:
            return (task / "stat").read_text().rsplit(")", 1)[1].split()[0]

        until(lambda: {state(task) for task in tasks.iterdir()} == {"T"}, "it stands still")

    def stop(self, number: int = signal.SIGTERM, timeout: float = PATIENCE) -> int:
        """Send a signal and wait; return the exit code."""
        assert self.process
        self.process.send_signal(number)
        return self.ended(timeout)

    def ended(self, timeout: float = PATIENCE) -> int:
        """Wait for its end; return the exit code."""
        assert self.process
        code = self.process.wait(timeout)
        self.process = None
        return code

    def cleanup(self) -> None:
        """Leave no process behind."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> Server:
        """Kill and start again."""
        self.kill()
        return self.start()

    # ---- looking

    def log(self) -> str:
        """Return what it said on stderr, in all its lives."""
        return (self.home / "log").read_text(errors="replace")

    def metrics(self) -> Metrics:
        """Read /metrics."""
        return Metrics.read(self.admin, self.admin_token)

    def rss(self) -> int:
        """Return its resident bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def sockets(self) -> list[tuple[int, str]]:
        """Return (remote port, state) of the TCP sockets on the clients' port, without LISTEN and TIME_WAIT."""
        local = f"{self.tcp[1]:04X}"
        found = []
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{local}") and fields[3] not in ("0A", "06"):
                found.append((int(fields[2].rsplit(":", 1)[1], 16), fields[3]))
        return found

    def segments(self) -> list[Path]:
        """Return the segment files of the first partition, by number."""
        return sorted((self.data / "wal" / "p000").glob("*.seg"))

    # ---- clients

    @property
    def key(self) -> bytes:
        """The secret that signs tokens."""
        return (self.data / "dev.key").read_bytes().strip()

    def token(self, user: str, **options: Any) -> str:
        """Return a sound token."""
        return tokens.user_token(self.key, user, **options)

    def connect(self, **options: Any) -> Client:
        """Return a connection that said nothing yet."""
        return Client(self.tcp, **options)

    def login(self, user: str, window: int = 256, **options: Any) -> Client:
        """Return a live connection."""
        client = self.connect(**options)
        try:
            return client.login(user, self.token(user), window)
        except BaseException:
            client.close()
            raise

