"""The real server as a child process, in a directory of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Optional

from iris_client import AsyncIrisClient, IrisClient

REPO = Path(__file__).resolve().parents[3]
#: Seconds after which what must come has not come: more than a busy machine needs.
PATIENCE = 120.0


def binary() -> Path:
    """Return the server's binary: IRIS_BIN, or what cargo built, release first."""
    named = os.environ.get("IRIS_BIN")
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
    choices = [Path(named)] if named else [target / kind / "iris" for kind in ("release", "debug")]
    for path in choices:
        if path.is_file():
            return path
    where = " or ".join(map(str, choices))
    raise FileNotFoundError(f"no server at {where}: cargo build --release, or set IRIS_BIN")


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(secret: bytes, user: str, ttl: float = 3600) -> str:
    """Return an HS256 token (RFC 7519) as an identity provider would make it."""
    claims: dict[str, Any] = {"sub": user, "exp": int(time.time() + ttl)}
    parts = ({"alg": "HS256", "typ": "JWT"}, claims)
    text = ".".join(_base64(json.dumps(part).encode()) for part in parts)
    return f"{text}.{_base64(hmac.digest(secret, text.encode(), hashlib.sha256))}"


class Server:
    """`iris serve --dev` on loopback; killed and started again it keeps data and port."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.log = directory / "server.log"
        self._ports = directory / "ports.json"
        self._process: Optional[subprocess.Popen[bytes]] = None
        self.port = 0

    def start(self) -> None:
        """Start it, and return when it is ready."""
        self._await_port()
        self._ports.unlink(missing_ok=True)
        listen = [f"--tcp=127.0.0.1:{self.port}", "--admin=127.0.0.1:0"]
        files = [f"--data-dir={self.data}", f"--ports-file={self._ports}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [binary(), "serve", "--dev", *files, *listen],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data.parent,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._ports.exists() or not self._ports.read_bytes().rstrip().endswith(b"}"):
            try:
                code = self._process.wait(0.01)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
                self.kill()
                code = None
            raise RuntimeError(f"the server did not start ({code}):\n{self.log.read_text()}")
        self.port = int(json.loads(self._ports.read_text())["tcp"].rsplit(":", 1)[1])

    def _await_port(self) -> None:
        """Wait until the port is free: a ring's sockets are closed a little after its process."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    return probe.bind(("127.0.0.1", self.port))
                except OSError:
                    if time.monotonic() > deadline:
                        raise

    def kill(self) -> None:
        """Kill it as a power cut would: SIGKILL, no chance to write anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to stop."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    def token(self, user: str, ttl: float = 3600) -> str:
        """Return a token for a user, signed with the server's development key."""
        return sign((self.data / "dev.key").read_bytes().removesuffix(b"\n"), user, ttl)

    def client(self, user: str, **options: Any) -> IrisClient:
        """Return a client with a token for this user, not logged in."""
        return IrisClient(port=self.port, **self._options(user, options))

    def async_client(self, user: str, **options: Any) -> AsyncIrisClient:
        """Return an asyncio client with a token for this user, not logged in."""
        return AsyncIrisClient(port=self.port, **self._options(user, options))

    def login(self, user: str, **options: Any) -> IrisClient:
        """Return a client that is logged in."""
        client = self.client(user, **options)
        client.login(user)
        return client

    def _options(self, user: str, options: dict[str, Any]) -> dict[str, Any]:
        return {
            "token": self.token(user),
            "backoff": (0.02, 0.2),
            "connect_timeout": PATIENCE,
            **options,
        }
