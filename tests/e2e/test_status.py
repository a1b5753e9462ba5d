"""What operators see: ``iris status``, /status and the metrics behind it, and ``iris core retire-node``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from support import ids
from support.admin import post
from support.cluster import Cluster, Node
from support.logs import BLOCK, flip
from support.server import Server, iris
from support.wait import PATIENCE, until


def status(*nodes: Server) -> tuple[int, dict[str, Any]]:
    """Return the exit code of ``iris status --json`` for these nodes, and what it printed."""
    admins = [arg for node in nodes for arg in ("--admin", node.admin)]
    done = iris("status", "--json", *admins)
    assert done.stderr == "", done.stderr
    return done.returncode, json.loads(done.stdout)


def names(seen: dict[str, Any]) -> list[str]:
    """Return the names of the problems."""
    return [problem["name"] for problem in seen["problems"]]


def told(wanted: set[str], *nodes: Server) -> dict[str, Any]:
    """Wait until ``iris status`` names these problems, and return what it printed."""
    last: list[dict[str, Any]] = []

    def is_told() -> bool:
        last[:] = [status(*nodes)[1]]
        return wanted <= set(names(last[0]))

    until(is_told, f"it names {wanted}")
    return last[0]


def page(node: Server) -> dict[str, Any]:
    """Return /status of a node."""
    with urllib.request.urlopen(f"http://{node.admin}/status", timeout=PATIENCE) as answer:
        assert answer.headers["content-type"] == "application/json"
        said: dict[str, Any] = json.load(answer)
        return said


# ---- a node alone


def test_a_node_alone_is_healthy_and_has_no_mirror(server: Server) -> None:
    with server.login("alice") as alice:
        assert alice.ask("bob", b"hello") == "accepted"
        until(lambda: page(server)["inboxes"]["messages"] == 1, "the message is counted")
        seen = page(server)
        assert seen["clients"]["logged_in"] == 1
    assert seen["roles"] == ["edge", "core"] and seen["phase"] == "ready" and seen["ready"] is True
    assert seen["mirror"] is None and seen["links"] is None
    code, all_seen = status(server)
    assert code == 0 and all_seen["healthy"] is True and all_seen["problems"] == []
    done = iris("status", "--admin", server.admin)
    assert done.returncode == 0 and done.stdout.endswith("\nhealthy\n"), done.stdout
    assert "1 messages wait" in done.stdout


def test_a_node_that_hangs_or_is_gone_is_told_within_seconds(server: Server) -> None:
    assert server.process
    server.pause()
    code, seen = status(server)
    assert code == 10 and names(seen) == ["unreachable"]
    assert "no answer within 5 s" in seen["nodes"][0]["error"]
    server.process.send_signal(signal.SIGCONT)
    until(lambda: status(server)[0] == 0, "it answers again")
    server.kill()
    code, seen = status(server)
    assert code == 10 and "connection refused" in seen["nodes"][0]["error"]


def test_a_node_alone_has_nobody_to_retire(server: Server) -> None:
    done = iris("core", "retire-node", "--node", "2", "--admin", server.admin, "--yes")
    assert done.returncode == 1 and "no core of a pair" in done.stderr
    code, said = post(server, "/retire?node=2")
    assert code == 404 and "not the mirror" in said["error"]
    assert post(server, "/retire?node=2", {"Origin": "http://example.com"})[0] == 403
    assert post(server, "/retire?node=2", tcp=True)[0] == 403
    assert status(server)[0] == 0


# ---- an edge and a core


def test_an_edge_shows_its_core_and_what_became_of_it(one_core: Cluster) -> None:
    edge, core = one_core.edges[0], one_core.cores[0]
    code, seen = status(edge, core)
    assert code == 0, seen
    of_edge, of_core = (node["status"] for node in seen["nodes"])
    link = of_edge["links"]["cores"][0]
    assert link["node"] == 1 and link["clients"]["up"] is True and link["serving_partitions"] == 2
    assert of_edge["roles"] == ["edge"] and of_edge["inboxes"] is None and of_edge["mirror"] is None
    assert of_core["roles"] == ["core"] and of_core["clients"] is None and of_core["links"]["cores"] == []

    core.kill()
    seen = told({"core_not_linked", "not_ready"}, edge)
    link = seen["nodes"][0]["status"]["links"]["cores"][0]
    assert link["clients"]["up"] is False and link["serving_partitions"] == 0
    assert link["clients"]["last_end"] in {"peer_closed", "io_error", "connect_failed"}
    shown = iris("status", "--admin", edge.admin)
    assert shown.returncode == 10 and "1: not linked, " in shown.stdout, shown.stdout
    assert set(names(status(edge, core)[1])) == {"core_not_linked", "not_ready", "unreachable"}

    core.start()
    until(lambda: status(edge, core)[0] == 0, "all is well again")
    assert page(edge)["links"]["cores"][0]["clients"]["came_up"] == 2


# ---- a pair


def mirror(node: Server) -> dict[str, Any]:
    """Return what a core says of its mirror."""
    said: dict[str, Any] = page(node)["mirror"] or {}
    return said


def is_normal(*cores: Server) -> bool:
    """Whether all of them have two copies of everything."""
    return all(mirror(core).get("state") == "normal" for core in cores)


def is_alone(core: Server) -> bool:
    """Whether each partition of a core goes on without its mirror."""
    partitions = mirror(core).get("partitions", [])
    return bool(partitions) and all(part["state"] == "solo" and not part["linked"] for part in partitions)


@pytest.fixture
def pair(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Return a running edge with two cores that mirror each other."""
    cluster = make_cluster(2, 1).start()
    until(lambda: is_normal(*cluster.cores), "both have two copies of everything")
    until(lambda: status(*cluster.nodes)[0] == 0, "all are healthy")
    return cluster


