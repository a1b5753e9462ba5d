"""Messages on their way in: order, repeats, acknowledgements and the window."""

from __future__ import annotations

import uuid
from collections import OrderedDict, deque
from collections.abc import Callable

from . import _protocol as wire
from ._types import Message

#: Deliveries whose ids are remembered after they are done.
SEEN_MAX = 4 * wire.RECV_WINDOW_MAX

Key = tuple[str, bytes, int]


class Receiving:
    """The receiving half of a session.

    A message is *pending* from its arrival until it is done, and *seen* for a while after that. It
    reaches the application once in that time, however often it is delivered. What arrived but was
    not handed out when a connection is lost is forgotten: it comes again, or another login of the
    user has it.
    """

    def __init__(self, on_ack: Callable[[Message], None]) -> None:
        self.inbox: deque[Message] = deque()
        self.on_ack = on_ack
        self._pending: dict[Key, Message] = {}
        self._seen: OrderedDict[Key, None] = OrderedDict()
        self._window = 0
        self.restart(0)

    def restart(self, window: int) -> None:
        """Begin a connection that was granted this window."""
        self._window = window
        self._arrived = 0
        self._done_upto = 0
        self._acked_upto = 0
        self._done_ahead: set[int] = set()
        self._sizes: deque[int] = deque()
        self._unacked_bytes = 0

    def lost(self) -> None:
        """End the connection: forget what was not handed out."""
        while self.inbox:
            self._pending.pop(_key(self.inbox.popleft()), None)
        for message in self._pending.values():
            message._no = 0

    def delivery(self, said: wire.Delivery) -> bool:
        """Take a MESSAGE. True if it is new to the application."""
        if said.no != self._arrived + 1:
            raise wire.WireError("malformed", f"delivery {said.no} after {self._arrived}")
        under_way = self._arrived - self._acked_upto
        if under_way >= self._window or self._unacked_bytes >= wire.RECV_WINDOW_BYTES:
            raise wire.WireError("malformed", "more deliveries under way than granted")
        self._arrived = said.no
        self._sizes.append(len(said.payload))
        self._unacked_bytes += len(said.payload)
        key = (said.sender, said.id, said.flags & wire.IS_RECEIPT)
        pending = self._pending.get(key)
        if key in self._seen or (pending is not None and pending._no):
            self._mark(said.no)
        elif pending is not None:
            pending._no = said.no
        else:
            message = Message(
                uuid.UUID(bytes=said.id),
                said.sender,
                said.payload,
                said.time_ms,
                wants_receipt=bool(said.flags & wire.WANTS_RECEIPT),
                is_receipt=bool(said.flags & wire.IS_RECEIPT),
                no=said.no,
                on_ack=self.on_ack,
            )
            self._pending[key] = message
            self.inbox.append(message)
            return True
        return False

    def done(self, message: Message) -> None:
        """Acknowledge a message. Doing it again changes nothing."""
        key = _key(message)
        if self._pending.pop(key, None) is None:
            return
        self._seen[key] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        if message._no:
            self._mark(message._no)

    def ack(self) -> bytes:
        """Return an ACK of all that was done since the last one, or nothing."""
        if self._done_upto == self._acked_upto:
            return b""
        for _ in range(self._done_upto - self._acked_upto):
            self._unacked_bytes -= self._sizes.popleft()
        self._acked_upto = self._done_upto
        return wire.encode_ack(self._acked_upto)

    def _mark(self, no: int) -> None:
        self._done_ahead.add(no)
        while self._done_upto + 1 in self._done_ahead:
            self._done_upto += 1
            self._done_ahead.remove(self._done_upto)


def _key(message: Message) -> Key:
    flag = wire.IS_RECEIPT if message.is_receipt else 0
    return (message.sender, message.id.bytes, flag)
