from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from iris_client import _driver
from server import PATIENCE, Server


@pytest.fixture(autouse=True)
def _no_haste_at_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that closes waits for the server as long as a busy machine may take."""
    monkeypatch.setattr(_driver, "CLOSE_TIMEOUT", PATIENCE)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return one server for all tests that leave it alive; each test uses users of its own."""
    server = Server(tmp_path_factory.mktemp("shared"))
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.data)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """Return a server for a test that kills it."""
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(server.data)
