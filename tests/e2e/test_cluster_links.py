"""An edge and a core as two processes: clients cannot tell, and strangers get nowhere."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

from support.cluster import LINK_PORT, Cluster, Node, Pki
from support.wait import PATIENCE, until

HELLO, END = 1, 2
CODES = {"garbage": 2, "version": 3, "cluster": 4, "identity": 5, "layout": 6, "unknown_type": 9}


def exchange(cluster: Cluster, count: int = 3) -> None:
    """Messages cross: the cluster serves."""
    edge = cluster.edges[0]
    with edge.login("ann") as ann, edge.login("ben") as ben:
        for number in range(count):
            assert ann.ask("ben", b"%d" % number) == "accepted"
        got = ben.take(count)
        assert [delivery.payload for delivery in got] == [b"%d" % n for n in range(count)]
        ben.ack(got[-1].no)
        ben.sync()


# ---- one core, one edge


def test_messages_cross_from_client_to_client(one_core: Cluster) -> None:
    edge, core = one_core.edges[0], one_core.cores[0]
    with edge.login("alice") as alice, edge.login("bob") as bob:
        for number in range(50):
            assert alice.ask("bob", f"message {number}".encode()) == "accepted"
        got = bob.take(50)
        assert [delivery.payload for delivery in got] == [f"message {n}".encode() for n in range(50)]
        assert [delivery.no for delivery in got] == list(range(1, 51))
        bob.ack(50)
        bob.sync()
    until(lambda: core.metrics().sum("iris_links") == 1, "the link is counted")
    until(lambda: core.metrics().sum("iris_sends_total") == 50, "the core counts what it took")
    until(lambda: core.metrics().sum("iris_users_online") == 0, "logouts reach the core")


def test_a_list_of_recipients_receipts_and_presence_cross_too(one_core: Cluster) -> None:
    edge = one_core.edges[0]
    names = [f"r{number}" for number in range(20)]
    with edge.login("alice") as alice, edge.login("r0") as first:
        alice.query(1, ["r0", "r1"], watch=True)
        alice.pump(lambda: sum(len(report.entries) for report in alice.presence) >= 2)
        assert alice.ask(names, b"to all", receipt=True) == "accepted"
        (delivery,) = first.take(1)
        first.ack(delivery.no)
        (receipt,) = alice.take(1)
        assert receipt.sender == "r0"
        with edge.login("r1") as second:
            (delivery,) = second.take(1)
            assert delivery.payload == b"to all"
            alice.pump(lambda: any(report.query == 0 for report in alice.presence))


def test_an_edge_waits_for_its_core_and_finds_it_again(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(1, 1)
    edge, core = cluster.edges[0], cluster.cores[0]
    edge.start(wait=False)
    until(lambda: "no link to a core" in edge.log(), "the edge says what it lacks")
    assert not edge.ports.exists(), "it does not serve yet"
    core.start()
    edge.wait_ready(edge.ports)
    exchange(cluster)
    core.restart()
    until(lambda: edge.metrics().sum("iris_shards_unroutable") == 0, "the edge finds its core again")
    exchange(cluster)


# ---- who is refused


def refusal(edge: Node, reason: str) -> None:
    """The node says why it has no link."""
    until(lambda: f'"reason":"{reason}"' in edge.log(), f"the edge is refused: {reason}")
    assert not edge.ports.exists()


def stranger(cluster: Cluster, number: int, pki: Pki | None = None) -> Node:
    """Return an edge that the cluster should not take."""
    node = Node(cluster, number, ["edge"], pki)
    cluster.others.append(node)
    return node


def test_a_node_of_another_ca_is_refused_and_the_others_go_on(one_core: Cluster, tmp_path: Path) -> None:
    node = stranger(one_core, 150, Pki(tmp_path / "other"))
    node.start(wait=False)
    refusal(node, "certificate_issuer")
    exchange(one_core)


def test_a_node_of_another_cluster_is_refused(one_core: Cluster, tmp_path: Path) -> None:
    node = stranger(one_core, 151, Pki(tmp_path / "other", "prod"))
    # The same CA for both clusters would not help: the name is in the certificate.
    node.more["cluster"] = {"ca": str(tmp_path / "other" / "ca.pem")}
    node.start(wait=False)
    refusal(node, "certificate_issuer")
    exchange(one_core)


def test_another_number_of_shards_is_refused_by_name(one_core: Cluster) -> None:
    node = stranger(one_core, 152)
    node.more["core"] = {"num_shards": 32}
    node.start(wait=False)
    refusal(node, "layout")
    exchange(one_core)


def talk(core: Node, pki: Pki, number: int) -> ssl.SSLSocket:
    """Return a TLS connection to the link port, with a node's certificate."""
    cert, key = pki.issue(number)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki.dir / "ca.pem")
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["iris-link"])
    raw = socket.create_connection((core.link_address, LINK_PORT), timeout=PATIENCE)
    return context.wrap_socket(raw, server_hostname=f"node-{core.number}.{pki.cluster}.iris")


