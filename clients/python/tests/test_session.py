"""The session machine on scripted bytes and times: no socket, no clock."""

from __future__ import annotations

import random
import uuid
from typing import Any, Optional

import pytest

import peer
from iris_client import _protocol as wire
from iris_client import _session as machine
from iris_client._receiving import SEEN_MAX
from iris_client._sending import SPAN_MAX, SendAccepted, SendOp, SendRefused, SendUnknown
from iris_client._types import Message
from iris_client._watching import QueryOp

Frames = list[tuple[str, dict[str, Any]]]


def new(window: int = 256) -> machine.Session:
    return machine.Session(window=window, rng=random.Random(1))


def said(session: machine.Session) -> Frames:
    return peer.frames(session.output())


def log_in(session: machine.Session, now: float = 0.0, **terms: Any) -> Frames:
    """Connect and log in; return what the session says right after WELCOME."""
    session.events.clear()
    session.start("alice", "token", now)
    assert [name for name, _ in said(session)] == ["HELLO"]
    terms = {"recv_window": session.window, **terms}
    session.receive(peer.welcome(**terms), now)
    assert isinstance(session.events.popleft(), machine.Live)
    return said(session)


def live(window: int = 256, **terms: Any) -> machine.Session:
    session = new(window)
    log_in(session, **terms)
    return session


def op(to: str = "bob", body: bytes = b"x", **options: Any) -> SendOp:
    return SendOp(to.split(), body, **options)


def sent_ids(frames: Frames) -> list[str]:
    return [f["id"] for name, f in frames if name == "SEND"]


def outcome(session: machine.Session) -> list[Any]:
    events = list(session.events)
    session.events.clear()
    return events


def fault(session: machine.Session, data: bytes) -> Optional[str]:
    session.receive(data, 1.0)
    for event in outcome(session):
        if isinstance(event, machine.Ended):
            return event.name
    return None


ID = uuid.UUID("0193e8c0-5e2a-7a31-9c4f-2b6d7e8f9a0b")


def an_id(number: int) -> uuid.UUID:
    return uuid.UUID(int=ID.int + number)


# ---- login ---------------------------------------------------------------------------------------


def test_hello_comes_first_and_nothing_else_before_welcome() -> None:
    session = new()
    session.send(op(), 0.0)
    session.start("alice", "token", 0.0)
    ((name, hello),) = said(session)
    assert name == "HELLO"
    assert (hello["user"], hello["token"], hello["window"]) == ("alice", "token", 256)
    session.send(op(), 0.0)
    session.tick(5.0)
    assert said(session) == []
    session.receive(peer.welcome(), 6.0)
    assert len(sent_ids(said(session))) == 2


@pytest.mark.parametrize(
    "data",
    [
        peer.accepted((0, 1)),
        peer.ping(b"12345678"),
        peer.message(1, ID, "bob", b""),
        peer.welcome(version=2),
        peer.welcome(send_window=0),
        peer.welcome(recv_window=257),
        b"\x41\xff\xff\xff",
        b"HTTP/1.1 400 Bad Request\r\n",
        wire.frame(0x05, b""),
    ],
)
def test_a_server_that_begins_wrongly_ends_the_connection_by_name(data: bytes) -> None:
    session = new()
    session.start("alice", "token", 0.0)
    said(session)
    assert fault(session, data) in (
        "out_of_order",
        "version",
        "malformed",
        "oversize",
        "unknown_type",
    )


def test_an_ignorable_frame_is_skipped() -> None:
    session = live()
    session.receive(wire.frame(0x9F, b"later") + peer.ping(b"12345678"), 1.0)
    assert said(session) == [("PONG", {"echo": b"12345678".hex()})]


def test_an_error_ends_the_connection_with_its_code() -> None:
    session = live()
    session.receive(peer.error(305, 1500, "going") + peer.ping(b"12345678"), 1.0)
    assert outcome(session) == [machine.Ended(305, "draining", "going", 1500)]
    assert not session.is_live