def send(edge: Node, count: int, msg_ids: list[bytes] | None = None, payload: bytes = b"x" * 100) -> None:
    """Have messages accepted, to users of all shards; under these ids if there are any."""
    with edge.login("sender") as sender:
        for number in range(count):
            msg_id = msg_ids[number] if msg_ids else ids.now()
            assert sender.ask(f"user-{number}", payload, msg_id=msg_id) == "accepted"


def test_a_pair_is_normal_then_solo_then_normal_again(pair: Cluster) -> None:
    one, two = pair.cores
    edge = pair.edges[0]
    send(edge, 50)
    code, seen = status(one, two)
    assert code == 0, seen
    for node, other in ((one, 2), (two, 1)):
        said = mirror(node)
        assert (said["node"], said["mode"], said["linked"]) == (other, "normal", True)
        assert said["retired"] is False and said["damaged"] is False and said["fenced_streams"] == 0
        assert len(said["partitions"]) == 2
    until(lambda: all(mirror(core)["one_copy_messages"] == 0 for core in pair.cores), "nothing has one copy only")

    def moved(counter: str) -> int:
        return sum(mirror(core)[counter] for core in pair.cores)

    until(lambda: min(moved("shipped_bytes"), moved("received_bytes")) >= 50 * 100, "what was sent is counted")
    assert one.metrics().sum("iris_mirror_state", state="normal") == 2
    assert one.metrics().sum("iris_mirror_linked") == 2

    failovers = mirror(two)["failovers"]
    one.kill()
    until(lambda: is_alone(two), "the other one goes on alone")
    send(edge, 30)
    until(lambda: mirror(two)["one_copy_messages"] >= 30, "they are counted")
    said = mirror(two)
    assert said["mode"] == "solo" and said["linked"] is False and said["failovers"] == failovers + 1
    assert said["lag"]["records"] >= 30
    assert said["last_failover"]["took_ms"] < PATIENCE * 1000
    assert abs(said["last_failover"]["unix_ms"] - page(two)["time_unix_ms"]) < PATIENCE * 1000
    metrics = two.metrics()
    assert metrics.sum("iris_mirror_state", state="solo") == 2 and metrics.sum("iris_mirror_linked") == 0
    assert metrics.sum("iris_mirror_one_copy_messages") >= 30
    assert metrics.sum("iris_mirror_failovers_total", partition="0") == failovers + 1
    code, seen = status(two, one, edge)
    assert code == 10 and {"solo", "unreachable", "core_not_linked"} == set(names(seen)), seen["problems"]
    shown = iris("status", "--admin", two.admin, "--admin", one.admin)
    assert shown.returncode == 10 and "solo, mode solo" in shown.stdout and "unreachable" in shown.stdout

    one.start()
    until(lambda: is_normal(one, two), "both have two copies again")
    until(lambda: status(one, two, edge)[0] == 0, "all are healthy")
    until(lambda: mirror(two)["one_copy_messages"] == 0 and mirror(two)["lag"]["records"] == 0, "nothing lags")
    assert mirror(two)["splits"] == 0 and mirror(one)["splits"] == 0


