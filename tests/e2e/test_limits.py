"""What one process holds: more connections than descriptors, as many as configured, and inboxes of any length; and how
fast clients may connect, log in and send."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from typing import Any

import pytest
from iris_client import _protocol as p
from support import confine, ids
from support.admin import post
from support.client import Client, Closed
from support.crowd import Crowd, allow_descriptors
from support.server import Server
from support.wait import until


def test_one_process_holds_more_connections_than_its_limit_of_open_files(
    make_server: Callable[..., Server],
) -> None:
    files, count = 320, 3000
    allow_descriptors(count + 500)
    server = make_server(
        {"IRIS_REACTOR__COUNT": "1", "IRIS_CORE__PARTITIONS": "1", "IRIS_REACTOR__CONNECTIONS_MAX": "4000"}
    )
    server.before = confine.limit(resource.RLIMIT_NOFILE, files)
    server.start()
    with Crowd(server.tcp) as crowd:
        for i in range(count):
            crowd.join(1, p.encode_hello("", "", server.token(f"u{i}"), 16))
        crowd.listen(lambda: len(crowd.welcomed) == count, "all are logged in")
        metrics = server.metrics()
        assert metrics.sum("iris_connections_logged_in") == count
        assert metrics.sum("iris_process_open_fds") < files
        until(lambda: server.metrics().sum("iris_rings") >= count // files, "several rings are used")
        # Those of the last ring are served like those of the first.
        with server.login("sender") as sender:
            for i in range(0, count, 100):
                assert sender.ask(f"u{i}", b"here?") == "accepted"
        crowd.listen(lambda: crowd.deliveries == count // 100, "messages reach all rings")
    # The slots are used again.
    until(lambda: server.metrics().sum("iris_connections") == 0, "all are gone")
    with Crowd(server.tcp) as crowd:
        for i in range(500):
            crowd.join(1, p.encode_hello("", "", server.token(f"u{i}"), 16))
        crowd.listen(lambda: len(crowd.welcomed) == 500, "they are logged in again")


def test_a_connection_beyond_the_configured_number_is_told_so(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({"IRIS_REACTOR__COUNT": "1", "IRIS_REACTOR__CONNECTIONS_MAX": "20"}).start()
    held = [server.login(f"u{i}") for i in range(20)]
    with server.connect() as beyond:
        assert beyond.end() == "connection_limit"
        assert beyond.error and beyond.error.retry_after_ms > 0
    assert server.metrics().closed("connection_limit") == 1
    held.pop().close()

    def gets_in() -> bool:
        client = server.connect()
        try:
            client.login("late", server.token("late"))
            return True
        except Exception:  # noqa: BLE001 - it is asked again
            return False
        finally:
            client.close()

    until(gets_in, "there is room again", 10, 0.05)
    for client in held:
        client.sync()
        client.close()


def fill(server: Server, user: str, count: int) -> None:
    """Put so many small messages into an inbox, a window at a time."""
    with server.login("filler") as filler:
        name = p.encode_name(user)
        for start in range(0, count, 250):
            seqs = range(start, min(start + 250, count))
            filler.raw(
                b"".join(p.encode_send(seq, ids.now(), 0, name, 1, seq.to_bytes(4, "big")) for seq in seqs)
            )
            filler.pump(lambda: len(filler.answers) == len(seqs))
            assert set(filler.answers.values()) == {"accepted"}
            filler.answers.clear()


def read(client: Client, seen: int, upto: int) -> None:
    """Take messages in order, from one number up to another, and acknowledge them."""
    for number in range(seen, upto):
        client.pump(lambda: client.inbox)
        delivery = client.inbox.popleft()
        assert int.from_bytes(delivery.payload, "big") == number
    client.ack(delivery.no)


def exchange(a: Client, b: Client, payload: bytes) -> None:
    """One message from one to the other: accepted, delivered, acknowledged."""
    assert a.ask(b.user, payload) == "accepted"
    (delivery,) = b.take(1)
    assert delivery.payload == payload
    b.ack(delivery.no)


def test_a_hundred_thousand_waiting_messages_stream_while_others_are_served(
    make_server: Callable[..., Server],
) -> None:
    """Also from disk: the server is killed in between, and keeps 1 MiB of its log in memory.

    One thread plays all clients. Before each exchange of two others, the reader of the stream makes room for more of it
    and stops reading: whatever of the server waited for the stream would wait for ever, and the exchange with it.
    """
    count, step = 100_000, 256
    server = make_server({"IRIS_WAL__RECENT_WINDOW": "1MiB", "IRIS_WAL__SEGMENT_SIZE": "8MiB"}).start()
    fill(server, "big", count)
    server.restart()
    with server.login("a") as a, server.login("b") as b, server.connect(rcvbuf=4096) as big:
        big.login("big", server.token("big"), 1024)
        assert big.welcome and big.welcome.waiting == count
        for seen in range(0, count, step):
            exchange(a, b, b"while %d were read" % seen)
            read(big, seen, min(seen + step, count))
        big.sync()
        assert not big.inbox
    until(lambda: server.metrics().sum("iris_disk_reads_total") > count / 2, "most came from disk")
    with server.login("big") as client:
        assert client.welcome and client.welcome.waiting == 0


# ---- how fast clients may connect, log in and send

Limited = Callable[..., Server]


@pytest.fixture
def limited(make_server: Callable[..., Server]) -> Limited:
    """Return a maker of running servers with these limits and one reactor, so that what is shared out is whole.

    Rates are by the minute or the hour: on a machine that is busy with other things, too, no time passes that matters.
    """

    def start(**limits: str | int) -> Server:
        env = {f"IRIS_LIMITS__{name.upper()}": str(value) for name, value in limits.items()}
        return make_server({"IRIS_REACTOR__COUNT": "1", **env}).start()

    return start


def hits(server: Server, limit: str) -> int:
    """Return how often that limit refused something."""
    return int(server.metrics().sum("iris_limited_total", limit=limit))


def send_many(client: Client, count: int, payload: bytes = b"") -> list[str]:
    """Send so many at once, and return the answers in order."""
    seqs = [client.send(client.user, payload) for _ in range(count)]
    return [client.answer(seq) for seq in seqs]


def assert_sent_away(client: Client, code: str) -> int:
    """The server ends the connection with that code; return when the client may come again."""
    with client:
        assert client.end() == code
        assert client.error and client.error.retry_after_ms >= 1000
        return client.error.retry_after_ms


def test_sends_over_the_rate_of_a_connection_are_refused_and_told_when_each_may_come_again(
    limited: Limited,
) -> None:
    server = limited(connection_messages="60/h burst 10")
    with server.login("a", 0) as a:
        assert send_many(a, 13) == ["accepted"] * 10 + ["send_rate"] * 3
        waits = [a.retry_after_ms[seq] for seq in (10, 11, 12)]
        # One in a minute; nobody is told a longer wait than a minute.
        assert all(50_000 < wait <= 60_000 for wait in waits) and waits == sorted(waits)
        a.sync()
        with server.login("b", 0) as b:
            assert b.ask("b") == "accepted"
    assert server.metrics().rejected("send_rate") == hits(server, "connection_messages") == 3


def test_a_send_that_was_refused_for_its_rate_gets_in_under_its_id_when_it_comes_again(
    limited: Limited,
) -> None:
    server = limited(connection_messages="20/s burst 1")
    with server.login("a") as a:
        for number in range(5):
            msg_id = ids.now()
            until(lambda: a.ask("a", b"%d" % number, msg_id=msg_id) == "accepted", "it gets in")
        assert [delivery.payload for delivery in a.take(5)] == [b"%d" % number for number in range(5)]
        a.sync()
        assert not a.inbox


def test_bytes_over_the_rate_of_a_connection_are_refused(limited: Limited) -> None:
    server = limited(connection_bytes="128KiB/h burst 160KiB")
    with server.login("a", 0) as a:
        # Two fit; then a small one does still, because what is refused takes nothing.
        assert send_many(a, 3, bytes(60_000)) == ["accepted", "accepted", "send_rate"]
        assert a.ask("a", bytes(1000)) == "accepted"
    assert hits(server, "connection_bytes") == 1


@pytest.mark.parametrize("end", ["close", "abort", "replace"])
@pytest.mark.parametrize("limit", ["user_messages", "user_bytes"])
def test_a_user_who_comes_back_goes_on_where_the_last_connection_ended(
    limited: Limited, limit: str, end: str
) -> None:
    rates = {"user_messages": "60/h burst 10", "user_bytes": "600KiB/h burst 600KiB"}
    server = limited(**{limit: rates[limit]})
    first = server.login("a", 0)
    assert send_many(first, 6, bytes(60_000)) == ["accepted"] * 6
    if end != "replace":
        getattr(first, end)()
        until(lambda: server.metrics().sum("iris_connections") == 0, "it is gone")
    with server.login("a", 0) as again, server.login("b", 0) as other:
        assert send_many(again, 5, bytes(60_000)) == ["accepted"] * 4 + ["send_rate"]
        assert send_many(other, 6, bytes(60_000)) == ["accepted"] * 6
    first.close()
    assert hits(server, limit) == 1


def test_who_goes_on_far_beyond_the_rate_is_closed_as_a_flood(limited: Limited) -> None:
    server = limited(connection_messages="1/h burst 1", flood_factor=1)
    with server.login("a", 0) as a, server.login("b", 0) as b:
        answers: list[str] = []
        with pytest.raises(Closed) as closed:
            while True:
                answers += send_many(a, 200)
        assert closed.value.code == "flood" and closed.value.error
        assert closed.value.error.retry_after_ms > 0
        assert answers == ["accepted"] + ["send_rate"] * (len(answers) - 1) and len(answers) >= 800
        b.sync()
    assert server.metrics().closed("flood") == hits(server, "flood_factor") == 1


def test_frames_that_cannot_be_refused_count_and_their_flood_is_closed(limited: Limited) -> None:
    server = limited(connection_messages="1/h burst 1", flood_factor=1)
    with server.login("a", 0) as a:
        with pytest.raises(Closed) as closed:
            for _ in range(2000):
                a.sync()
        assert closed.value.code == "flood"
        assert len(a.pongs) >= 1000


def test_acknowledging_what_others_send_is_no_flood(limited: Limited) -> None:
    server = limited(connection_messages="2000/m burst 2000", flood_factor=1)
    with server.login("reader") as reader, server.login("sender", 0) as sender:
        for number in range(1500):
            assert sender.ask("reader", b"%d" % number) == "accepted"
            reader.ack(reader.take(1)[0].no)
        reader.sync()
        assert reader.error is None
    assert server.metrics().closed("flood") == 0


def test_logins_of_a_user_over_their_rate_are_sent_away(limited: Limited) -> None:
    server = limited(user_logins="60/h burst 2")
    with server.login("a", 0), server.login("b", 0):
        server.login("a", 0).close()
        third = server.connect()
        third.hello("a", server.token("a"))
        assert assert_sent_away(third, "login_rate") > 50_000
        with server.login("c", 0) as c:
            c.sync()
    assert server.metrics().closed("login_rate") == hits(server, "user_logins") == 1


def test_connections_over_the_rate_of_the_node_are_sent_away_before_anything_is_read(
    limited: Limited,
) -> None:
    server = limited(accepts="60/h burst 3")
    with server.login("a", 0) as a, server.login("b", 0) as b, server.connect():
        for _ in range(5):
            assert assert_sent_away(server.connect(), "login_rate") > 50_000
        assert a.ask("b") == "accepted"
        b.sync()
    metrics = server.metrics()
    assert metrics.closed("login_rate") == hits(server, "accepts") == 5
    assert metrics.sum("iris_connections_shed_total") == 0


def test_a_flood_of_connections_is_counted_told_or_shed_and_who_is_there_goes_on(
    limited: Limited,
) -> None:
    count = 3000
    allow_descriptors(count + 500)
    server = limited(accepts="60/h burst 2")
    with server.login("a", 0) as a, server.login("b", 0) as b:
        with Crowd(server.tcp) as crowd:
            crowd.join(count)
            crowd.listen(lambda: crowd.endings.total() == count, "all are gone")
        assert a.ask("b") == "accepted"
        b.sync()
        assert set(crowd.endings) <= {"login_rate", "no word"}
        metrics = server.metrics()
        assert metrics.closed("login_rate") == hits(server, "accepts") == count
        until(lambda: server.metrics().sum("iris_connections") == 2, "nothing of them is left")


def test_silent_connections_over_the_budget_of_logins_are_sent_away_until_one_logs_in_or_leaves(
    limited: Limited,
) -> None:
    server = limited(pending_logins_max=3)
    with server.login("a", 0), server.connect() as one, server.connect() as two, server.connect():
        assert_sent_away(server.connect(), "login_rate")
        one.login("one", server.token("one"))
        with server.connect() as four:
            assert_sent_away(server.connect(), "login_rate")
            two.close()
            until(lambda: server.metrics().sum("iris_connections") == 4, "it is gone")
            with server.connect() as five:
                five.login("five", server.token("five"))
                four.login("four", server.token("four"))
    assert hits(server, "pending_logins_max") == 2


def test_connections_over_the_rate_of_a_prefix_are_sent_away_and_other_prefixes_are_not(
    limited: Limited,
) -> None:
    server = limited(prefix_accepts="60/h burst 2")
    with server.connect(source="127.0.1.1"), server.connect(source="127.0.1.2"):
        assert assert_sent_away(server.connect(source="127.0.1.3"), "login_rate") > 50_000
        with server.login("a", 0, source="127.0.2.1") as a:
            a.sync()
    assert hits(server, "prefix_accepts") == 1


def test_logins_over_the_rate_of_a_prefix_are_sent_away_before_their_token_is_looked_at(
    limited: Limited,
) -> None:
    server = limited(prefix_logins="60/h burst 2")
    with server.login("a", 0, source="127.0.1.1"), server.connect(source="127.0.1.2") as bad:
        bad.hello("b", "no.token.atall")
        assert bad.end() == "token_malformed"
        third = server.connect(source="127.0.1.3")
        third.hello("b", "no.token.atall")
        assert assert_sent_away(third, "login_rate") > 50_000
        with server.login("c", 0, source="127.0.2.1") as c:
            c.sync()
    assert hits(server, "prefix_logins") == 1


def test_connections_of_a_prefix_over_its_number_are_sent_away_until_one_leaves(
    limited: Limited,
) -> None:
    server = limited(prefix_connections_max=2, prefix_v4=16)
    with server.login("a", 0, source="127.1.0.1"), server.connect(source="127.1.200.1") as second:
        assert_sent_away(server.connect(source="127.1.3.3"), "connection_limit")
        with server.login("b", 0, source="127.2.0.1") as b:
            b.sync()
        second.close()
        until(lambda: server.metrics().sum("iris_connections") == 1, "it is gone")
        with server.login("c", 0, source="127.1.3.3") as c:
            c.sync()
    assert hits(server, "prefix_connections_max") == 1


def test_without_limits_nothing_is_kept_of_anybody(limited: Limited) -> None:
    server = limited()
    with server.login("a", 0) as a:
        assert set(send_many(a, 250)) == {"accepted"}
    metrics = server.metrics()
    assert metrics.sum("iris_limits_table_bytes") == metrics.sum("iris_limited_total") == 0


# ---- other limits without a restart


def reload(server: Server, **headers: str) -> tuple[int, Any]:
    """Ask for a reload; return status and answer."""
    return post(server, "/reload", headers)


@pytest.fixture
def configured(make_server: Callable[..., Server]) -> tuple[Server, Callable[[str], int]]:
    """Return a running server with a configuration file, and what writes another one."""
    server = make_server({"IRIS_REACTOR__COUNT": "2"})
    file = server.home / "iris.toml"
    file.write_text('[limits]\nconnection_messages = "1/h burst 1"\n')
    server.args = ["--config", str(file)]
    return server.start(), file.write_text


def test_limits_that_are_reloaded_take_hold_of_open_connections_on_every_reactor(
    configured: tuple[Server, Callable[[str], int]],
) -> None:
    server, write = configured
    clients = [server.login(f"u{number}", 0) for number in range(8)]
    assert [send_many(client, 2) for client in clients] == [["accepted", "send_rate"]] * 8
    write('[limits]\nconnection_messages = "off"\npending_logins_max = 7\n')
    applied = ["limits.connection_messages", "limits.pending_logins_max"]
    assert reload(server) == (200, {"generation": 2, "applied": applied, "needs_restart": []})
    assert [send_many(client, 9) for client in clients] == [["accepted"] * 9] * 8
    # What was used up under the old limit stays used up: one of four.
    write('[limits]\nconnection_messages = "1/h burst 4"\n')
    assert server.process
    server.process.send_signal(signal.SIGHUP)
    until(lambda: server.metrics().sum("iris_limits_revision") == 6, "both reactors have taken it")
    for client in clients:
        assert send_many(client, 4) == ["accepted"] * 3 + ["send_rate"]
        client.close()


def test_a_reload_names_what_needs_a_restart_and_problems_change_nothing(
    configured: tuple[Server, Callable[[str], int]],
) -> None:
    server, write = configured
    write('[limits]\nconnection_messages = "1/h burst 1"\nprefix_v6 = 48\n[core]\ndedup_window = "2h"\n')
    needs_restart = ["core.dedup_window", "limits.prefix_v6"]
    answer = {"generation": 2, "applied": [], "needs_restart": needs_restart}
    assert reload(server) == (200, answer)
    until(lambda: "needs a restart" in server.log(), "it is logged, too")
    write('[limits]\nconnection_messages = "off"\naccepts = "often"\n')
    status, answer = reload(server)
    assert (status, [problem["line"] for problem in answer["problems"]]) == (422, [3])
    assert reload(server, Origin="http://elsewhere")[0] == 403
    with server.login("a", 0) as a:
        assert send_many(a, 2) == ["accepted", "send_rate"]