def test_a_code_of_a_later_server_has_a_name_of_its_own() -> None:
    session = live()
    assert fault(session, peer.error(399)) == "code_399"


# ---- sending -------------------------------------------------------------------------------------


def test_each_send_is_decided_by_its_own_answer_in_any_order() -> None:
    session = live()
    ops = [op() for _ in range(5)]
    for one in ops:
        session.send(one, 0.0)
    frames = said(session)
    assert [f["seq"] for _, f in frames] == [0, 1, 2, 3, 4]
    session.receive(peer.accepted((3, 2), (0, 1)) + peer.rejected((2, 405, 0)), 1.0)
    assert outcome(session) == [
        SendAccepted(ops[3]),
        SendAccepted(ops[4]),
        SendAccepted(ops[0]),
        SendRefused(ops[2], 405, 0),
    ]
    assert session.sending.has_unanswered


def test_no_more_than_the_window_is_unanswered() -> None:
    session = live(send_window=2)
    for _ in range(5):
        session.send(op(), 0.0)
    assert len(said(session)) == 2
    session.receive(peer.accepted((0, 1)), 1.0)
    assert len(said(session)) == 1
    session.receive(peer.accepted((1, 2)), 1.0)
    assert len(said(session)) == 2


def test_a_server_cannot_raise_the_window_above_the_protocols_own() -> None:
    session = live(send_window=100_000)
    for _ in range(300):
        session.send(op(), 0.0)
    assert len(said(session)) == wire.SEND_WINDOW_MAX


@pytest.mark.parametrize(
    "answer",
    [
        peer.accepted((1, 1)),
        peer.accepted((0, 2)),
        peer.accepted((0, 1), (0, 1)),
        peer.accepted((0, 65_535)),
        peer.rejected((7, 501, 0)),
    ],
)
def test_an_answer_to_what_was_not_asked_breaks_the_protocol(answer: bytes) -> None:
    session = live()
    session.send(op(), 0.0)
    assert fault(session, answer) == "malformed"


def test_numbers_of_sends_wrap() -> None:
    session = live()
    session.sending._seq = 0xFFFF_FFFF
    ops = [op(), op()]
    for one in ops:
        session.send(one, 0.0)
    assert [f["seq"] for _, f in said(session)] == [0xFFFF_FFFF, 0]
    session.receive(peer.accepted((0xFFFF_FFFF, 2)), 1.0)
    assert outcome(session) == [SendAccepted(ops[0]), SendAccepted(ops[1])]


def test_a_lost_connection_leaves_a_plain_send_unknown_and_repeats_a_reliable_one() -> None:
    session = live()
    plain, reliable = op(), op(reliable=True)
    session.send(plain, 0.0)
    session.send(reliable, 0.0)
    before = sent_ids(said(session))
    session.lost()
    assert outcome(session) == [SendUnknown(plain)]
    assert sent_ids(log_in(session, 1.0)) == [before[1]]


def test_what_was_not_sent_when_the_connection_was_lost_is_sent_in_the_next() -> None:
    session = live(send_window=1)
    first, second = op(), op()
    session.send(first, 0.0)
    session.send(second, 0.0)
    said(session)
    session.lost()
    assert outcome(session) == [SendUnknown(first)]
    assert len(sent_ids(log_in(session, 1.0))) == 1


def test_retries_go_before_new_sends_in_their_old_order() -> None:
    session = live()
    for _ in range(4):
        session.send(op(reliable=True), 0.0)
    before = sent_ids(said(session))
    session.receive(peer.accepted((1, 1)), 0.5)
    session.lost()
    session.send(op(), 0.6)
    session.lost()
    after = sent_ids(log_in(session, 1.0))
    assert after[:3] == [before[0], before[2], before[3]]
    assert len(after) == 4
    assert after == sorted(after)


