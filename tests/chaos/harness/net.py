"""Networks between nodes: namespaces behind a router that can drop what it should forward, or plain loopback.

The runner itself moves into a network namespace and a mount namespace of its own and is the router; each node gets a
namespace with one veth(4) to it. A cut is an `ip rule` of type blackhole: packets vanish without a word, also those of
connections that exist, as in a network that lost a cable. All of this ends with the runner, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from support.cluster import own_address

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWNET = 0x0002_0000, 0x4000_0000


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _run(*command: str, given: str | None = None) -> None:
    done = subprocess.run(command, input=given, text=True, capture_output=True, timeout=60)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


def _ip(*lines: str) -> None:
    """Run several `ip` commands at once; the first that fails ends them."""
    _run("ip", "-batch", "-", given="\n".join(lines) + "\n")


class Loopback:
    """Addresses of 127/8: nothing can be cut."""

    can_cut = False
    #: Where proxies that live in the runner listen.
    router = "127.0.0.1"

    def attach(self, name: str) -> tuple[str, Callable[[], None] | None]:
        """Return the address of a new node, and what its process does before it starts."""
        return own_address(), None

    def heal(self) -> None:
        """Forward everything again."""

    def close(self) -> None:
        """Remove what belongs to the nodes of this round."""


class Namespaces:
    """A network namespace for each node, and this process as the router between them."""

    can_cut = True
    #: The address at which nodes see clients and proxies that live in the runner.
    router = "10.66.0.1"

    @classmethod
    def enter(cls) -> None:
        """Move this process into namespaces of its own, before it has threads. ``OSError`` if that is not possible."""
        if shutil.which("ip") is None:
            raise OSError("no `ip` (iproute2)")
        _check(_libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS), "unshare(2)")
        _run("mount", "--make-rprivate", "/")
        Path("/run/netns").mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        _ip("link set lo up", f"addr add {cls.router}/32 dev lo")
        for name, value in (("ip_forward", "1"), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")):
            Path("/proc/sys/net/ipv4", name).write_text(value)

    def __init__(self) -> None:
        self.names: list[str] = []
        self.rules: list[str] = []

    def attach(self, name: str) -> tuple[str, Callable[[], None]]:
        """Return the address of a new node, and what its process does before it starts: enter its namespace."""
        number = len(self.names) + 1
        self.names.append(name)
        address, gate = f"10.66.{number}.1", f"10.66.{number}.254"
        _ip(
            f"netns add {name}",
            f"link add v{number} type veth peer name e0 netns {name}",
            f"addr add {gate}/24 dev v{number}",
            f"link set v{number} up",
        )
        _run(
            "ip", "-netns", name, "-batch", "-",
            given=f"link set lo up\naddr add {address}/24 dev e0\nlink set e0 up\nroute add default via {gate}\n",
        )  # fmt: skip
        place = f"/run/netns/{name}"

        def move() -> None:
            fd = os.open(place, os.O_RDONLY)
            _check(_libc.setns(fd, _CLONE_NEWNET), "setns(2)")
            os.close(fd)

        return address, move

    def cut(self, sources: Iterable[str], targets: Iterable[str], *, one_way: bool = False) -> None:
        """Drop all packets from ``sources`` to ``targets`` (addresses), and back unless ``one_way``."""
        sources, targets = list(sources), list(targets)
        pairs = [(a, b) for a in sources for b in targets]
        if not one_way:
            pairs += [(b, a) for a, b in pairs]
        rules = [f"from {a} to {b} blackhole" for a, b in pairs]
        _ip(*(f"rule add {rule}" for rule in rules))
        self.rules += rules

    def heal(self) -> None:
        """Forward everything again."""
        if self.rules:
            _ip(*(f"rule del {rule}" for rule in self.rules))
            self.rules = []

    def close(self) -> None:
        """Remove the namespaces of this round's nodes, whose processes have ended."""
        self.heal()
        for number, name in enumerate(self.names, 1):
            # The other end goes with it, at once; with the namespace it would go some time later.
            _ip(f"link del v{number}", f"netns del {name}")
        self.names = []


Network = Loopback | Namespaces
