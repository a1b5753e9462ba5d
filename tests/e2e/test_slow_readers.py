"""Clients that do not read: what waits for them is bounded, they end by name, and nothing is lost; nobody else notices."""

from __future__ import annotations

from collections.abc import Callable

from iris_client import _protocol as p
from support import ids
from support.client import Client
from support.cluster import Cluster
from support.server import Server
from support.wait import until
from support.witness import Witness

#: The kernel takes little for a client that does not read, so that what waits does so in the server.
TIGHT = {
    "IRIS_REACTOR__COUNT": "1",
    "IRIS_REACTOR__SEND_BUFFER": "8KiB",
    "IRIS_REACTOR__UNSENT_MAX": "4KiB",
    "IRIS_REACTOR__OUT_BYTES_MAX": "16KiB",
}
LARGE = 60_000


def deaf(server: Server, user: str, window: int = 1024) -> Client:
    """Return a client that has logged in and whose kernel takes little."""
    client = server.connect(rcvbuf=4096)
    client.login(user, server.token(user), window)
    return client


def fill(server: Server, user: str, count: int) -> None:
    """Have so many large messages accepted for a user."""
    with server.login("generous") as sender:
        for number in range(count):
            assert sender.ask(user, number.to_bytes(4, "big") + bytes(LARGE)) == "accepted"


def numbers(client: Client) -> list[int]:
    """Take everything that waits, and return which messages that was."""
    return [int.from_bytes(delivery.payload[:4], "big") for delivery in client.drain_inbox()]


def refused(first: int, count: int) -> bytes:
    """Return SENDs that are refused at once, each by an answer of its own."""
    name = p.encode_name("nobody")
    return b"".join(p.encode_send(seq, bytes(16), 0, name, 1, b"") for seq in range(first, first + count))


def send_until_left_unread(server: Server, client: Client) -> int:
    """Send and never read until the server leaves that unread; return how many SENDs it was given."""
    sent = 0

    def is_left() -> bool:
        nonlocal sent
        client.raw(refused(sent, 100))
        sent += 100
        return server.metrics().sum("iris_reads_paused_total") > 0

    until(is_left, "it is left unread", every=0.002)
    return sent


def changed(client: Client, user: str) -> bool:
    """Whether a change of a user was told; looks once more."""
    client.sync()
    return any(who == user for report in client.presence if report.query == 0 for _, _, who in report.entries)