def test_a_refusal_that_passes_is_retried_with_the_same_id_not_before_its_time() -> None:
    session = live()
    one = op(reliable=True)
    session.send(one, 0.0)
    (first,) = sent_ids(said(session))
    session.receive(peer.rejected((0, 501, 2000)), 1.0)
    assert outcome(session) == []
    due = session.next_tick()
    assert due is not None
    assert 3.0 <= due <= 5.0
    session.tick(2.9)
    assert sent_ids(said(session)) == []
    session.tick(due)
    assert sent_ids(said(session)) == [first]
    session.receive(peer.accepted((1, 1)), due)
    assert outcome(session) == [SendAccepted(one)]
    assert one.last_refusal == "inbox_full"


def test_a_refusal_for_good_is_not_retried() -> None:
    session = live()
    one = op(reliable=True)
    session.send(one, 0.0)
    session.receive(peer.rejected((0, 401, 0)), 1.0)
    assert outcome(session) == [SendRefused(one, 401, 0)]


def test_a_message_given_up_is_neither_sent_nor_named() -> None:
    session = live(send_window=1)
    first, second, third = op(), op(reliable=True), op()
    for one in (first, second, third):
        session.send(one, 0.0)
    said(session)
    session.sending.give_up(first)
    session.sending.give_up(second)
    session.receive(peer.accepted((0, 1)), 1.0)
    assert outcome(session) == []
    assert len(sent_ids(said(session))) == 1
    session.receive(peer.accepted((1, 1)), 1.0)
    assert outcome(session) == [SendAccepted(third)]


def test_messages_given_up_while_there_is_no_connection_take_no_room() -> None:
    session = new()
    for _ in range(10_000):
        one = op(body=b"x" * 100)
        session.send(one, 0.0)
        session.sending.give_up(one)
    assert len(session.sending._queue) < 200


def _answer(session: machine.Session, frames: Frames, keep: str) -> list[str]:
    """Accept all SENDs but one; return the ids."""
    for name, f in frames:
        if name == "SEND" and f["id"] != keep:
            session.receive(peer.accepted((f["seq"], 1)), 1.0)
    return sent_ids(frames)


def test_new_ids_wait_rather_than_push_an_open_one_below_what_the_server_remembers() -> None:
    session = live()
    session.send(op(reliable=True), 0.0)
    frames = said(session)
    (oldest,) = sent_ids(frames)
    for _ in range(2000):
        session.send(op(), 0.0)
    newer: list[str] = []
    while frames := said(session):
        newer += _answer(session, frames, keep=oldest)
    assert len(newer) == SPAN_MAX
    session.receive(peer.accepted((0, 1)), 1.0)
    assert len(sent_ids(said(session))) == wire.SEND_WINDOW_MAX


def test_a_message_that_is_surely_out_holds_nobody_up_and_takes_a_fresh_id() -> None:
    session = live()
    one = op(reliable=True)
    session.send(one, 0.0)
    (old,) = sent_ids(said(session))
    session.receive(peer.rejected((0, 501, 60_000)), 0.0)
    for _ in range(1000):
        session.send(op(), 0.0)
    newer: list[str] = []
    while frames := said(session):
        newer += _answer(session, frames, keep="")
    assert len(newer) == 1000
    session.tick(200.0)
    (fresh,) = sent_ids(said(session))
    assert fresh > max(newer) > old
    assert str(one.id) == fresh


@pytest.mark.parametrize("kind", ["given", "list", "unknown"])
def test_a_message_that_may_be_in_keeps_its_id_however_long_it_takes(kind: str) -> None:
    session = live()
    to = "bob carol" if kind == "list" else "bob"
    one = op(to, reliable=True, msg_id=ID if kind == "given" else None)
    session.send(one, 0.0)
    (old,) = sent_ids(said(session))
    if kind == "unknown":
        session.lost()
        assert sent_ids(log_in(session, 0.0)) == [old]
    seq = (session.sending._seq - 1) & 0xFFFF_FFFF
    session.receive(peer.rejected((seq, 501, 60_000)), 0.0)
    for _ in range(1000):
        session.send(op(), 0.0)
    newer: list[str] = []
    while frames := said(session):
        newer += _answer(session, frames, keep="")
    assert len(newer) == SPAN_MAX
    session.tick(200.0)
    again = sent_ids(said(session))
    assert again[:1] == [old]


