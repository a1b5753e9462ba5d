"""Deliveries, repeats and acknowledgements."""

from __future__ import annotations

import pytest

import peer
from iris_client import _protocol as wire
from iris_client import _session as machine
from iris_client._receiving import SEEN_MAX
from iris_client._types import Message
from scripted import ID, an_id, fault, live, log_in, outcome, said


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