def test_two_cores_that_run_without_each_other_are_a_split_for_who_asks_both(pair: Cluster) -> None:
    one, two = pair.cores
    for core in (one, two):
        core.kill()
    two.start()
    until(lambda: is_alone(two), "it goes on alone")
    both, other = [ids.now() for _ in range(10)], [ids.now() for _ in range(4)]
    send(pair.edges[0], 10, both)
    send(pair.edges[0], 4, other, b"one")
    send(pair.edges[0], 3)
    assert two.process
    two.pause()
    try:
        one.start()
        until(lambda: is_alone(one), "it goes on alone, too")
        send(pair.edges[0], 10, both)
        send(pair.edges[0], 4, other, b"another")
        send(pair.edges[0], 5)
    finally:
        two.process.send_signal(signal.SIGCONT)
    until(lambda: is_normal(one, two), "they are one again")
    until(lambda: all(page(core)["inboxes"]["messages"] == 22 for core in (one, two)), "what both took is there once")
    until(lambda: mirror(one)["splits"] == 1 and mirror(two)["splits"] == 1, "both report the split")
    mine, theirs = mirror(one)["last_split"], mirror(two)["last_split"]
    assert (mine["mine"], mine["theirs"]) == (theirs["theirs"], theirs["mine"])
    assert (mine["mine"], mine["theirs"]) == (19, 17)
    until(
        lambda: all(mirror(core)["last_split"]["collapsed"] == 14 for core in (one, two)), "what both took is counted"
    )
    for core in (one, two):
        assert mirror(core)["last_split"]["conflicts"] == mirror(core)["conflicts"] == 4
        assert core.metrics().sum("iris_mirror_last_split_messages", kind="conflicts") == 4
        assert core.metrics().sum("iris_mirror_collapsed_total") == 14
        assert core.log().count("two messages under one id") == 4
    shown = iris("status", "--admin", one.admin, "--admin", two.admin)
    assert "mine 19, theirs 17, both 14, conflicts 4" in shown.stdout, shown.stdout
    assert "mine 17, theirs 19, both 14, conflicts 4" in shown.stdout, shown.stdout
    with pair.edges[0].login("user-0") as reader:
        payloads = [delivery.payload for delivery in reader.take(4)]
    assert len(set(payloads) & {b"one", b"another"}) == 1, "one of two under the same id is left"


def answered(answer: str, *args: str) -> tuple[int, str]:
    """Return the exit code and stdout of a command at whose terminal somebody types an answer."""
    terminal, typed = os.openpty()
    try:
        os.write(terminal, f"{answer}\n".encode())
        done = iris(*args, stdin=typed)
        return done.returncode, done.stdout
    finally:
        os.close(terminal)
        os.close(typed)


def test_a_mirror_that_never_comes_back_is_retired_and_a_linked_one_is_not(pair: Cluster) -> None:
    one, two = pair.cores
    done = iris("core", "retire-node", "--node", "1", "--admin", two.admin, "--yes")
    assert done.returncode == 1 and "node 1 is linked" in done.stderr, done.stderr
    code, said = post(two, "/retire?node=1")
    assert code == 409 and "stop it first" in said["error"]
    one.kill()
    until(lambda: is_alone(two), "the other one goes on alone")
    wrong = iris("core", "retire-node", "--node", "7", "--admin", two.admin, "--yes")
    assert wrong.returncode == 1 and "is node 1, not node 7" in wrong.stderr, wrong.stderr
    unasked = iris("core", "retire-node", "--node", "1", "--admin", two.admin)
    assert unasked.returncode == 1 and "--yes" in unasked.stderr and mirror(two)["retired"] is False
    code, said_no = answered("no", "core", "retire-node", "--node", "1", "--admin", two.admin)
    assert code == 1 and "Type 1 to go on" in said_no and mirror(two)["retired"] is False
    done = iris("core", "retire-node", "--node", "1", "--admin", two.admin, "--yes")
    assert done.returncode == 0, done.stderr
    assert "cannot be undone" in done.stdout and "node 1 is retired" in done.stdout
    assert mirror(two)["retired"] is True and two.metrics().sum("iris_mirror_retired") == 2
    send(pair.edges[0], 10)
    two.kill()
    two.start()
    until(lambda: is_alone(two), "it goes on alone again")
    assert mirror(two)["retired"] is True, "a restart does not forget it"

    # It comes back with what it had, and is not taken.
    one.start()
    until(lambda: mirror(two)["links_refused"].get("retired"), "it is refused")
    assert two.metrics().sum("iris_mirror_refused_total", reason="retired") >= 1
    assert mirror(two)["retired"] is True and mirror(two)["state"] == "solo"
    one.kill()
    ended = time.time()
    until(lambda: time.time() > ended + 1, "lives are told apart by the second")
    shutil.rmtree(one.data)
    one.start()
    until(lambda: is_normal(one, two), "empty, it is taken and filled")
    assert mirror(two)["retired"] is False

    # Again, this time typed.
    one.kill()
    until(lambda: is_alone(two), "the other one is alone again")
    assert answered("1", "core", "retire-node", "--node", "1", "--admin", two.admin)[0] == 0
    assert mirror(two)["retired"] is True
    ended = time.time()
    until(lambda: time.time() > ended + 1, "lives are told apart by the second")
    shutil.rmtree(one.data)
    one.start()
    until(lambda: is_normal(one, two), "it is filled")
    until(lambda: status(one, two)[0] == 0, "both are healthy")
    until(lambda: all(page(core)["inboxes"]["messages"] == 10 for core in (one, two)), "both have everything")


