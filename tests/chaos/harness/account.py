"""What clients did and saw in one round, and what must be true of it.

The words are those of docs/PROTOCOL.md. The checks:

- *lost*: ACCEPTED for a recipient, and delivered to that recipient in no connection that could acknowledge it.
- *doubled*: delivered twice within one connection during which nothing failed and no shard moved: two inbox entries.
- *resurrected*: delivered in a connection that began after its ACK was known to be durable. A client knows that from a
  receipt (made once the ACK is durable), or because all cores said that no inbox holds anything. An ACK alone promises
  nothing about a crash: such a message may come again, and counts as `repeated`.
- *reordered*: delivered for the first time after a message that the same sender sent to the same user later. Where
  nodes took messages apart from each other that is no fault (docs/decisions/0011-replication.md).
- *foreign*: delivered, and never sent to this user, or with another content.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Key(NamedTuple):
    """An inbox entry: one message for one recipient."""

    sender: str
    id: bytes
    to: str


class Got(NamedTuple):
    """A delivery."""

    at: float
    life: int
    key: Key
    intact: bool


class Life(NamedTuple):
    """A connection of a user."""

    user: str
    began: float
    #: Nothing failed as long as it lasted, and no shard moved.
    quiet: bool
    #: It acknowledged nothing, so all that it saw must come again.
    peek: bool


class Broken(NamedTuple):
    """A connection that ended and was not meant to."""

    at: float
    user: str
    why: str


@dataclass
class Verdict:
    """What the checks found: numbers, and for people some examples."""

    accepted: int = 0
    lost: int = 0
    doubled: int = 0
    resurrected: int = 0
    foreign: int = 0
    repeated: int = 0
    reordered: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.resurrected or self.foreign)

    def blame(self, what: str, count: int, keys: list[Key]) -> None:
        """Keep some examples of a fault."""
        if count:
            shown = ", ".join(f"{key.sender}->{key.to} {key.id.hex()}" for key in keys[:3])
            self.examples.append(f"{count} {what}: {shown}")


def content(sender: str, msg_id: bytes, size: int = 64) -> bytes:
    """Return the only payload that this message may have."""
    seed = hashlib.sha256(sender.encode() + msg_id).digest()
    return (seed * (size // 32 + 1))[:size]


class Account:
    """The record of a round. Written by the thread of the clients, read by the one that causes faults."""

    def __init__(self) -> None:
        self.sent: dict[Key, float] = {}
        self.accepted: dict[Key, float] = {}
        #: Times of ACCEPTED by sender, ascending.
        self.answers: dict[str, list[float]] = defaultdict(list)
        self.copies: Counter[int] = Counter()
        #: What the newest ACCEPTED of a sender said.
        self.newest_copies: dict[str, int] = {}
        #: How often a SEND was refused, by the code's name.
        self.refusals: Counter[str] = Counter()
        self.received: list[Got] = []
        self.lives: list[Life] = []
        #: Ids whose record a fault took from a disk; the mirror gives it back.
        self.touched: set[bytes] = set()
        #: When the client knew that its ACK was durable.
        self.confirmed: dict[Key, float] = {}
        self.broken: list[Broken] = []
        #: The longest time from the first SEND of a message to its ACCEPTED, in seconds.
        self.slowest = 0.0

    # ---- written by clients

    def note_sent(self, key: Key, at: float) -> None:
        """A SEND left, for the first time or again."""
        self.sent.setdefault(key, at)

    def note_accepted(self, key: Key, at: float, copies: int) -> None:
        """ACCEPTED came."""
        self.copies[copies] += 1
        self.newest_copies[key.sender] = copies
        self.answers[key.sender].append(at)
        self.slowest = max(self.slowest, at - self.sent.get(key, at))
        self.accepted.setdefault(key, at)

    def begin_life(self, user: str, at: float, *, quiet: bool = False, peek: bool = False) -> int:
        """A connection of a user logs in; return its number."""
        self.lives.append(Life(user, at, quiet, peek))
        return len(self.lives) - 1

    def note_received(self, life: int, key: Key, at: float, payload: bytes) -> None:
        """MESSAGE came, not a receipt."""
        intact = payload == content(key.sender, key.id, len(payload)) and bool(payload)
        self.received.append(Got(at, life, key, intact))

    def note_receipt(self, key: Key, at: float) -> None:
        """A receipt came: the recipient's ACK is durable."""
        self.confirmed.setdefault(key, at)

    def confirm_all(self, at: float) -> None:
        """All cores said that no inbox holds anything: every ACK so far is durable everywhere."""
        for key in self.arrived():
            self.confirmed.setdefault(key, at)

    # ---- the checks

    def check(self, faults: Sequence[float] = ()) -> Verdict:
        """Return what is wrong, if things failed at these times."""
        verdict = Verdict(accepted=len(self.accepted))
        arrived = self.arrived()
        lost = [key for key in self.accepted if key not in arrived]
        verdict.lost = len(lost)
        verdict.blame("lost", len(lost), lost)
        times = Counter((got.life, got.key) for got in self.received)
        doubled = [key for (life, key), count in times.items() if count > 1 and self.lives[life].quiet]
        verdict.doubled = len(doubled)
        verdict.blame("doubled", len(doubled), doubled)
        back = {
            got.key
            for got in self.received
            if self.confirmed.get(got.key, float("inf")) < self.lives[got.life].began
        }
        verdict.resurrected = len(back)
        verdict.blame("resurrected", len(back), sorted(back))
        foreign = [got.key for got in self.received if not self.is_ours(got)]
        verdict.foreign = len(foreign)
        verdict.blame("foreign", len(foreign), foreign)
        verdict.repeated = sum(not self.lives[got.life].peek for got in self.received) - len(arrived)
        verdict.reordered = len(self.out_of_order(faults))
        return verdict

    def out_of_order(self, faults: Sequence[float] = ()) -> list[Key]:
        """Return the messages that came for the first time after a later one of the same sender to the same user.

        One that was under way at a fault may be in two records, of which healing keeps one (docs/REPLICATION.md, section
        3). Its place is then that of the record that stays, for a reader who comes only after healing. One whose record a
        fault took from a disk has the place where the mirror gave it back (docs/PROTOCOL.md, section 5).
        """
        place = {key: number for number, key in enumerate(self.sent)}
        newest: dict[tuple[str, str], int] = {}
        seen: set[Key] = set()
        late = []
        for got in self.received:
            if got.key in seen or got.key not in place or self.lives[got.life].peek:
                continue
            if got.key.id in self.touched:
                continue
            seen.add(got.key)
            flow = (got.key.sender, got.key.to)
            was_under_way = any(self.sent[got.key] <= at < self.accepted.get(got.key, at) for at in faults)
            if was_under_way and self.lives[got.life].quiet:
                continue
            if place[got.key] < newest.get(flow, -1):
                late.append(got.key)
            newest[flow] = max(newest.get(flow, -1), place[got.key])
        return late

    def arrived(self) -> set[Key]:
        """Return what was delivered to who could acknowledge it."""
        return {got.key for got in self.received if not self.lives[got.life].peek}

    def is_ours(self, got: Got) -> bool:
        """Whether it was sent as it came, to whom it came."""
        return got.key in self.sent and got.intact and self.lives[got.life].user == got.key.to

    def write(self, path: Path) -> None:
        """Write all of it as lines of JSON, in order of time, for who looks for what went wrong."""
        events: list[tuple[float, str, Key, int]] = [(at, "sent", key, 0) for key, at in self.sent.items()]
        events += [(at, "accepted", key, 0) for key, at in self.accepted.items()]
        events += [(at, "confirmed", key, 0) for key, at in self.confirmed.items()]
        events += [(got.at, "received", got.key, got.life) for got in self.received]
        with path.open("w") as file:
            for number, life in enumerate(self.lives):
                file.write(json.dumps({"life": number, **life._asdict()}) + "\n")
            for at, what, key, life in sorted(events, key=lambda event: event[0]):
                line = {"at": at, "what": what, "sender": key.sender, "id": key.id.hex(), "to": key.to}
                file.write(json.dumps(line | ({"life": life} if what == "received" else {})) + "\n")

    def gaps(self, faults: list[float], senders: list[str], end: float) -> list[float]:
        """Return, for each fault and each of these senders, its longest time without an ACCEPTED, in seconds.

        Counted from the fault on, until the next fault or the end: at least the time to the next ACCEPTED.
        """
        found = []
        for fault, upto in zip(faults, [*faults[1:], end]):
            for sender in senders:
                times = [at for at in self.answers[sender] if fault < at < upto]
                points = [fault, *times, upto]
                found.append(max(b - a for a, b in zip(points, points[1:])))
        return found


def percentile(values: list[float], share: float) -> float:
    """Return the least value that at least ``share`` of the values do not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-len(ordered) * share // 1) - 1))]
