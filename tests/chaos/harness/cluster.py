"""Clusters whose nodes live on a network that can be cut."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from support.cluster import LINK_PORT, Cluster, Node

from .net import Network

SHARDS = 16
CLIENT_PORT, ADMIN_PORT = 7400, 7480
_MASK = (1 << 64) - 1
#: Exit codes that a node may have when it was told to end, or killed by us.
EXPECTED_ENDS = (0, -signal.SIGKILL)


def shard(user: str) -> int:
    """Return the shard of a user (docs/PROTOCOL.md, appendix)."""
    place = int.from_bytes(hashlib.sha256(user.encode()).digest()[:8], "big")
    return place * SHARDS >> 64


def weight(shard_number: int, node: int) -> int:
    """Return the weight of a node for a shard (docs/LINKS.md, section 9)."""
    z = (shard_number << 32 | node) + 0x9E3779B97F4A7C15 & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return z ^ z >> 31


def preferred(user: str, cores: list[int]) -> int:
    """Return the number of the core that edges prefer for this user."""
    return max(cores, key=lambda node: weight(shard(user), node))


def names(stem: str, count: int, core: int | None = None, cores: tuple[int, ...] = (1, 2)) -> list[str]:
    """Return so many names of users; with ``core``, of users whose preferred core it is."""
    numbers = (f"{stem}-{number}" for number in itertools.count())
    chosen = (name for name in numbers if core is None or preferred(name, list(cores)) == core)
    return list(itertools.islice(chosen, count))


class ChaosNode(Node):
    """A process in its own network namespace, if there are such."""

    def __init__(self, cluster: ChaosCluster, number: int, roles: list[str]) -> None:
        super().__init__(cluster, number, roles)
        self.link_address, self.before = cluster.network.attach(f"node-{number}")
        self.listen = self.link_address
        #: Where this node finds cores, if not at their own addresses: a proxy.
        self.ways: dict[int, str] = {}
        self.data = self.home / "data"
        #: Another program than IRIS_BIN to start.
        self.program = ""
        self.ends: list[int] = []
        # In namespaces of their own, admin servers are not on loopback, and ask for a token.
        self.admin_token = cluster.secret.read_text().strip()
        self.more = {
            "listen": {
                "tcp": f"{self.listen}:{CLIENT_PORT}",
                "admin": f"{self.listen}:{ADMIN_PORT}",
                "admin_allow_remote": True,
                "admin_token": str(cluster.secret),
            },
            "reactor": {"count": 1},
            "core": {"partitions": 2, "num_shards": SHARDS},
        }

    def config(self) -> str:
        """Return the configuration as TOML, with ways through proxies put in."""
        text = super().config()
        for core in self.cluster.cores:
            if core.number in self.ways:
                own = f'node = {core.number}, addr = "{core.link_address}:{LINK_PORT}"'
                assert own in text
                text = text.replace(own, f'node = {core.number}, addr = "{self.ways[core.number]}"')
        return text

    def start(self, **options: Any) -> ChaosNode:
        """Start, and wait until it serves."""
        usual = os.environ["IRIS_BIN"]
        os.environ["IRIS_BIN"] = self.program or usual
        try:
            super().start(**options)
        finally:
            os.environ["IRIS_BIN"] = usual
        return self

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.poll() is None

    def ended(self, timeout: float = 60.0) -> int:
        """Wait for its end; return the exit code, and keep it."""
        code = super().ended(timeout)
        self.ends.append(code)
        return code

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and says nothing."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Take its disk away."""
        shutil.rmtree(self.data)

    def faults(self) -> list[str]:
        """Return what its process did that no process of ours may do."""
        found = [
            f"{self.home.name} ended with {code}" for code in self.ends if code not in EXPECTED_ENDS
        ]
        if self.process is not None and (code := self.process.poll()) is not None:
            found.append(f"{self.home.name} ended by itself with {code}")
        if self.starts and "panicked" in self.log():
            found.append(f"{self.home.name} panicked")
        return found


class ChaosCluster(Cluster):
    """Cores 1, 2, ... and edges 101, 102, ..."""

    def __init__(self, home: Path, network: Network, cores: int, edges: int) -> None:
        super().__init__(home, 0, 0)
        self.network = network
        for number in range(cores):
            self.cores.append(ChaosNode(self, number + 1, ["core"]))
        for number in range(edges):
            self.edges.append(ChaosNode(self, number + 101, ["edge"]))

    def core(self, number: int) -> ChaosNode:
        """Return a core by its number, from 1."""
        return self.cores[number - 1]

    def edge(self, number: int) -> ChaosNode:
        """Return an edge by its number, from 1."""
        return self.edges[number - 1]