def frame(kind: int, body: bytes) -> bytes:
    """Return a frame of a link."""
    return struct.pack("<BBHI", kind, 0, 0, len(body)) + body


def hello(node: int, *, cluster: str = "test", versions: tuple[int, int] = (1, 1), shards: int = 16) -> bytes:
    """Return a HELLO of an edge."""
    body = b"IRLK" + struct.pack("<HHBBIQ", *versions, 1, 1, node, 7)
    body += struct.pack("<HHHIIH", shards, 0, 1, 50, 1 << 20, 0)
    for text in (cluster, "local", "test"):
        body += bytes([len(text)]) + text.encode()
    return frame(HELLO, body)


def answer(link: ssl.SSLSocket) -> tuple[int, int]:
    """Return the type of the next frame, and of an END its code."""

    def read(count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = link.recv(count - len(data))
            assert part, "the stream ended"
            data += part
        return data

    kind, _, _, length = struct.unpack("<BBHI", read(8))
    body = read(length)
    return kind, struct.unpack_from("<H", body)[0] if kind == END else 0


def test_each_fault_of_a_handshake_has_its_code(one_core: Cluster) -> None:
    core = one_core.cores[0]
    for greeting, wanted in [
        (hello(160), None),
        (hello(160, cluster="prod"), "cluster"),
        (hello(160, versions=(2, 3)), "version"),
        (hello(160, shards=8), "layout"),
        (hello(161), "identity"),
        (frame(6, b"a batch before HELLO"), "garbage"),
        (frame(HELLO, b"no magic"), "garbage"),
    ]:
        with talk(core, one_core.pki, 160) as link:
            link.sendall(greeting)
            kind, code = answer(link)
            if wanted is None:
                assert kind == HELLO
            else:
                assert (kind, code) == (END, CODES[wanted]), wanted
    exchange(one_core)


def test_garbage_on_the_link_port_ends_that_connection_alone(one_core: Cluster) -> None:
    core = one_core.cores[0]
    before = core.metrics().sum("iris_links_ended_total")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 4096, bytes(range(256)) * 16):
        with socket.create_connection((core.link_address, LINK_PORT), timeout=PATIENCE) as raw:
            raw.sendall(garbage)
            try:
                while raw.recv(4096):
                    pass
            except ConnectionResetError:
                pass
    ended = lambda: core.metrics().sum("iris_links_ended_total") >= before + 3  # noqa: E731
    until(ended, "each is counted")
    # After a sound handshake, too.
    with talk(core, one_core.pki, 162) as link:
        link.sendall(hello(162))
        assert answer(link)[0] == HELLO
        link.sendall(frame(0x30, b"what is this"))
        while (said := answer(link))[0] != END:
            pass
        assert said[1] == CODES["unknown_type"]
    assert core.metrics().sum("iris_links") == 1
    exchange(one_core)


def test_silence_on_the_link_port_is_ended(one_core: Cluster) -> None:
    core = one_core.cores[0]
    with socket.create_connection((core.link_address, LINK_PORT), timeout=PATIENCE) as raw:
        while raw.recv(4096):
            pass
    ended = lambda: core.metrics().sum("iris_links_ended_total", reason="handshake_timeout") == 1  # noqa: E731
    until(ended, "the time-out is counted")
    exchange(one_core)
