"""Fixtures: servers in temporary directories, always ended by pid; their log is shown when a test fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "clients/python/src"))

from support.cluster import Cluster  # noqa: E402
from support.machine import debian_package  # noqa: E402
from support.server import Server  # noqa: E402
from support.witness import Witness  # noqa: E402


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    """Append the logs of a failed test's servers to its report."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Server) and value.starts:
                report.sections.append((f"log of the server in {value.home}", value.log()[-6000:]))
            if isinstance(value, Cluster):
                report.sections.append(("logs of the cluster", value.log()))
    return report


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Return a maker of servers; all of them are ended with the test."""
    made: list[Server] = []

    def make(env: dict[str, str] | None = None, home: Path | None = None) -> Server:
        server = Server(home or tmp_path / f"server-{len(made)}", env)
        made.append(server)
        return server

    yield make
    for server in made:
        server.cleanup()


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Debian package of the binaries under test."""
    return debian_package(tmp_path_factory.mktemp("debian"))


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """Return a running server of this test's own."""
    return make_server().start()


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Return a maker of clusters; all their nodes are ended with the test."""
    made: list[Cluster] = []

    def make(cores: int = 1, edges: int = 1) -> Cluster:
        home = tmp_path / f"cluster-{len(made)}"
        home.mkdir()
        made.append(Cluster(home, cores, edges))
        return made[-1]

    yield make
    for cluster in made:
        cluster.cleanup()


@pytest.fixture
def one_core(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Return a running edge with a core."""
    return make_cluster(1, 1).start()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Return a running server for all tests of a module; its ``ENV`` is the configuration."""
    server = Server(tmp_path_factory.mktemp("shared"), getattr(request.module, "ENV", None))
    server.start()
    yield server
    server.cleanup()


@pytest.fixture(scope="module")
def witness(shared: Server) -> Iterator[Witness]:
    """Return two clients of the shared server who must not notice anything."""
    witness = Witness(shared)
    yield witness
    witness.stop()