def test_a_damaged_log_is_told_until_the_mirror_has_given_back_what_it_lacks(pair: Cluster) -> None:
    one, two = pair.cores
    send(pair.edges[0], 40)
    one.kill()
    two.kill()
    payload = b"x" * 100
    segment = max(one.segments(), key=lambda path: path.read_bytes().count(payload))
    data = segment.read_bytes()
    places = [at for at in range(0, len(data), BLOCK) if payload in data[at : at + BLOCK]]
    flip(segment, data.index(payload, places[3]))
    one.start()
    seen = told({"damaged_log", "solo"}, one)
    assert "have not met since it started" in str(seen["problems"])
    assert seen["nodes"][0]["status"]["inboxes"]["unreadable_ranges"] >= 1
    assert one.metrics().sum("iris_mirror_damaged") >= 1
    two.start()
    until(lambda: status(one, two)[0] == 0, "the other one gave it back")
    assert mirror(one)["damaged"] is False and mirror(one)["lost_records"] == 0
    until(lambda: all(page(core)["inboxes"]["messages"] == 40 for core in (one, two)), "nothing is lost")


def test_a_core_that_ran_alone_becomes_one_of_a_pair(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(1, 1).start()
    one, edge = cluster.cores[0], cluster.edges[0]
    send(edge, 20)
    assert page(one)["mirror"] is None
    for node in (edge, one):
        assert node.stop(signal.SIGTERM) == 0
    two = Node(cluster, 2, ["core"])
    cluster.cores.append(two)
    for node in (one, two, edge):
        node.start()
    until(lambda: status(one, two, edge)[0] == 0, "all are healthy")
    until(lambda: page(two)["inboxes"]["messages"] == 20, "the new one is filled")
    one.kill()
    until(lambda: is_alone(two), "the new one goes on alone")
    with edge.login("user-7") as client:
        assert client.welcome and client.welcome.waiting == 1


def test_a_core_that_refuses_alone_is_not_well_though_its_state_is_normal(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(2, 0)
    for core in cluster.cores:
        core.more = {"cluster": {"when_alone": "refuse"}}
    one, two = cluster.start().cores
    until(lambda: status(one, two)[0] == 0, "both are healthy")
    one.kill()
    seen = told({"mirror_not_linked"}, two)
    assert mirror(two)["state"] == "normal" and mirror(two)["linked"] is False
    assert "away" in seen["problems"][0]["next"]
    one.start()
    until(lambda: status(one, two)[0] == 0, "both are healthy again")


def test_a_core_that_stops_in_order_says_so_and_leaves_nothing_with_one_copy(pair: Cluster) -> None:
    one, two = pair.cores
    send(pair.edges[0], 20)
    assert one.stop(signal.SIGTERM) == 0
    seen = told({"solo"}, two)
    assert seen["nodes"][0]["status"]["mirror"]["one_copy_messages"] == 0
    assert seen["nodes"][0]["status"]["mirror"]["lag"]["records"] <= 2, "but the change of mode itself"
    one.start()
    until(lambda: status(one, two)[0] == 0, "both are healthy again")


def test_a_log_that_grew_for_a_mirror_shrinks_once_it_is_retired(pair: Cluster) -> None:
    one, two = pair.cores
    one.kill()
    until(lambda: is_alone(two), "the other one goes on alone")

    def segments() -> float:
        return two.metrics().sum("iris_wal_segments", partition=partition)

    def reclaimed() -> float:
        return two.metrics().sum("iris_wal_reclaimed_segments_total", partition=partition)

    with pair.edges[0].login("alice") as alice:

        def use(count: int) -> bool:
            for _ in range(count):
                assert alice.ask("alice", b"x" * 60_000) == "accepted"
                (delivery,) = alice.take(1)
                alice.ack(delivery.no)
            alice.sync()
            return True

        use(1)
        until(lambda: two.metrics().sum("iris_acked_total") == 1, "it is known where alice lives")
        partition = "0" if two.metrics().sum("iris_acked_total", partition="0") else "1"
        before = segments()
        until(lambda: use(20) and segments() >= before + 10, "the log grows, although everything in it was read")
        assert reclaimed() == 0, "all of it is kept"
        done = iris("core", "retire-node", "--node", "1", "--admin", two.admin, "--yes")
        assert done.returncode == 0, done.stderr
        until(lambda: use(20) and reclaimed() >= 5, "what was kept for the mirror goes")
