"""TLS by the libraries that others write clients with, besides OpenSSL and Python's ``ssl`` in test_tls.py."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from iris_client import _protocol as p
from support import ids
from support.server import Server, clean_env
from support.wait import PATIENCE, until

JAVA = Path(__file__).parent / "support/TlsClient.java"


@pytest.fixture
def secured(make_server: Callable[..., Server]) -> Server:
    """Return a server with the certificate that --dev makes."""
    return make_server({"IRIS_LISTEN__TLS": "127.0.0.1:0"}).start()


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_curl_shakes_hands_and_hears_that_http_is_not_spoken(secured: Server, version: str) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl not found: apt-get install curl")
    url = f"https://localhost:{secured.tls[1]}/"
    done = subprocess.run(
        ["curl", "--no-alpn", "-sv", "--cacert", secured.data / "dev-ca.pem", "--resolve",
         f"localhost:{secured.tls[1]}:127.0.0.1", f"--tlsv{version}", "--tls-max", version, "--http0.9", url],
        env=clean_env({}), capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    said = done.stderr.decode(errors="replace")
    assert f"SSL connection using TLSv{version}" in said and "SSL certificate verify ok" in said, said

    def closed() -> int:
        metrics = secured.metrics()
        return metrics.closed("garbage") + metrics.closed("oversize")

    until(lambda: closed() == 1, "it is closed for what it said")


@pytest.mark.parametrize("version", ["TLSv1.3", "TLSv1.2"])
def test_java_logs_in_and_has_a_message_accepted(secured: Server, version: str) -> None:
    if not shutil.which("javac"):
        pytest.skip("a JDK was not found: apt-get install default-jdk-headless")
    said = [
        p.encode_hello("duke", "jsse", secured.token("duke"), 64),
        p.encode_send(0, ids.now(), 0, p.encode_name("duke"), 1, b"hello from Java"),
    ]
    done = subprocess.run(
        ["java", str(JAVA), "localhost", str(secured.tls[1]), str(secured.data / "dev-ca.pem"), version],
        env=clean_env({}), input="".join(f"{frame.hex()}\n" for frame in said), text=True, capture_output=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    spoken, suite, protocol, *heard = done.stdout.splitlines()
    assert (spoken, protocol) == (version, "iris/1") and ("_GCM_" in suite or "CHACHA20" in suite), suite
    frames = [p.decode_server(kind, body) for kind, body in p.FrameReader().feed(bytes.fromhex("".join(heard)))]
    kinds = [type(frame).__name__ for frame in frames]
    assert kinds[0] == "Welcome" and "Accepted" in kinds, frames
    with secured.login("duke") as duke:
        assert [delivery.payload for delivery in duke.take(1)] == [b"hello from Java"]
