"""A session machine on scripted bytes and times: no socket, no clock."""

from __future__ import annotations

import random
import uuid
from typing import Any, Optional

import peer
from iris_client import _session as machine
from iris_client._sending import SendOp

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