def test_a_reader_that_stops_is_ended_in_time_and_finds_its_messages_at_the_next_login(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({**TIGHT, "IRIS_REACTOR__SLOW_TIMEOUT": "3s"}).start()
    with deaf(server, "sleepy") as sleepy, Witness(server) as witness:
        fill(server, "sleepy", 20)
        until(lambda: server.metrics().closed("slow_reader") == 1, "it is ended")
        port = sleepy.address[1]
        until(lambda: all(there != port for there, _ in server.sockets()), "its socket is closed")
        witness.check()
    until(lambda: server.metrics().sum("iris_client_backlog_bytes") == 0, "nothing is kept for it")
    with server.login("sleepy") as client:
        assert client.welcome and client.welcome.waiting == 20
        assert numbers(client) == list(range(20))


def test_a_slow_reader_that_goes_on_reading_is_not_ended(make_server: Callable[..., Server]) -> None:
    """Each piece that it takes counts, also in the middle of a message."""
    server = make_server({**TIGHT, "IRIS_REACTOR__SLOW_TIMEOUT": "10s"}).start()
    with deaf(server, "slow") as slow:
        fill(server, "slow", 2)
        turns = 0

        def takes_a_little() -> bool:
            nonlocal turns
            data = slow.socket.recv(4096)
            for kind, body in slow.reader.feed(data):
                slow.file(p.decode_server(kind, body))
            turns += 1
            return len(slow.inbox) == 2

        # A sip every 400 ms: 12 s in all, longer than a client may take nothing.
        until(takes_a_little, "both messages are there", every=0.4)
        assert turns > 20
    assert server.metrics().closed("slow_reader") == 0


def test_a_sender_that_reads_no_answers_is_left_unread_and_then_ended(make_server: Callable[..., Server]) -> None:
    server = make_server({**TIGHT, "IRIS_REACTOR__SLOW_TIMEOUT": "20s"}).start()
    with deaf(server, "rude") as rude, Witness(server) as witness:
        sent = send_until_left_unread(server, rude)
        rude.raw(refused(sent, 1000))
        assert server.metrics().sum("iris_client_backlog_bytes") < 64 << 10
        until(lambda: server.metrics().closed("slow_reader") == 1, "it is ended")
        assert server.metrics().rejected("id_not_v7") < sent + 1000, "not all of it was read"
        witness.check()


def test_a_sender_that_reads_its_answers_late_is_read_again_and_gets_all_of_them(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({**TIGHT, "IRIS_REACTOR__SLOW_TIMEOUT": "5m"}).start()
    with deaf(server, "late") as late:
        sent = send_until_left_unread(server, late)
        late.raw(refused(sent, 1000))
        late.pump(lambda: len(late.answers) == sent + 1000)
        assert set(late.answers.values()) == {"id_not_v7"}
        late.next_seq = sent + 1000
        assert late.ask("late", b"as before") == "accepted"
    assert server.metrics().closed("slow_reader") == 0


def test_when_too_much_waits_for_all_those_who_stopped_reading_go(make_server: Callable[..., Server]) -> None:
    env = {**TIGHT, "IRIS_REACTOR__SLOW_TIMEOUT": "5m", "IRIS_REACTOR__OUT_TOTAL_MAX": "1MiB"}
    server = make_server(env).start()
    with Witness(server) as witness:
        sleepers = [deaf(server, f"sleepy{number}") for number in range(12)]
        for number in range(12):
            fill(server, f"sleepy{number}", 5)
        until(lambda: server.metrics().closed("slow_reader") > 0, "some are ended")
        until(lambda: server.metrics().sum("iris_client_backlog_bytes") <= 1 << 20, "there is room again")
        witness.check()
        for client in sleepers:
            client.close()
    for number in range(12):
        with server.login(f"sleepy{number}") as client:
            assert numbers(client) == list(range(5))


def test_changes_for_a_reader_that_stopped_are_told_once_for_each_user(make_server: Callable[..., Server]) -> None:
    server = make_server({**TIGHT, "IRIS_REACTOR__SLOW_TIMEOUT": "5m"}).start()
    with deaf(server, "watcher") as watcher:
        watcher.query(1, ["coming", "going"], watch=True)
        watcher.pump(lambda: watcher.presence)
        fill(server, "watcher", 3)
        until(lambda: server.metrics().sum("iris_client_backlog_bytes") > LARGE, "something is being sent to it")
        replaced = lambda: server.metrics().sum("iris_presence_conflated_total")  # noqa: E731
        for number in range(20):
            server.login("going").close()
            # Of the first login and logout the first is replaced, of each further pair both.
            until(lambda: replaced() == 2 * number + 1, "it has gone", every=0.002)  # noqa: B023 - called at once
        with server.login("coming"):
            watcher.take(3)
            watcher.sync()
            until(lambda: changed(watcher, "coming"), "it is told", every=0)
            changes = [entry for report in watcher.presence if report.query == 0 for entry in report.entries]
            assert {who: state for state, _, who in changes} == {"coming": p.ONLINE, "going": p.OFFLINE}
            assert len(changes) == 2, "one for each"


def test_more_than_is_read_at_a_time_comes_from_disk_and_nothing_is_lost(make_server: Callable[..., Server]) -> None:
    """200 users with 5 large messages each: 60 MB, all asked for at once, none of it in memory."""
    env = {"IRIS_WAL__RECENT_WINDOW": "0B", "IRIS_REACTOR__COUNT": "1", "IRIS_REACTOR__SLOW_TIMEOUT": "5m"}
    server = make_server(env).start()
    users = [f"u{number}" for number in range(200)]
    with server.login("generous") as sender:
        for number in range(5):
            assert sender.ask(users, number.to_bytes(4, "big") + bytes(LARGE)) == "accepted"
    server.restart()
    clients = [deaf(server, user) for user in users]
    for client in clients:
        assert [int.from_bytes(one.payload[:4], "big") for one in client.take(5)] == list(range(5))
        client.close()
    assert server.metrics().sum("iris_disk_reads_total") >= 1000


def test_a_reader_that_stops_behind_an_edge_keeps_its_messages_over_a_failover(
    make_cluster: Callable[..., Cluster],
) -> None:
    pair = make_cluster(2, 1)
    (edge,) = pair.edges
    edge.more["reactor"] = {"send_buffer": "8KiB", "unsent_max": "4KiB", "slow_timeout": "5s"}
    pair.start()
    until(lambda: all(core.metrics().sum("iris_mirror_linked") == 2 for core in pair.cores), "a pair")
    with deaf(edge, "sleepy"):
        fill(edge, "sleepy", 10)
        pair.cores[0].kill()
        fill_more = [ids.now() for _ in range(3)]
        with edge.login("later") as sender:
            for place, msg_id in enumerate(fill_more):
                payload = (10 + place).to_bytes(4, "big") + bytes(LARGE)
                until(lambda: sender.ask("sleepy", payload, msg_id=msg_id) == "accepted", "the other core takes it")
        until(lambda: edge.metrics().closed("slow_reader") == 1, "it is ended")
    with edge.login("sleepy") as client:
        seen = numbers(client)
    assert sorted(set(seen)) == list(range(13)) and len(seen) == 13
