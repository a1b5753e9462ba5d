"""An edge with two cores, which do not mirror each other here: only the way changes. Clients stay connected."""

from __future__ import annotations

import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from support.client import NotYet
from support.cluster import Cluster, Node
from support.wait import PATIENCE, until


@pytest.fixture
def pair(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Return a running edge with two cores, each of which has shards."""
    cluster = make_cluster(2, 1).start()
    edge = cluster.edges[0]
    until(lambda: edge.metrics().sum("iris_links") == 2, "both cores are linked")
    return cluster


def routed(edge: Node) -> bool:
    """Whether every shard has a core."""
    return edge.metrics().sum("iris_shards_unroutable") == 0


def readyz(node: Node) -> int:
    """Return the status of /readyz."""
    try:
        with urllib.request.urlopen(f"http://{node.admin}/readyz", timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_clients_stay_connected_while_a_core_is_killed(pair: Cluster) -> None:
    edge = pair.edges[0]
    users = [f"user-{number}" for number in range(12)]
    clients = [edge.login(user) for user in users]
    try:
        for client in clients:
            for user in users:
                assert client.ask(user, b"before") == "accepted"
        for client in clients:
            got = client.take(len(users))
            client.ack(got[-1].no)
            client.sync()
        pair.cores[0].kill()
        for client in clients:
            for user in users:
                assert client.ask(user, b"after") == "accepted"
        for client in clients:
            got = []
            while len([d for d in got if d.payload == b"after"]) < len(users):
                got += client.take(1)
            numbers = [delivery.no for delivery in got]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "numbers go on"
            client.ack(got[-1].no)
            client.sync()
            assert not client.closed and client.error is None
        until(lambda: edge.metrics().sum("iris_shard_failovers_total") > 0, "the failovers are counted")
        assert edge.metrics().sum("iris_connections_logged_in") == len(users)
    finally:
        for client in clients:
            client.close()


def test_every_send_under_way_is_answered_when_a_core_is_killed(pair: Cluster) -> None:
    edge = pair.edges[0]
    with edge.login("sender") as sender:
        seqs = []
        for number in range(200):
            seqs.append(sender.send(f"to-{number % 16}", b"x" * 100))
            if number == 100:
                pair.cores[1].kill()
        answers = [sender.answer(seq) for seq in seqs]
        assert set(answers) == {"accepted"}


def test_a_core_that_stops_in_order_costs_no_error(pair: Cluster) -> None:
    edge = pair.edges[0]
    failures: list[str] = []
    stop = threading.Event()
    counts = [0, 0]

    def work(index: int) -> None:
        with edge.login(f"worker-{index}") as client:
            while not stop.is_set():
                answer = client.ask(f"somebody-{counts[index] % 16}", b"x")
                if answer != "accepted":
                    failures.append(answer)
                counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    try:
        for core in pair.cores:
            until(lambda: min(counts) > 20, "messages flow")
            assert core.stop(signal.SIGTERM) == 0
            goal = min(counts) + 50
            until(lambda: min(counts) > goal, "messages go on flowing")
            core.start()
            until(lambda: edge.metrics().sum("iris_links") == 2, "the core is linked again")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_core_that_hangs_is_left(pair: Cluster) -> None:
    edge = pair.edges[0]
    with edge.login("sender") as sender:
        pair.cores[0].pause()
        for number in range(32):
            assert sender.ask(f"to-{number}", b"x") == "accepted"
        pair.cores[0].process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        until(lambda: edge.metrics().sum("iris_links") == 2, "it comes back")
        assert sender.ask("to-0", b"x") == "accepted"
    until(lambda: edge.metrics().sum("iris_links_ended_total", reason="silent") >= 1, "the silence is counted")


def test_without_any_core_sends_are_refused_by_name_and_nobody_is_thrown_out(pair: Cluster) -> None:
    edge = pair.edges[0]
    with edge.login("sender") as sender:
        for core in pair.cores:
            core.kill()
        seq = sender.send("bob", b"x")
        with pytest.raises(NotYet):
            sender.answer(seq, timeout=0.5)
        assert sender.answer(seq) == "shard_unavailable"
        until(lambda: edge.metrics().rejected("shard_unavailable") >= 1, "the refusal is counted")
        assert readyz(edge) == 503
        pair.cores[1].start()
        until(lambda: routed(edge), "a core is back")
        assert readyz(edge) == 200
        assert sender.ask("bob", b"x") == "accepted"


def test_the_newest_login_wins_across_a_failover(pair: Cluster) -> None:
    edge = pair.edges[0]
    first = edge.login("bob")
    with edge.login("bob") as second:
        first.close()
        for core in pair.cores:
            core.kill()
            core.start()
            until(lambda: routed(edge), "shards are routed")
            assert second.ask("bob", b"to myself") == "accepted"
            got = second.take(1)
            second.ack(got[-1].no)
            second.sync()
        assert second.error is None
