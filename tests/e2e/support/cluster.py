"""Clusters of real processes: cores and edges with certificates of one CA, each on a loopback address of its own."""

from __future__ import annotations

import itertools
import os
import secrets
import subprocess
from pathlib import Path

from .server import SMALL_LOG, Server, binary, clean_env, dies_with_us, iris

_numbers = itertools.count(1)
#: A port that is below the range that the kernel hands out, on addresses that nobody else uses.
LINK_PORT = 7410


def own_address() -> str:
    """Return a loopback address that no other test uses: fixed ports are then free."""
    number = next(_numbers)
    return f"127.{64 + os.getpid() % 128}.{os.getpid() // 128 % 250 + 1}.{number % 250 + 1}"


class Pki:
    """A CA of a cluster, and certificates of its nodes."""

    def __init__(self, home: Path, cluster: str = "test") -> None:
        self.dir = home
        self.cluster = cluster
        done = iris("pki", "init", "--dir", str(home), "--cluster", cluster)
        assert done.returncode == 0, done.stderr

    def issue(self, node: int) -> tuple[Path, Path]:
        """Return the certificate and the key of a node."""
        cert, key = self.dir / f"node-{node}.pem", self.dir / f"node-{node}-key.pem"
        if not cert.exists():
            done = iris("pki", "issue", "--dir", str(self.dir), "--node", str(node))
            assert done.returncode == 0, done.stderr
        return cert, key


class Node(Server):
    """One process of a cluster."""

    def __init__(self, cluster: Cluster, number: int, roles: list[str], pki: Pki | None = None) -> None:
        super().__init__(cluster.home / f"node-{number}", {})
        self.cluster = cluster
        self.number = number
        self.roles = roles
        self.pki = pki or cluster.pki
        self.link_address = own_address()
        #: Sections and keys beside what a node of the cluster needs.
        self.more: dict[str, dict[str, object]] = {}

    def config(self) -> str:
        """Return the configuration as TOML."""
        cert, key = self.pki.issue(self.number)
        cores = ", ".join(
            f'{{ node = {core.number}, addr = "{core.link_address}:{LINK_PORT}" }}' for core in self.cluster.cores
        )
        sections: dict[str, dict[str, object]] = {
            "node": {
                "roles": self.roles,
                "node_id": self.number,
                "name": f"node-{self.number}",
                "data_dir": str(self.data),
            },
            "listen": {"tcp": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "reactor": {"count": 2},
            "core": {"partitions": 2, "num_shards": 16},
            "wal": {"disk_reserve": "0B"},
            "cluster": {
                "id": self.pki.cluster,
                "listen": f"{self.link_address}:{LINK_PORT}",
                "ca": str(self.pki.dir / "ca.pem"),
                "cert": str(cert),
                "key": str(key),
            },
        }
        for section, keys in self.more.items():
            sections.setdefault(section, {}).update(keys)
        text = ""
        for section, keys in sections.items():
            text += f"[{section}]\n"
            for name, value in keys.items():
                text += f"{name} = {toml(value)}\n"
            if section == "cluster":
                text += f"cores = [{cores}]\n"
        text += f'[auth]\nkeys = [{{ file = "{self.cluster.secret}", alg = "HS256" }}]\n'
        return text

    def start(self, *, wait: bool = True, env: dict[str, str] | None = None) -> Node:
        """Start, and wait until it serves."""
        assert self.process is None, "it runs already"
        self.starts += 1
        ports = self.home / f"ports-{self.starts}.json"
        file = self.home / "iris.toml"
        file.write_text(self.config())

        def prepare() -> None:
            dies_with_us()
            if self.before:
                self.before()

        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen(
                [binary(), "serve", "--config", str(file), "--ports-file", str(ports)],
                env=clean_env({**SMALL_LOG, **(env or {})}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=prepare,
            )
        self.ports = ports
        if wait:
            self.wait_ready(ports)
        return self

    @property
    def key(self) -> bytes:
        """The secret that signs tokens of the cluster."""
        return self.cluster.secret.read_bytes().strip()


class Cluster:
    """Cores and edges of one cluster, started by the test."""

    def __init__(self, home: Path, cores: int = 1, edges: int = 1) -> None:
        self.home = home
        self.secret = home / "secret"
        self.secret.write_text(secrets.token_hex(32))
        self.pki = Pki(home / "pki")
        self.cores: list[Node] = []
        self.edges: list[Node] = []
        self.others: list[Node] = []
        for number in range(cores):
            self.cores.append(Node(self, number + 1, ["core"]))
        for number in range(edges):
            self.edges.append(Node(self, number + 101, ["edge"]))

    @property
    def nodes(self) -> list[Node]:
        """All nodes."""
        return [*self.cores, *self.edges, *self.others]

    def start(self) -> Cluster:
        """Start all, and wait until clients are served."""
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait_ready(node.ports)
        return self

    def cleanup(self) -> None:
        """Leave no process behind."""
        for node in self.nodes:
            node.cleanup()

    def log(self) -> str:
        """Return the last words of all nodes."""
        return "\n".join(f"==> {node.home.name}\n{node.log()[-3000:]}" for node in self.nodes if node.starts)


def toml(value: object) -> str:
    """Return a value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return str(value) if isinstance(value, int) else f'"{value}"'
