"""Presence: questions, and users that are watched across connections."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Optional

from . import _protocol as wire
from ._types import Presence

_STATES = {wire.OFFLINE: "offline", wire.ONLINE: "online", wire.REFUSED: "unknown"}
_QUERY_MAX = 0xFFFF_FFFF


class QueryOp:
    """A question about presence, in one or more PRESENCE_QUERYs."""

    __slots__ = ("answers", "is_repeat", "missing", "watch")

    def __init__(self, users: Iterable[str], *, watch: bool, is_repeat: bool = False) -> None:
        self.missing = dict.fromkeys(users)
        self.answers: dict[str, Presence] = {}
        self.watch = watch
        self.is_repeat = is_repeat  # asked by the session itself after a reconnect


class Watching:
    """The presence part of a session. ``changes`` holds the newest state of each changed user."""

    def __init__(self) -> None:
        self.watched: dict[str, Optional[Presence]] = {}
        self.changes: OrderedDict[str, Presence] = OrderedDict()  # oldest change first
        self._waiting: deque[QueryOp] = deque()
        self._asked: dict[int, QueryOp] = {}
        self._query = 0

    @property
    def has_unanswered(self) -> bool:
        """Whether the server owes an answer."""
        return bool(self._asked)

    def add(self, op: QueryOp) -> None:
        """Take a question on; :meth:`pump` asks it."""
        if op.watch:
            for user in op.missing:
                self.watched.setdefault(user)
        self._waiting.append(op)

    def give_up(self, op: QueryOp) -> None:
        """Forget about a question: it will not be answered."""
        if op in self._waiting:
            self._waiting.remove(op)
        self._drop(op)

    def unwatch(self, users: Optional[Iterable[str]]) -> list[bytes]:
        """Stop watching these, or everybody; return the frames that say so."""
        gone = list(self.watched) if users is None else [u for u in users if u in self.watched]
        for user in gone:
            del self.watched[user]
            self.changes.pop(user, None)
        return [wire.encode_unwatch(some) for some in _chunks(gone)]

    def restart(self) -> None:
        """Begin a connection: all that is watched has to be asked for again, first."""
        if self.watched:
            self._waiting.appendleft(QueryOp(self.watched, watch=True, is_repeat=True))

    def lost(self) -> None:
        """End the connection: open questions are asked again in the next one."""
        again = dict.fromkeys(op for op in self._asked.values() if not op.is_repeat)
        self._asked.clear()
        self._waiting.extendleft(reversed(list(again)))

    def pump(self, out: list[bytes]) -> None:
        """Ask what waits to be asked."""
        while self._waiting:
            op = self._waiting.popleft()
            for some in _chunks(list(op.missing)):
                self._query = self._query % _QUERY_MAX + 1
                self._asked[self._query] = op
                out.append(wire.encode_presence_query(self._query, some, watch=op.watch))

    def report(self, said: wire.PresenceReport) -> tuple[Optional[QueryOp], bool]:
        """Take a PRESENCE. Return the question it completes, and whether ``changes`` has news."""
        op = self._asked.get(said.query)
        news = False
        for state, since_ms, user in said.entries:
            presence = Presence(user, _STATES[state], since_ms or None)
            if op is not None and user in op.missing:
                del op.missing[user]
                op.answers[user] = presence
                if op.watch and user in self.watched:
                    news |= self._note(presence, tell=op.is_repeat)
            elif said.query == 0 and user in self.watched:
                news |= self._note(presence, tell=True)
        if op is None or op.missing:
            return None, news
        self._drop(op)
        return (None if op.is_repeat else op), news

    def _note(self, presence: Presence, *, tell: bool) -> bool:
        before = self.watched[presence.user]
        self.watched[presence.user] = presence
        if presence.state == "unknown":
            del self.watched[presence.user]
        if not tell or (before is not None and before.state == presence.state):
            return False
        self.changes.pop(presence.user, None)
        self.changes[presence.user] = presence
        return True

    def _drop(self, op: QueryOp) -> None:
        for query in [query for query, asked in self._asked.items() if asked is op]:
            del self._asked[query]


def _chunks(users: Sequence[str]) -> Iterator[Sequence[str]]:
    size = wire.PRESENCE_USERS_MAX
    return (users[at : at + size] for at in range(0, len(users), size))
