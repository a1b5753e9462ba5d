"""SENDs, their answers, and what a lost connection leaves open."""

from __future__ import annotations

import pytest

import peer
from iris_client import _protocol as wire
from iris_client import _session as machine
from iris_client._sending import SPAN_MAX, SendAccepted, SendRefused, SendUnknown
from scripted import ID, Frames, fault, live, log_in, new, op, outcome, said, sent_ids


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
