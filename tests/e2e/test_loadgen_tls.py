"""The load generator by TLS: it secures what it sends, resumes where it is told to, and trusts whom it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import loadgen
from support.server import Server
from support.wait import PATIENCE


@pytest.fixture
def secured(make_server: Callable[..., Server]) -> Server:
    """Return a server with the certificate that --dev makes."""
    return make_server({"IRIS_LISTEN__TLS": "127.0.0.1:0"}).start()


def run(server: Server, out: Path, *args: str, trust: tuple[str, ...] | None = None) -> tuple[int, Any, str]:
    """Run a scenario by TLS; exit code, report if there is one, and its words."""
    server.tcp = server.tls
    trust = ("--ca", str(server.data / "dev-ca.pem")) if trust is None else trust
    process = loadgen.start(server, args[0], "--tls", *trust, *args[1:], out=out)
    said = "".join(process.communicate(timeout=PATIENCE))
    report = json.loads(out.read_text()) if out.exists() and out.stat().st_size else None
    return process.returncode, report, said


@pytest.mark.parametrize("version", ["1.3", "1.2"])
@pytest.mark.parametrize(
    "args",
    [
        ("idle", "-n", "60"),
        ("throughput", "-n", "10", "--payload", "20000"),
        ("latency", "-n", "1"),
        ("latency", "-n", "20", "--rate", "200"),
        ("offline", "-n", "4", "--messages", "2000", "--payload", "2000"),
    ],
)
def test_nothing_is_lost_by_tls(secured: Server, tmp_path: Path, version: str, args: tuple[str, ...]) -> None:
    times = ("--duration", "1s", "--warmup", "100ms", "--tls-version", version)
    code, report, said = run(secured, tmp_path / "out.json", *args, *times)
    # On a busy machine an open loop starts late, which makes its figures invalid and loses nothing.
    assert code == 0 or "more than 10 ms late" in said, said
    assert report["lost"] == report["duplicates"] == report["corrupted"] == 0
    handshakes = report["tls_handshakes"]
    assert handshakes == {"full": report["connections_open"], "resumed": 0}
    metrics = secured.metrics()
    assert metrics.sum("iris_tls_handshakes_total", kind="full") == handshakes["full"]


def test_a_storm_comes_back_by_tickets(secured: Server, tmp_path: Path) -> None:
    flags = ("-n", "200", "--rounds", "2", "--waiting", "2", "--resume")
    code, report, said = run(secured, tmp_path / "out.json", "storm", *flags)
    assert code == 0, said
    assert report["tls_handshakes"]["resumed"] >= 400, report["tls_handshakes"]
    assert report["lost"] == report["corrupted"] == 0


def test_who_is_not_trusted_is_not_talked_to(secured: Server, tmp_path: Path) -> None:
    other = secured.data / "dev-cert.pem"
    code, _, said = run(secured, tmp_path / "out.json", "idle", "-n", "2", trust=("--ca", str(other)))
    assert code == 2 and "tls_certificate" in said, said
    code, _, said = run(secured, tmp_path / "2.json", "idle", "-n", "2", "--duration", "1s", trust=("--insecure",))
    assert code == 0, said