# ---- receiving -----------------------------------------------------------------------------------


def deliver(session: machine.Session, *numbers: int, first_no: int = 1, flags: int = 0) -> None:
    for no, number in enumerate(numbers, first_no):
        session.receive(peer.message(no, an_id(number), "bob", b"%d" % number, flags), 1.0)


def take(session: machine.Session) -> Message:
    return session.receiving.inbox.popleft()


def test_one_ack_covers_all_that_was_done() -> None:
    session = live()
    deliver(session, 1, 2, 3)
    assert outcome(session) == [machine.Arrived()]
    assert said(session) == []
    for body in (b"1", b"2"):
        message = take(session)
        assert message.body == body
        session.done(message)
    assert said(session) == [("ACK", {"upto": 2})]
    assert said(session) == []


def test_an_ack_waits_for_the_older_ones() -> None:
    session = live()
    deliver(session, 1, 2, 3)
    first, second, third = take(session), take(session), take(session)
    third.ack()
    second.ack()
    assert said(session) == []
    first.ack()
    first.ack()
    assert said(session) == [("ACK", {"upto": 3})]


def test_a_repeat_is_dropped_and_acknowledged() -> None:
    session = live()
    deliver(session, 1, 2)
    done, open_one = take(session), take(session)
    done.ack()
    session.lost()
    log_in(session, 2.0)
    deliver(session, 1, 2, 3)
    assert said(session) == [("ACK", {"upto": 1})]
    assert [message.body for message in session.receiving.inbox] == [b"3"]
    open_one.ack()
    assert said(session) == [("ACK", {"upto": 2})]


def test_what_was_done_while_disconnected_is_acknowledged_when_it_comes_again() -> None:
    session = live()
    deliver(session, 1)
    message = take(session)
    session.lost()
    message.ack()
    log_in(session, 2.0)
    deliver(session, 1)
    assert said(session) == [("ACK", {"upto": 1})]
    assert not session.receiving.inbox


def test_what_was_not_handed_out_is_forgotten_with_the_connection() -> None:
    session = live()
    deliver(session, 1, 2)
    session.lost()
    assert not session.receiving.inbox
    log_in(session, 2.0)
    deliver(session, 1, 2)
    assert [message.body for message in session.receiving.inbox] == [b"1", b"2"]


def test_a_receipt_is_not_a_repeat_of_the_message_it_is_about() -> None:
    session = live()
    session.receive(
        peer.message(1, ID, "bob", b"hi", wire.WANTS_RECEIPT)
        + peer.message(2, ID, "bob", b"", wire.IS_RECEIPT)
        + peer.message(3, ID, "carol", b"", wire.IS_RECEIPT),
        1.0,
    )
    got = list(session.receiving.inbox)
    assert [(m.sender, m.is_receipt, m.wants_receipt) for m in got] == [
        ("bob", False, True),
        ("bob", True, False),
        ("carol", True, False),
    ]


def test_a_server_that_repeats_itself_in_one_connection_delivers_once() -> None:
    session = live()
    deliver(session, 1, 1, 1)
    message = take(session)
    assert not session.receiving.inbox
    message.ack()
    assert said(session) == [("ACK", {"upto": 3})]


@pytest.mark.parametrize("no", [0, 2, 0xFFFF_FFFF])
def test_a_delivery_out_of_number_breaks_the_protocol(no: int) -> None:
    assert fault(live(), peer.message(no, ID, "bob", b"")) == "malformed"


