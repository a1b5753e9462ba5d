"""Two cores mirror each other: what one accepted, the other one has; either may die, drain, or come back empty or old."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from support.cluster import Cluster, Node
from support.wait import PATIENCE, until

#: Users whose shards are in both partitions, and of which either core is preferred for some.
USERS = [f"user-{number}" for number in range(12)]


def modes(core: Node) -> str:
    """Return what a core said last of the rule in each of its partitions, since it runs."""
    said: dict[int, str] = {}
    for line in core.log().splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        message = event.get("message", "")
        if message == "log recovered":
            said[event["partition"]] = "recovering"
        if message.startswith(("solo:", "normal:")):
            said[event["partition"]] = message.split(":")[0]
    return " ".join(said[partition] for partition in sorted(said))


def is_whole(cluster: Cluster, partitions: int = 2) -> bool:
    """Whether all partitions of both cores acknowledge two copies, and the edge is linked to both."""
    linked = all(edge.metrics().sum("iris_links") == 2 for edge in cluster.edges)
    return linked and all(modes(core).split() == ["normal"] * partitions for core in cluster.cores)


def send(edge: Node, payloads: Iterable[bytes], *, sender: str = "sender") -> None:
    """Have each payload accepted for each user."""
    with edge.login(sender) as client:
        for payload in payloads:
            for user in USERS:
                assert client.ask(user, payload) == "accepted"


def inbox(edge: Node, user: str, count: int) -> list[bytes]:
    """Return what waits for a user: exactly so many. Nothing is acknowledged."""
    with edge.login(user) as client:
        assert client.welcome is not None
        assert client.welcome.waiting == count
        return [delivery.payload for delivery in client.take(count)]


def identity(core: Node) -> dict[str, Any]:
    """Return what the data directory says of the node."""
    text = (core.data / "node").read_bytes()
    return dict(json.loads(text[: text.index(b"}") + 1]))


def set_identity(core: Node, line: dict[str, Any]) -> None:
    """Write a node's identity as one line, with its checksum."""
    fields = ("format", "cluster", "node", "node_id", "incarnation", "num_shards", "partitions")
    checked = " ".join(str(line[field]) for field in fields).encode()
    (core.data / "node").write_text(json.dumps({**line, "crc32c": f"{crc32c(checked):08x}"}) + "\n")


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.fixture
def pair(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Return a running edge with two cores that mirror each other."""
    cluster = make_cluster(2, 1).start()
    until(lambda: is_whole(cluster), "both cores mirror each other")
    return cluster


@pytest.mark.parametrize("victim", [0, 1])
def test_what_was_accepted_is_on_the_other_core_when_one_is_killed(pair: Cluster, victim: int) -> None:
    edge = pair.edges[0]
    send(edge, [b"%d" % number for number in range(10)])
    pair.cores[victim].kill()
    for user in USERS:
        assert inbox(edge, user, 10) == [b"%d" % number for number in range(10)]
    send(edge, [b"alone"])
    for user in USERS:
        assert inbox(edge, user, 11)[-1] == b"alone"


def test_what_was_acknowledged_stays_gone_on_the_other_core(pair: Cluster) -> None:
    edge = pair.edges[0]
    send(edge, [b"read", b"unread"])
    for user in USERS:
        with edge.login(user) as client:
            first, _ = client.take(2)
            client.ack(first.no)
            client.sync()
    until(lambda: all(core.metrics().sum("iris_inbox_messages") == len(USERS) for core in pair.cores), "both removed it")
    for victim in pair.cores:
        victim.kill()
        for user in USERS:
            assert inbox(edge, user, 1) == [b"unread"]
        victim.start()
        until(lambda: is_whole(pair), "it is back")


def test_shards_return_to_a_core_only_when_it_has_all_that_was_missed(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(2, 1)
    for core in cluster.cores:
        core.more = {"cluster": {"heal_rate": "1MiB"}, "core": {"partitions": 1}}
    cluster.start()
    until(lambda: is_whole(cluster, 1), "both cores mirror each other")
    edge, core = cluster.edges[0], cluster.cores[0]
    core.kill()
    # Some seconds of healing: longer than a core must serve before its shards return.
    missed = [bytes([number]) * 65536 for number in range(20)]
    send(edge, missed)
    before = edge.metrics().sum("iris_shard_moves_total")
    core.start()

    def returned() -> bool:
        moves = edge.metrics().sum("iris_shard_moves_total") - before
        assert not moves or is_whole(cluster, 1)
        return moves > 0

    until(returned, "shards return")
    for user in USERS:
        with edge.login(user) as client:
            assert client.welcome is not None
            assert client.welcome.waiting == len(missed)
            assert [delivery.payload for delivery in client.take(2)] == missed[:2]


def test_a_core_that_was_away_gets_what_it_missed(pair: Cluster) -> None:
    edge = pair.edges[0]
    send(edge, [b"before"])
    pair.cores[0].kill()
    send(edge, [b"meanwhile"])
    pair.cores[0].start()
    until(lambda: is_whole(pair), "it is healed")
    pair.cores[1].kill()
    for user in USERS:
        assert inbox(edge, user, 2) == [b"before", b"meanwhile"]


def test_a_core_that_lost_its_disk_gets_everything_back(pair: Cluster) -> None:
    edge = pair.edges[0]
    send(edge, [b"kept"])
    pair.cores[0].kill()
    until(lambda: time.time() > identity(pair.cores[0])["incarnation"] + 1, "lives are told apart by the second")
    shutil.rmtree(pair.cores[0].data)
    pair.cores[0].start()
    until(lambda: is_whole(pair), "it is healed")
    pair.cores[1].kill()
    for user in USERS:
        assert inbox(edge, user, 1) == [b"kept"]


def test_a_core_with_an_old_image_of_its_disk_gets_back_what_it_had_said(pair: Cluster) -> None:
    edge = pair.edges[0]
    core = pair.cores[0]
    send(edge, [b"old"])
    assert core.stop(signal.SIGTERM) == 0
    image = core.home / "image"
    shutil.copytree(core.data, image, ignore=shutil.ignore_patterns("*.sock"))
    core.start()
    until(lambda: is_whole(pair), "it is back")
    send(edge, [b"later"])
    core.kill()
    until(lambda: time.time() > identity(core)["incarnation"] + 1, "lives are told apart by the second")
    shutil.rmtree(core.data)
    image.rename(core.data)
    core.start()
    until(lambda: is_whole(pair), "it is healed")
    pair.cores[1].kill()
    for user in USERS:
        assert inbox(edge, user, 2) == [b"old", b"later"]


def test_a_life_that_the_mirror_remembers_is_not_lived_again(pair: Cluster) -> None:
    edge = pair.edges[0]
    core = pair.cores[0]
    core.kill()
    now = identity(core)
    # Its clock stood far ahead for one life, of which this image of the disk knows nothing.
    image = core.home / "image"
    shutil.copytree(core.data, image, ignore=shutil.ignore_patterns("*.sock"))
    set_identity(core, {**now, "incarnation": now["incarnation"] + 1_000_000})
    core.start()
    until(lambda: is_whole(pair), "it is back")
    send(edge, [b"of the life ahead"])
    core.kill()
    shutil.rmtree(core.data)
    image.rename(core.data)
    core.start(wait=False)
    assert core.process is not None
    assert core.process.wait(PATIENCE) == 74
    core.process = None
    assert "the mirror knows a later life of this node" in core.log()
    core.start()
    until(lambda: is_whole(pair), "it goes on above that life")
    assert identity(core)["incarnation"] > now["incarnation"] + 1_000_000
    pair.cores[1].kill()
    for user in USERS:
        assert inbox(edge, user, 1) == [b"of the life ahead"]


def test_both_cores_are_stopped_in_turn_and_no_client_sees_an_error(pair: Cluster) -> None:
    edge = pair.edges[0]
    with edge.login("sender") as client:
        for core in pair.cores:
            seqs = [client.send(user, core.home.name.encode()) for user in USERS]
            assert core.stop(signal.SIGTERM) == 0
            seqs += [client.send(user, b"while away") for user in USERS]
            assert {client.answer(seq) for seq in seqs} == {"accepted"}
            core.start()
            until(lambda: is_whole(pair), "it is back")
    for user in USERS:
        assert inbox(edge, user, 4) == [b"node-1", b"while away", b"node-2", b"while away"]


def test_a_core_alone_refuses_if_it_is_told_to(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(2, 1)
    for core in cluster.cores:
        core.more = {"cluster": {"when_alone": "refuse"}}
    cluster.start()
    until(lambda: is_whole(cluster), "both cores mirror each other")
    edge = cluster.edges[0]
    send(edge, [b"both"])
    cluster.cores[0].kill()
    with edge.login("sender") as client:
        seq = client.send("bob", b"alone")
        assert client.answer(seq) == "shard_unavailable"
    for user in USERS:
        assert inbox(edge, user, 1) == [b"both"], "reading goes on"
    cluster.cores[0].start()
    until(lambda: is_whole(cluster), "it is back")
    send(edge, [b"again"])
