"""Login, time, presence, and bytes that make no sense."""

from __future__ import annotations

import random

import pytest

import peer
from iris_client import _protocol as wire
from iris_client import _session as machine
from iris_client._watching import QueryOp
from scripted import ID, fault, live, log_in, new, op, outcome, said, sent_ids

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
