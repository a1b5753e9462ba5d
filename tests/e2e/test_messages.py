"""What docs/PROTOCOL.md promises of messages: once, in order, to whom they are for, within windows, across crashes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest
from iris_client import _protocol as p
from support import ids
from support.client import Client, Closed, NotYet
from support.server import Server
from support.wait import until

ENV = {"IRIS_CORE__PARTITIONS": "4", "IRIS_REACTOR__COUNT": "3"}

_number = itertools.count()


@pytest.fixture
def name() -> Callable[[str], str]:
    """Return a maker of names that no other test uses."""
    number = next(_number)
    return lambda who: f"{who}-{number}"


def entries(server: Server, user: str) -> list[p.Delivery]:
    """Log in, take all that waits and leave it gone."""
    with server.login(user) as client:
        return client.drain_inbox()


def payloads(deliveries: list[p.Delivery]) -> list[bytes]:
    return [delivery.payload for delivery in deliveries]


# ---- once


def test_a_retry_makes_no_second_entry_wherever_it_is_made(server: Server) -> None:
    msg_id = ids.now()
    with server.login("a") as a:
        assert a.ask("b", b"first", msg_id=msg_id) == "accepted"
        assert a.ask("b", b"first", msg_id=msg_id) == "accepted"
    with server.login("a") as a:
        assert a.ask("b", b"first", msg_id=msg_id) == "accepted"
    server.restart()
    with server.login("a") as a:
        assert a.ask("b", b"first", msg_id=msg_id) == "accepted"
    assert server.stop() == 0
    server.start()
    with server.login("a") as a:
        assert a.ask("b", b"first", msg_id=msg_id) == "accepted"
    until(lambda: server.metrics().sum("iris_duplicates_total") == 1, "the repeat is counted")
    assert payloads(entries(server, "b")) == [b"first"]


def test_a_retry_after_the_message_was_acknowledged_does_not_bring_it_back(
    server: Server,
) -> None:
    msg_id = ids.now()
    with server.login("a") as a, server.login("b") as b:
        assert a.ask("b", b"once", msg_id=msg_id) == "accepted"
        b.ack(b.take(1)[0].no)
        b.sync()
        assert a.ask("b", b"once", msg_id=msg_id) == "accepted"
    assert entries(server, "b") == []
    assert server.stop() == 0
    server.start()
    with server.login("a") as a:
        assert a.ask("b", b"once", msg_id=msg_id) == "accepted"
    assert entries(server, "b") == []


def test_many_retries_under_way_at_once_make_one_entry(
    shared: Server, name: Callable[[str], str]
) -> None:
    msg_id = ids.now()
    with shared.login(name("a")) as a:
        seqs = [a.send(name("b"), b"same", msg_id=msg_id) for _ in range(200)]
        assert {a.answer(seq) for seq in seqs} == {"accepted"}
    assert payloads(entries(shared, name("b"))) == [b"same"]


def test_the_first_content_of_an_id_wins(shared: Server, name: Callable[[str], str]) -> None:
    msg_id = ids.now()
    with shared.login(name("a")) as a:
        assert a.ask(name("b"), b"first", msg_id=msg_id) == "accepted"
        assert a.ask(name("b"), b"second", msg_id=msg_id) == "accepted"
    assert payloads(entries(shared, name("b"))) == [b"first"]


def test_the_same_id_of_two_senders_is_two_messages(
    shared: Server, name: Callable[[str], str]
) -> None:
    msg_id = ids.now()
    for who in ("a", "c"):
        with shared.login(name(who)) as client:
            assert client.ask(name("b"), who.encode(), msg_id=msg_id) == "accepted"
    assert sorted(payloads(entries(shared, name("b")))) == [b"a", b"c"]


def test_ids_that_break_the_rules_are_refused_each_by_its_name(
    shared: Server, name: Callable[[str], str]
) -> None:
    now = ids.ms()
    sound = int.from_bytes(ids.at(now), "big")
    # Minutes away from the bounds of the window, an hour back and five minutes ahead, on the side that time moves to.
    cases = {
        "of zeros": (bytes(16), "id_not_v7"),
        "all bits set": (b"\xff" * 16, "id_not_v7"),
        "version 4": ((sound & ~(0xF << 76) | 4 << 76).to_bytes(16, "big"), "id_not_v7"),
        "the wrong variant": ((sound & ~(0b11 << 62)).to_bytes(16, "big"), "id_not_v7"),
        "of 1970": (ids.at(0), "id_too_old"),
        "just before the window": (ids.at(now - 3_600_000 - 1000), "id_too_old"),
        "more than five minutes ahead": (ids.at(now + 600_000), "id_in_future"),
        "of the year 10889": (ids.at((1 << 48) - 1), "id_in_future"),
    }
    with shared.login(name("a")) as a:
        before = shared.metrics()
        for what, (msg_id, code) in cases.items():
            assert a.ask(name("b"), b"refused", msg_id=msg_id) == code, what
        fine = {"within the window": now - 3_300_000, "a little ahead": now + 290_000}
        for what, at in fine.items():
            assert a.ask(name("b"), what.encode(), msg_id=ids.at(at)) == "accepted", what
        after = shared.metrics()
        for code in ("id_not_v7", "id_too_old", "id_in_future"):
            count = sum(code == wanted for _, wanted in cases.values())
            assert after.rejected(code) - before.rejected(code) == count
    assert len(entries(shared, name("b"))) == 2


def test_an_id_below_all_that_is_remembered_is_stale_and_never_doubled(
    shared: Server, name: Callable[[str], str]
) -> None:
    start = ids.ms() - 600_000
    with shared.login(name("a")) as a:
        old, never_seen = ids.at(start), ids.at(start + 1)
        assert a.ask(name("b"), b"old", msg_id=old) == "accepted"
        for batch in range(8):
            seqs = [a.send(name("b"), msg_id=ids.at(start + 1000 + batch)) for _ in range(250)]
            assert {a.answer(seq) for seq in seqs} == {"accepted"}
        assert a.ask(name("b"), b"old", msg_id=old) == "id_stale"
        assert a.ask(name("b"), b"never seen", msg_id=never_seen) == "id_stale"
        # The newest 512 are remembered exactly.
        newest = ids.at(start + 2000)
        assert a.ask(name("b"), b"newest", msg_id=newest) == "accepted"
        assert a.ask(name("b"), b"newest", msg_id=newest) == "accepted"
    with shared.login(name("b"), 1024) as b:
        got = b.drain_inbox()
    assert len(got) == 1 + 2000 + 1 and len({d.id for d in got}) == len(got)


# ---- to whom they are for


def test_a_message_for_an_offline_user_survives_kill_9_and_comes_once(server: Server) -> None:
    with server.login("a") as a:
        msg_id = ids.now()
        assert a.ask("b", b"hello", msg_id=msg_id) == "accepted"
    server.restart()
    before = ids.ms()
    with server.login("b") as b:
        assert b.welcome and b.welcome.waiting == 1
        (delivery,) = b.take(1)
        assert (delivery.no, delivery.id, delivery.sender) == (1, msg_id, "a")
        assert (delivery.payload, delivery.flags) == (b"hello", 0)
        assert before - 60_000 < delivery.time_ms <= before
        b.ack(1)
        b.sync()
    assert server.stop() == 0
    server.start()
    with server.login("b") as b:
        assert b.welcome and b.welcome.waiting == 0


def test_a_list_over_all_shards_is_answered_once_and_reaches_everybody_once(
    shared: Server, name: Callable[[str], str]
) -> None:
    users = [name(f"list-{i}") for i in range(256)]
    with shared.login(name("a")) as a:
        seqs = [a.send(users, b"%d" % i) for i in range(4)]
        assert [a.answer(seq) for seq in seqs] == ["accepted"] * 4
        a.sync()
        assert not a.answers, "no second answer"
        msg_id = ids.now()
        assert a.ask(users, b"again", msg_id=msg_id) == "accepted"
        assert a.ask(users, b"again", msg_id=msg_id) == "accepted"
        assert a.ask(users[::-1], b"again", msg_id=msg_id) == "accepted"
    for user in users[:3] + users[100:103] + users[-3:]:
        assert payloads(entries(shared, user)) == [b"0", b"1", b"2", b"3", b"again"]


def test_a_recipient_named_twice_gets_the_message_once_and_one_may_write_to_oneself(
    shared: Server, name: Callable[[str], str]
) -> None:
    with shared.login(name("a")) as a:
        assert a.ask([name("b")] * 200 + [name("a")] * 56, b"x") == "accepted"
        assert payloads(a.take(1)) == [b"x"]
        a.ack(1)
        a.sync()
        assert not a.inbox
    assert payloads(entries(shared, name("b"))) == [b"x"]


def test_names_differ_by_every_byte(shared: Server) -> None:
    users = ["Ä", "A\u0308", "ä", "a", "A", "a ", " a", "\U0001f600", "a\0b"]
    with shared.login("case") as a:
        for user in users:
            assert a.ask(user, user.encode()) == "accepted"
    for user in users[:-1]:
        assert payloads(entries(shared, user)) == [user.encode()]


def test_an_empty_user_in_hello_is_who_the_token_says(shared: Server) -> None:
    with shared.connect() as client:
        client.login("", shared.token("Jörg"))
        assert client.welcome and client.welcome.user == "Jörg"


def test_a_full_inbox_refuses_and_a_retry_completes_a_list_without_repeats(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({"IRIS_CORE__INBOX_MESSAGES_MAX": "10", "IRIS_CORE__PARTITIONS": "2"}).start()
    users = [f"u{i}" for i in range(200)]
    msg_id = ids.now()
    with server.login("a") as a:
        for i in range(10):
            assert a.ask("u7", b"%d" % i) == "accepted"
        assert a.ask("u7", b"too many") == "inbox_full"
        assert a.ask(users, b"to all", msg_id=msg_id) == "inbox_full"
        assert a.ask(users, b"to all", msg_id=msg_id) == "inbox_full"
        with server.login("u7") as full:
            full.drain_until_empty(10)
        until(lambda: a.ask(users, b"to all", msg_id=msg_id) == "accepted", "the list is completed")
        assert a.ask(users, b"to all", msg_id=msg_id) == "accepted"
    for user in users:
        assert payloads(entries(server, user)) == [b"to all"], user


# ---- the newest login wins


def test_the_newest_login_wins_and_takes_over_what_was_not_acknowledged(
    shared: Server, name: Callable[[str], str]
) -> None:
    with shared.login(name("a")) as a, shared.login(name("b")) as old:
        assert a.ask(name("b"), b"1") == "accepted"
        assert a.ask(name("b"), b"2") == "accepted"
        old.take(2)
        old.ack(1)
        old.sync()
        with shared.login(name("b")) as new:
            assert new.welcome and new.welcome.waiting == 1
            assert old.end() == "replaced"
            assert a.ask(name("b"), b"3") == "accepted"
            got = new.take(2)
            assert [(d.no, d.payload) for d in got] == [(1, b"2"), (2, b"3")]
            assert not old.inbox, "nothing more to the old one"
            new.ack(2)
            new.sync()
    assert entries(shared, name("b")) == []


def has_ended(client: Client) -> bool:
    """Whether an ERROR is there to be read."""
    try:
        client.pump(lambda: False, 0.001)
    except Closed:
        return True
    except NotYet:
        return False
    return False


def test_logins_in_quick_succession_lose_nothing_and_leave_one(
    shared: Server, name: Callable[[str], str]
) -> None:
    with shared.login(name("a")) as a:
        clients: list[Client] = []
        got: set[bytes] = set()
        for i in range(30):
            client = shared.connect()
            client.hello(name("b"), shared.token(name("b")))
            clients.append(client)
            a.send(name("b"), b"%d" % i)
        a.pump(lambda: len(a.answers) == 30)
        # Reactors work side by side, so any of them may have been the last to get in.
        until(lambda: sum(has_ended(client) for client in clients) == 29, "all but one have ended")
        (survivor,) = [client for client in clients if not client.error]
        survivor.sync()
        assert {p.code_name(c.error.code) for c in clients if c.error} == {"replaced"}
        got |= {d.payload for client in clients for d in client.inbox}
        for client in clients:
            client.close()
    got |= {d.payload for d in entries(shared, name("b"))}
    assert got == {b"%d" % i for i in range(30)}


def test_an_acknowledgement_of_the_old_login_does_not_touch_the_new_one(
    shared: Server, name: Callable[[str], str]
) -> None:
    with shared.login(name("a")) as a, shared.login(name("b")) as old:
        for i in range(3):
            assert a.ask(name("b"), b"%d" % i) == "accepted"
        old.take(3)
        with shared.login(name("b")) as new:
            try:
                old.ack(3)
            except ConnectionError:
                pass
            assert payloads(new.take(3)) == [b"0", b"1", b"2"]
    assert payloads(entries(shared, name("b"))) == [b"0", b"1", b"2"]


def test_a_busy_client_that_is_replaced_reads_why(shared: Server, name: Callable[[str], str]) -> None:
    """It is told behind what it has not read, while it goes on writing: no reset may come before the reason."""
    ping = p.encode_ping(bytes(8)) * 64

    def told() -> str | None:
        with shared.login(name("b")) as old:
            old.raw(ping)
            start = time.monotonic()
            with shared.login(name("b")) as new:
                try:
                    for _ in range(20):
                        old.raw(ping)
                        new.sync()
                    return old.end()
                except ConnectionError:
                    # The server listens to it for two seconds more; this machine may be slower than that.
                    assert time.monotonic() - start > 1
                    return None

    assert [told() for _ in range(20)].count("replaced") >= 3


# ---- order and windows


def test_messages_of_one_sender_keep_their_order(shared: Server, name: Callable[[str], str]) -> None:
    with shared.login(name("a")) as a, shared.login(name("b"), 1024) as b:
        count = 2000
        got: list[p.Delivery] = []
        for start in range(0, count, 200):
            seqs = [a.send(name("b"), b"%d" % i) for i in range(start, start + 200)]
            assert {a.answer(seq) for seq in seqs} == {"accepted"}
            got += b.take(200)
            b.ack(got[-1].no)
        assert payloads(got) == [b"%d" % i for i in range(count)]
        assert [d.no for d in got] == list(range(1, count + 1))


def test_what_was_not_acknowledged_comes_again_in_the_same_order(
    shared: Server, name: Callable[[str], str]
) -> None:
    with shared.login(name("a")) as a:
        for i in range(20):
            assert a.ask(name("b"), b"%d" % i) == "accepted"
    for start in (0, 0, 7, 19):
        with shared.login(name("b")) as b:
            if start:
                b.take(start - done)
                b.ack(start - done)
                b.sync()
                got = b.take(20 - start)
            else:
                done = 0
                got = b.take(20)
            assert payloads(got) == [b"%d" % i for i in range(start, 20)]
            done = start
    assert payloads(entries(shared, name("b"))) == [b"19"]


def test_window_zero_pauses_and_a_larger_one_goes_on(
    shared: Server, name: Callable[[str], str]
) -> None:
    with shared.login(name("a")) as a, shared.login(name("b"), window=0) as b:
        assert b.welcome and b.welcome.recv_window == 0
        for i in range(10):
            assert a.ask(name("b"), b"%d" % i) == "accepted"
        b.sync()
        assert not b.inbox
        b.window(3)
        assert payloads(b.take(3)) == [b"0", b"1", b"2"]
        b.sync()
        assert not b.inbox, "three are unacknowledged"
        b.window(0)
        b.ack(3)
        b.sync()
        assert not b.inbox, "lowered to nothing"
        b.window(4_000_000_000)
        assert payloads(b.take(7)) == [b"%d" % i for i in range(3, 10)]


def test_never_more_than_the_window_is_unacknowledged(
    shared: Server, name: Callable[[str], str]
) -> None:
    with shared.login(name("a")) as a:
        seqs = [a.send(name("b"), b"x") for _ in range(200)]
        assert {a.answer(seq) for seq in seqs} == {"accepted"}
    with shared.login(name("b"), window=16) as b:
        total = 0
        while total < 200:
            b.take(min(16, 200 - total))
            b.sync()
            assert not b.inbox, "more than the window"
            total += min(16, 200 - total)
            b.ack(total)


def test_a_window_beyond_the_largest_counts_as_the_largest(
    shared: Server, name: Callable[[str], str]
) -> None:
    with shared.login(name("a")) as a:
        for _ in range(6):
            seqs = [a.send(name("b"), b"") for _ in range(250)]
            assert {a.answer(seq) for seq in seqs} == {"accepted"}
    with shared.login(name("b"), window=2**32 - 1) as b:
        assert b.welcome and b.welcome.recv_window == 1024 and b.welcome.waiting == 1500
        b.take(1024)
        b.sync()
        assert not b.inbox


def test_large_messages_are_held_back_by_their_bytes(
    shared: Server, name: Callable[[str], str]
) -> None:
    with shared.login(name("a")) as a:
        for _ in range(12):
            assert a.ask(name("b"), bytes(60_000)) == "accepted"
    with shared.login(name("b"), window=1024) as b:
        b.take(5)
        b.sync()
        assert not b.inbox, "a further one starts only while fewer than 262,144 bytes are unacknowledged"
        b.ack(5)
        b.take(5)
        b.sync()
        assert not b.inbox


def test_numbers_of_sends_wrap_around(shared: Server, name: Callable[[str], str]) -> None:
    with shared.login(name("a")) as a:
        first = 2**32 - 3
        for i in range(6):
            seq = a.send(name("b"), b"%d" % i, seq=(first + i) % 2**32)
            assert a.answer(seq) == "accepted"
            assert a.copies[seq] == 1
    assert payloads(entries(shared, name("b"))) == [b"%d" % i for i in range(6)]


def test_an_ack_that_says_nothing_new_is_ignored(shared: Server, name: Callable[[str], str]) -> None:
    with shared.login(name("a")) as a, shared.login(name("b")) as b:
        b.ack(0)
        for _ in range(3):
            assert a.ask(name("b"), b"") == "accepted"
        b.take(3)
        for upto in (2, 2, 1, 0, 3, 3):
            b.ack(upto)
        b.sync()
    assert entries(shared, name("b")) == []


# ---- receipts


def test_receipts_reach_a_sender_who_was_away_one_for_each_reader(
    shared: Server, name: Callable[[str], str]
) -> None:
    readers = [name("r1"), name("r2"), name("r3")]
    with shared.login(name("a")) as a:
        msg_id, silent = ids.now(), ids.now()
        assert a.ask(readers, b"read me", msg_id=msg_id, receipt=True) == "accepted"
        assert a.ask(readers, b"no receipt", msg_id=silent) == "accepted"
    for reader in readers[:2]:
        with shared.login(reader) as client:
            got = client.take(2)
            assert [d.flags for d in got] == [p.WANTS_RECEIPT, 0]
            client.ack(2)
            client.sync()
    with shared.login(readers[2]) as client:
        client.take(2)  # Seen, not acknowledged.
        client.sync()
    with shared.login(name("a")) as a:
        got = a.take(2)
        assert {(d.sender, d.id, d.flags, d.payload) for d in got} == {
            (reader, msg_id, p.IS_RECEIPT, b"") for reader in readers[:2]
        }
        a.ack(2)
        a.sync()
        assert not a.inbox
        with shared.login(readers[2]) as client:
            client.take(2)
            client.ack(2)
            (late,) = a.take(1)
            assert (late.sender, late.flags) == (readers[2], p.IS_RECEIPT)


def test_receipts_survive_kill_9(server: Server) -> None:
    with server.login("a") as a, server.login("b") as b:
        msg_id = ids.now()
        assert a.ask("b", b"x", msg_id=msg_id, receipt=True) == "accepted"
        b.ack(b.take(1)[0].no)
        assert a.take(1)[0].flags == p.IS_RECEIPT
    server.restart()
    with server.login("a") as a:
        (receipt,) = a.take(1)
        assert (receipt.id, receipt.sender, receipt.flags) == (msg_id, "b", p.IS_RECEIPT)


def test_reserved_bits_are_ignored(shared: Server, name: Callable[[str], str]) -> None:
    with shared.login(name("a")) as a:
        body = p.encode_send(0, ids.now(), 0xFE, p.encode_name(name("b")), 1, b"reserved")
        a.raw(body)
        assert a.answer(0) == "accepted"
    (delivery,) = entries(shared, name("b"))
    assert (delivery.flags, delivery.payload) == (0, b"reserved")


# ---- terms


def test_welcome_says_the_terms_and_pong_the_time(shared: Server) -> None:
    with shared.login("terms", window=77) as client:
        welcome = client.welcome
        assert welcome
        assert (welcome.version, welcome.recv_window, welcome.send_window) == (1, 77, 256)
        assert (welcome.payload_max, welcome.recipients_max) == (65_536, 256)
        assert welcome.dedup_window_ms == 3_600_000 and welcome.idle_timeout_ms == 300_000
        assert welcome.region == "local" and welcome.node
        assert abs(welcome.server_time_ms - time.time() * 1000) < 600_000
        client.raw(p.encode_ping(b"12345678"))
        client.pump(lambda: client.pongs)
        assert client.pongs[0].echo == b"12345678"
        assert abs(client.pongs[0].time_ms - time.time() * 1000) < 600_000