def test_more_deliveries_than_granted_break_the_protocol() -> None:
    session = live(window=2)
    deliver(session, 1, 2)
    outcome(session)
    assert fault(session, peer.message(3, an_id(3), "bob", b"")) == "malformed"


def test_more_bytes_than_granted_break_the_protocol() -> None:
    session = live()
    big = b"x" * wire.PAYLOAD_BYTES_MAX
    for no in range(1, 5):
        session.receive(peer.message(no, an_id(no), "bob", big), 1.0)
    outcome(session)
    assert fault(session, peer.message(5, an_id(5), "bob", b"")) == "malformed"


def test_acknowledged_deliveries_make_room() -> None:
    session = live(window=2)
    for number in range(1, 3 * SEEN_MAX):
        session.receive(peer.message(number, an_id(number), "bob", b"y" * 100), 1.0)
        take(session).ack()
        assert said(session) == [("ACK", {"upto": number})]
    outcome(session)
    assert len(session.receiving._seen) == SEEN_MAX
    assert not session.receiving._pending


def test_finish_acknowledges_pauses_and_asks_for_a_sign() -> None:
    session = live()
    deliver(session, 1)
    take(session).ack()
    outcome(session)
    assert session.finish()
    frames = said(session)
    assert [name for name, _ in frames] == ["ACK", "WINDOW", "PING"]
    echo = bytes.fromhex(frames[2][1]["echo"])
    session.receive(peer.pong(b"another!", 5), 1.0)
    assert outcome(session) == []
    session.receive(peer.pong(echo, 5), 1.0)
    assert outcome(session) == [machine.Flushed()]


# ---- time ----------------------------------------------------------------------------------------


def test_silence_brings_a_ping_at_half_and_the_end_at_the_whole() -> None:
    session = live(idle_timeout_ms=60_000)
    assert session.next_tick() == 30.0
    session.tick(30.0)
    assert [name for name, _ in said(session)] == ["PING"]
    assert session.next_tick() == 60.0
    session.tick(45.0)
    assert said(session) == []
    session.tick(60.0)
    (ended,) = outcome(session)
    assert (ended.code, ended.name) == (0, "silent")


def test_anything_heard_counts() -> None:
    session = live(idle_timeout_ms=60_000)
    session.tick(30.0)
    session.receive(peer.ping(b"12345678"), 59.0)
    assert session.next_tick() == 89.0


def test_a_server_that_owes_an_answer_is_given_less_time() -> None:
    session = live(idle_timeout_ms=300_000)
    session.send(op(), 0.0)
    assert session.next_tick() == machine.ANSWER_SILENCE / 2


# ---- presence ------------------------------------------------------------------------------------


def test_an_answer_is_complete_when_every_user_was_named() -> None:
    session = live()
    question = QueryOp(["bob", "carol"], watch=False)
    session.ask(question, 0.0)
    ((_, asked),) = said(session)
    assert (asked["users"], asked["watch"]) == (["bob", "carol"], False)
    session.receive(peer.presence(asked["query"], (1, 7, "bob"), (1, 7, "mallory")), 1.0)
    assert outcome(session) == []
    session.receive(peer.presence(asked["query"], (0, 0, "carol")), 1.0)
    assert outcome(session) == [machine.PresenceAnswered(question)]
    assert {u: p.state for u, p in question.answers.items()} == {
        "bob": "online",
        "carol": "offline",
    }
    session.receive(peer.presence(asked["query"], (0, 0, "bob")), 1.0)
    assert outcome(session) == []


def test_many_users_are_asked_about_in_frames_that_the_protocol_allows() -> None:
    session = live()
    users = [f"u{number}" for number in range(600)]
    question = QueryOp(users, watch=False)
    session.ask(question, 0.0)
    frames = said(session)
    assert [len(f["users"]) for _, f in frames] == [256, 256, 88]
    for _, f in frames:
        session.receive(peer.presence(f["query"], *((1, 1, u) for u in f["users"])), 1.0)
    assert outcome(session) == [machine.PresenceAnswered(question)]


