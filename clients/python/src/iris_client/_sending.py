"""Messages on their way out: windows, answers, retries, and what a lost connection leaves open."""

from __future__ import annotations

import heapq
import random
import uuid
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Optional, Union

from . import _protocol as wire
from ._ids import MessageIds

#: Newer messages begun, above which a SEND could fall below what the server remembers.
SPAN_MAX = wire.DEDUP_IDS_PER_SENDER_MAX - 1
_SEQ_MASK = 0xFFFF_FFFF


class SendOp:
    """A message on its way: from the call until it is accepted, refused or given up."""

    __slots__ = (
        "attempts",
        "begun",
        "count",
        "decided",
        "flags",
        "id",
        "id_is_given",
        "last_refusal",
        "may_be_in",
        "names",
        "ordinal",
        "payload",
        "refused",
        "reliable",
        "tracked",
    )

    def __init__(
        self,
        to: Sequence[str],
        payload: bytes,
        *,
        receipt: bool = False,
        reliable: bool = False,
        msg_id: Optional[uuid.UUID] = None,
    ) -> None:
        self.names = b"".join(map(wire.encode_name, to))
        self.count = len(to)
        self.payload = payload
        self.flags = wire.WANTS_RECEIPT if receipt else 0
        self.reliable = reliable
        self.id = msg_id
        self.id_is_given = msg_id is not None
        self.begun = False  # a SEND with this id has left
        self.decided = False  # nobody waits for it any more
        self.refused = False  # the latest SEND of it was answered by REJECTED
        self.may_be_in = False  # a SEND of it was never answered
        self.tracked = False  # it stands in the heap of undecided ids
        self.ordinal = 0
        self.attempts = 0
        self.last_refusal: Optional[str] = None

    @property
    def sent_id(self) -> Optional[uuid.UUID]:
        """The id, if a SEND with it has left."""
        return self.id if self.begun else None

    @property
    def is_surely_out(self) -> bool:
        """Whether it is in no inbox for certain, and nobody else knows its id.

        A refused SEND to one user is in no inbox: going on with a fresh id makes no second entry.
        """
        return self.refused and not (self.may_be_in or self.id_is_given) and self.count == 1


class SendAccepted(NamedTuple):
    """A message is in its inboxes."""

    op: SendOp


class SendRefused(NamedTuple):
    """A message was refused for good, or is not retried."""

    op: SendOp
    code: int
    retry_after_ms: int


class SendUnknown(NamedTuple):
    """The connection went away before the answer, and the message is not retried."""

    op: SendOp


SendEvent = Union[SendAccepted, SendRefused, SendUnknown]


class Sending:
    """The sending half of a session. What may be repeated outlives the connection."""

    def __init__(self, ids: MessageIds, rng: random.Random) -> None:
        self._ids = ids
        self._rng = rng
        self._queue: deque[SendOp] = deque()
        self._unanswered: dict[int, SendOp] = {}
        self._undecided: list[tuple[int, SendOp]] = []
        self._retries: list[tuple[float, int, SendOp]] = []
        self._seq = 0
        self._ordinal = 0
        self._given_up = 0

    @property
    def has_unanswered(self) -> bool:
        """Whether the server owes an answer."""
        return bool(self._unanswered)

    @property
    def next_retry(self) -> Optional[float]:
        """When the next refused message is sent again."""
        return self._retries[0][0] if self._retries else None

    def add(self, op: SendOp) -> None:
        """Take a message on; :meth:`pump` sends it."""
        self._queue.append(op)

    def give_up(self, op: SendOp) -> None:
        """Forget about a message: no event will name it."""
        op.decided = True
        op.payload = b""
        self._given_up += 1
        if self._given_up > 64 and self._given_up > len(self._queue) // 2:
            self._queue = deque(op for op in self._queue if not op.decided)
            self._given_up = 0

    def lost(self) -> list[SendEvent]:
        """End the connection. What may be repeated goes first in the next one."""
        events: list[SendEvent] = []
        again = [op for op in self._unanswered.values() if op.reliable and not op.decided]
        for op in self._unanswered.values():
            op.may_be_in = True
            if not (op.reliable or op.decided):
                op.decided = True
                events.append(SendUnknown(op))
        self._unanswered.clear()
        while self._queue and self._queue[0].begun:
            again.append(self._queue.popleft())
        self._put_first(again)
        return events

    def tick(self, now: float) -> None:
        """Line up the refused messages whose time has come."""
        again = []
        while self._retries and self._retries[0][0] <= now:
            again.append(heapq.heappop(self._retries)[2])
        self._put_first(again)

    def pump(self, window: int, now: float, out: list[bytes]) -> None:
        """Send what the window allows."""
        while self._queue and len(self._unanswered) < window:
            op = self._queue[0]
            if not op.decided:
                if not self._name(op, now):
                    return
                out.append(self._send(op))
            self._queue.popleft()

    def accepted(self, said: wire.Accepted) -> list[SendEvent]:
        """Take an ACCEPTED."""
        events: list[SendEvent] = []
        for first, count in said.runs:
            for seq in range(first, first + count):
                op = self._answered(seq & _SEQ_MASK)
                if not op.decided:
                    op.decided = True
                    events.append(SendAccepted(op))
        return events

    def rejected(self, said: wire.Rejections, now: float) -> list[SendEvent]:
        """Take a REJECTED."""
        events: list[SendEvent] = []
        for seq, code, retry_after_ms in said.entries:
            op = self._answered(seq)
            op.refused = True
            op.last_refusal = wire.code_name(code)
            if op.decided:
                continue
            if op.reliable and code >= wire.RETRYABLE:
                least = max(retry_after_ms / 1000, min(0.05 * 2**op.attempts, 5.0))
                due = now + least * (1 + self._rng.random())
                heapq.heappush(self._retries, (due, op.ordinal, op))
            else:
                op.decided = True
                events.append(SendRefused(op, code, retry_after_ms))
        return events

    def _answered(self, seq: int) -> SendOp:
        op = self._unanswered.pop(seq, None)
        if op is None:
            raise wire.WireError("malformed", f"an answer to SEND {seq}, which is not open")
        return op

    def _put_first(self, ops: list[SendOp]) -> None:
        """Put messages that were sent before ahead of all others, in their old order."""
        ops.sort(key=lambda op: op.ordinal, reverse=True)
        self._queue.extendleft(ops)

    def _name(self, op: SendOp, now: float) -> bool:
        """Give a message its id. False: older ones have to be decided first.

        The server remembers a bounded number of ids. An id that may have to be sent again must not
        fall below them, so new ones wait for it; one that is surely out takes a new id instead.
        """
        heap = self._undecided
        while heap and (heap[0][1].decided or heap[0][1].is_surely_out):
            heapq.heappop(heap)[1].tracked = False
        if op.begun and op.is_surely_out and self._ordinal - op.ordinal >= SPAN_MAX:
            op.id = None
            op.begun = False
        if not op.begun:
            if heap and self._ordinal - heap[0][0] >= SPAN_MAX:
                return False
            op.begun = True
            op.id = op.id or self._ids.next(now)
            self._ordinal += 1
            op.ordinal = self._ordinal
        if not op.tracked:
            op.tracked = True
            heapq.heappush(heap, (op.ordinal, op))
        return True

    def _send(self, op: SendOp) -> bytes:
        assert op.id is not None, "a message has an id before it is sent"
        op.attempts += 1
        op.refused = False
        seq, self._seq = self._seq, (self._seq + 1) & _SEQ_MASK
        self._unanswered[seq] = op
        return wire.encode_send(seq, op.id.bytes, op.flags, op.names, op.count, op.payload)
