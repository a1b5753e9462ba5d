"""Limits of inboxes: by messages, bytes and age, of one inbox and of a node; what is refused, and what is dropped."""

from __future__ import annotations

from collections.abc import Callable

from support.client import Client
from support.cluster import Cluster, Node
from support.server import Server
from support.wait import until

DROPS = {"IRIS_CORE__INBOX_MESSAGES_MAX": "10", "IRIS_CORE__INBOX_MESSAGES_WHEN_FULL": "drop-oldest"}
USERS = [f"user-{number}" for number in range(8)]


def look(server: Server, user: str) -> list[bytes]:
    """Return what waits for a user; nothing is acknowledged."""
    with server.login(user) as client:
        assert client.welcome is not None
        return [delivery.payload for delivery in client.take(client.welcome.waiting)]


def fill(sender: Client, user: str, numbers: range) -> None:
    """Have a message of each number accepted."""
    for number in numbers:
        assert sender.ask(user, b"%d" % number) == "accepted"


def payloads(numbers: range) -> list[bytes]:
    """Return what messages of these numbers say."""
    return [b"%d" % number for number in numbers]


def test_an_inbox_of_bytes_refuses_and_takes_again_once_it_was_read(make_server: Callable[..., Server]) -> None:
    server = make_server({"IRIS_CORE__INBOX_BYTES_MAX": "64KiB"}).start()
    with server.login("a") as a:
        assert a.ask("b", bytes(40_000)) == "accepted"
        assert a.ask("b", bytes(40_000)) == "accepted", "there was room when it came"
        assert a.ask("b", b"") == "inbox_full"
        assert a.ask("c", b"") == "accepted"
        assert server.metrics().rejected("inbox_full") == 1
        until(lambda: server.metrics().sum("iris_inbox_highest_bytes") > 80_000, "the fullest inbox is shown")
        with server.login("b") as b:
            b.take(2)
            b.ack(1)
            b.sync()
            until(lambda: a.ask("b", b"again") == "accepted", "there is room")


def test_a_node_that_is_full_refuses_and_says_so_in_its_metrics(make_server: Callable[..., Server]) -> None:
    server = make_server({"IRIS_CORE__MESSAGES_MAX": "20", "IRIS_CORE__PARTITIONS": "1"}).start()
    with server.login("a") as a:
        for number in range(20):
            assert a.ask(f"user-{number}", b"") == "accepted"
        assert a.ask("one more", b"") == "overloaded"
        assert a.ask("user-1", b"") == "overloaded"
    assert server.metrics().rejected("node_full") == 2 and server.metrics().rejected("overloaded") == 0
    with server.login("user-1") as user:
        user.drain_until_empty(1)
    with server.login("a") as a:
        until(lambda: a.ask("one more", b"") == "accepted", "there is room again")


def test_the_oldest_gives_way_and_does_not_come_back_after_kill_9(make_server: Callable[..., Server]) -> None:
    server = make_server(DROPS).start()
    with server.login("a") as a:
        fill(a, "b", range(25))
    assert look(server, "b") == payloads(range(15, 25))
    dropped = lambda: server.metrics().sum("iris_dropped_total", reason="inbox_full")  # noqa: E731
    until(lambda: dropped() == 15, "what was dropped is counted")
    server.restart()
    assert look(server, "b") == payloads(range(15, 25))
    # What it has in hand is not dropped until the server has seen it go.
    until(lambda: server.metrics().sum("iris_users_online") == 0, "nobody is online")
    with server.login("a") as a:
        fill(a, "b", range(25, 28))
    assert look(server, "b") == payloads(range(18, 28))


def test_what_a_reader_has_in_hand_is_not_dropped(make_server: Callable[..., Server]) -> None:
    server = make_server(DROPS).start()
    with server.login("a") as a, server.login("b", window=4) as b:
        fill(a, "b", range(20))
        in_hand = [delivery.payload for delivery in b.take(4)]
        assert in_hand == payloads(range(4))
        b.ack(4)
        b.sync()
        rest = [delivery.payload for delivery in b.take(4)]
        b.ack(8)
        rest += [delivery.payload for delivery in b.take(2)]
        assert rest == payloads(range(14, 20)), "the oldest of those that waited went"


def test_what_waited_too_long_goes_and_stays_gone(make_server: Callable[..., Server]) -> None:
    server = make_server({"IRIS_CORE__MESSAGE_AGE_MAX": "10s"}).start()
    with server.login("a") as a:
        fill(a, "b", range(5))
        dropped = lambda: server.metrics().sum("iris_dropped_total", reason="expired")  # noqa: E731
        until(lambda: dropped() == 5, "they have waited too long")
        fill(a, "b", range(5, 7))
    server.restart()
    assert look(server, "b") == payloads(range(5, 7))


def pair_of(make_cluster: Callable[..., Cluster], **keys: object) -> tuple[Cluster, Node]:
    """Return a running pair whose cores have these limits, and its edge."""
    pair = make_cluster(2, 1)
    for core in pair.cores:
        core.more["core"] = keys
    pair.start()
    until(lambda: all(is_normal(core) for core in pair.cores), "both cores have everything")
    return pair, pair.edges[0]


def is_normal(core: Node) -> bool:
    """Whether all partitions of a core have two copies of everything."""
    return core.metrics().sum("iris_mirror_state", state="normal") == 2


def test_both_cores_drop_the_same_and_nothing_comes_back_after_failovers(make_cluster: Callable[..., Cluster]) -> None:
    pair, edge = pair_of(make_cluster, inbox_messages_max=10, inbox_messages_when_full="drop-oldest")
    with edge.login("sender") as sender:
        for user in USERS:
            fill(sender, user, range(25))
    for victim in (0, 1):
        pair.cores[victim].kill()
        for user in USERS:
            assert look(edge, user) == payloads(range(15, 25)), f"without core {victim + 1}"
        pair.cores[victim].start()
        until(lambda: all(is_normal(core) for core in pair.cores), "both cores have everything")
    with edge.login("sender") as sender:
        for user in USERS:
            fill(sender, user, range(25, 30))
            assert look(edge, user) == payloads(range(20, 30))


def test_an_inbox_that_is_full_is_full_on_the_other_core_too(make_cluster: Callable[..., Cluster]) -> None:
    pair, edge = pair_of(make_cluster, inbox_messages_max=10)
    with edge.login("sender") as sender:
        for user in USERS:
            fill(sender, user, range(10))
            assert sender.ask(user, b"too many") == "inbox_full"
        pair.cores[0].kill()
        for user in USERS:
            until(lambda: sender.ask(user, b"too many") == "inbox_full", "the other core refuses, too")
    for user in USERS:
        assert look(edge, user) == payloads(range(10))
