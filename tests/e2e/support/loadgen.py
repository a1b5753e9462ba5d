"""The load generator under test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .server import Server, clean_env, dies_with_us


def loadgen() -> str:
    """Return the path of the load generator under test."""
    path = os.environ.get("IRIS_LOADGEN_BIN", "")
    if not path:
        pytest.skip("IRIS_LOADGEN_BIN is not set")
    return path


def start(server: Server, scenario: str, *args: str, out: Path) -> subprocess.Popen[str]:
    """Start a scenario against a server."""
    return start_bare(server, scenario, *args, "--key", str(server.data / "dev.key"), out=out)


def start_bare(server: Server, scenario: str, *args: str, out: Path) -> subprocess.Popen[str]:
    """Start a scenario in which nobody logs in."""
    host, port = server.tcp
    return subprocess.Popen(
        [loadgen(), scenario, *args, "--addr", f"{host}:{port}", "--pid", str(server.pid), "--json", str(out)],
        env=clean_env({}), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=dies_with_us,
    )  # fmt: skip