def test_an_open_question_is_asked_again_after_a_reconnect() -> None:
    session = live()
    session.ask(QueryOp(["bob"], watch=False), 0.0)
    said(session)
    session.lost()
    ((name, asked),) = log_in(session, 1.0)
    assert (name, asked["users"]) == ("PRESENCE_QUERY", ["bob"])


def watching(session: machine.Session, *states: tuple[int, int, str]) -> None:
    question = QueryOp([user for _, _, user in states], watch=True)
    session.ask(question, 0.0)
    ((_, asked),) = said(session)
    assert asked["watch"]
    session.receive(peer.presence(asked["query"], *states), 1.0)
    assert outcome(session) == [machine.PresenceAnswered(question)]


def test_changes_are_conflated_and_only_of_those_watched() -> None:
    session = live()
    watching(session, (1, 5, "bob"), (0, 0, "carol"))
    session.receive(peer.presence(0, (0, 6, "bob"), (1, 6, "mallory"), (1, 7, "carol")), 1.0)
    session.receive(peer.presence(0, (1, 8, "bob")), 1.0)
    changes = session.watching.changes
    assert [(p.user, p.state, p.since_ms) for p in changes.values()] == [
        ("carol", "online", 7),
        ("bob", "online", 8),
    ]


def test_watches_are_made_again_and_tell_what_changed_meanwhile() -> None:
    session = live()
    watching(session, (1, 5, "bob"), (0, 0, "carol"))
    session.lost()
    ((_, asked),) = log_in(session, 2.0)
    assert (asked["users"], asked["watch"]) == (["bob", "carol"], True)
    session.receive(peer.presence(asked["query"], (1, 5, "bob"), (1, 9, "carol")), 2.0)
    assert outcome(session) == [machine.PresenceChanged()]
    assert list(session.watching.changes) == ["carol"]


def test_a_refused_watch_is_unknown_and_not_watched() -> None:
    session = live()
    watching(session, (2, 0, "bob"))
    assert session.watching.watched == {}
    session.receive(peer.presence(0, (1, 8, "bob")), 1.0)
    assert outcome(session) == []


def test_unwatch_ends_changes() -> None:
    session = live()
    watching(session, (1, 5, "bob"), (0, 0, "carol"))
    session.unwatch(["bob", "dave"])
    assert said(session) == [("UNWATCH", {"users": ["bob"]})]
    session.receive(peer.presence(0, (0, 6, "bob")), 1.0)
    assert outcome(session) == []
    session.unwatch(None)
    assert said(session) == [("UNWATCH", {"users": ["carol"]})]


# ---- anything ------------------------------------------------------------------------------------


def test_random_bytes_never_raise() -> None:
    rng = random.Random(20261120)
    kinds = [0x07, 0x08, *range(0x41, 0x48), 0x80]
    for _ in range(3000):
        session = live() if rng.random() < 0.8 else new()
        if session.welcome is None:
            session.start("alice", "token", 0.0)
        for _ in range(rng.randrange(3)):
            session.send(op(reliable=True), 0.0)
        data = b"".join(
            wire.frame(rng.choice(kinds), rng.randbytes(rng.choice((0, 4, 7, 8, 16, 40))))
            for _ in range(3)
        )
        session.receive(data, 1.0)
        session.tick(2.0)
        session.output()
        session.lost()


def test_damaged_vectors_never_raise() -> None:
    rng = random.Random(20261120)
    raws = [
        bytearray.fromhex(row["hex"])
        for row in peer.VECTORS["frames"]
        if row["direction"] == "server"
    ]
    for _ in range(3000):
        raw = bytearray(rng.choice(raws))
        raw[rng.randrange(len(raw))] = rng.randrange(256)
        session = live()
        session.send(op(), 0.0)
        session.receive(bytes(raw), 1.0)
        session.lost()
