"""Two cores mirror each other: what one accepted, the other one has; either may die, drain, or come back empty or old."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterable

import pytest
from support.cluster import Cluster, Node
from support.wait import until

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


def is_whole(cluster: Cluster) -> bool:
    """Whether both partitions of both cores acknowledge two copies, and the edge is linked to both."""
    linked = all(edge.metrics().sum("iris_links") == 2 for edge in cluster.edges)
    return linked and all(modes(core) == "normal normal" for core in cluster.cores)


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
    shutil.copytree(core.data, image)
    core.start()
    until(lambda: is_whole(pair), "it is back")
    send(edge, [b"later"])
    core.kill()
    shutil.rmtree(core.data)
    image.rename(core.data)
    core.start()
    until(lambda: is_whole(pair), "it is healed")
    pair.cores[1].kill()
    for user in USERS:
        assert inbox(edge, user, 2) == [b"old", b"later"]


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
