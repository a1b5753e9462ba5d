"""Nodes that are stopped in order and started again, one after the other, while clients work."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import tarfile
import time
from pathlib import Path

from harness.account import Key
from harness.cluster import SHARDS, ChaosNode
from harness.round import PATIENCE, Round, Scenario
from support.cluster import LINK_PORT

#: Data directories of a pair in the oldest format that this build must read.
OLD_DATA = Path(__file__).resolve().parents[1] / "fixtures/format-1.0.tar.xz"
HELLO, END, VERSION_CODE = 1, 2, 3


def restart(r: Round, node: ChaosNode) -> None:
    """Stop a node in order, start it, and wait until the pair is healthy."""
    r.fault()
    code = node.stop()
    assert code == 0, f"{node.home.name} ended with {code} at SIGTERM"
    r.wait_flow(20)
    node.start()
    r.wait_healthy()
    r.wait_flow(20)


def rolling_restart(r: Round) -> None:
    r.start()
    r.load()
    r.wait_flow()
    for number in (1, 2):
        restart(r, r.core(number))
    r.end_load()


def rolling_upgrade(r: Round) -> None:
    """Old directories, the old program if IRIS_CHAOS_OLD_BIN names one; then each node gets the present program."""
    cluster = r.make(edges=2)
    waiting = unpack(r)
    old = os.environ.get("IRIS_CHAOS_OLD_BIN", "")
    for node in cluster.nodes:
        node.program = old
    r.launch()
    r.load(edges=(1,))
    r.wait_flow()
    for node in (r.core(1), r.core(2), r.edge(2)):
        node.program = ""
        restart(r, node)
    r.end_load()
    r.notes["old_program"] = bool(old)
    r.notes["messages_of_the_old_directories"] = len(waiting)
    for first, last, wanted in ((1, 1, 1), (1, 2, 1), (0, 7, 1), (2, 3, None)):
        spoken = negotiate(r, first, last)
        assert spoken == wanted, f"a peer that speaks {first} to {last} is answered {spoken}, not {wanted}"


def unpack(r: Round) -> list[Key]:
    """Give both cores the old directories; what waits in them is accepted."""
    assert r.cluster and r.crowd
    with tarfile.open(OLD_DATA) as archive:
        # Where this Python knows filters it wants one named.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(r.home / "old")
    for core in r.cluster.cores:
        (r.home / "old" / f"core-{core.number}").rename(core.data)
    said = json.loads((r.home / "old/waiting.json").read_text())
    waiting = [Key(sender, bytes.fromhex(number), to) for sender, number, to in said]
    for key in waiting:
        r.account.note_sent(key, time.monotonic())
        r.account.accepted[key] = time.monotonic()
        if key.to not in r.crowd.users:
            r.crowd.add(key.to, r.door(1))
    return waiting


def negotiate(r: Round, lowest: int, highest: int) -> int | None:
    """Greet core 1 as an edge that speaks these versions; return the one that is spoken, or nothing if it refuses."""
    assert r.cluster
    core, pki = r.core(1), r.cluster.pki
    cert, key = pki.issue(160)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki.dir / "ca.pem")
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["iris-link"])
    body = b"IRLK" + struct.pack("<HHBBIQ", lowest, highest, 1, 1, 160, 7)
    body += struct.pack("<HHHIIH", SHARDS, 0, 1, 50, 1 << 20, 0)
    body += b"".join(bytes((len(text),)) + text for text in (pki.cluster.encode(), b"local", b"old"))
    name = f"node-{core.number}.{pki.cluster}.iris"
    with socket.create_connection((core.link_address, LINK_PORT), timeout=PATIENCE) as raw:
        with context.wrap_socket(raw, server_hostname=name) as link, link.makefile("rb") as answers:
            link.sendall(struct.pack("<BBHI", HELLO, 0, 0, len(body)) + body)
            kind, _, _, length = struct.unpack("<BBHI", answers.read(8))
            said = answers.read(length)
    if kind == END:
        (code,) = struct.unpack_from("<H", said)
        assert code == VERSION_CODE, f"refused with code {code}"
        return None
    assert kind == HELLO and said[:4] == b"IRLK"
    own_lowest, own_highest = struct.unpack_from("<HH", said, 4)
    spoken = min(own_highest, highest)
    return spoken if spoken >= max(own_lowest, lowest) else None


SCENARIOS = [
    Scenario("rolling-restart", "both cores are restarted in order: no error", rolling_restart, gap_ms=1000, quick=True),
    Scenario(
        "rolling-upgrade",
        "directories and greetings of the previous version; there is one version of each so far",
        rolling_upgrade,
        gap_ms=1000,
    ),
]
