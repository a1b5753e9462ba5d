"""Message ids: UUIDv7 (RFC 9562, section 5.7) on the server's clock, always increasing."""

from __future__ import annotations

import secrets
import uuid
from typing import Callable

_COUNTER_BITS = 74
_COUNTER_MAX = (1 << _COUNTER_BITS) - 1
_RAND_B_MASK = (1 << 62) - 1


def compose(unix_ms: int, counter: int) -> uuid.UUID:
    """Return the UUIDv7 of a time and 74 bits: 12 in rand_a, 62 in rand_b."""
    value = (unix_ms & 0xFFFF_FFFF_FFFF) << 80 | 7 << 76 | (counter >> 62) << 64
    return uuid.UUID(int=value | 0b10 << 62 | (counter & _RAND_B_MASK))


def unix_ms(msg_id: uuid.UUID) -> int:
    """Return the time in an id."""
    return msg_id.int >> 80


class MessageIds:
    """Makes ids that increase, also within a millisecond (RFC 9562, section 6.2, method 2).

    The time is the server's, carried on by a monotonic clock: a wrong wall clock does no harm.
    """

    def __init__(self, random_bits: Callable[[int], int] = secrets.randbits) -> None:
        self._random_bits = random_bits
        self._offset_ms = 0.0
        self._last_ms = -1
        self._counter = 0

    def set_clock(self, server_time_ms: int, now: float) -> None:
        """Take over the server's clock; ``now`` is the monotonic clock in seconds."""
        self._offset_ms = server_time_ms - now * 1000

    def next(self, now: float) -> uuid.UUID:
        """Return an id above all before it."""
        time_ms = int(now * 1000 + self._offset_ms)
        if time_ms > self._last_ms:
            self._last_ms = time_ms
            self._counter = self._random_bits(_COUNTER_BITS - 1)
        else:
            self._counter += 1 + self._random_bits(32)
            if self._counter > _COUNTER_MAX:
                self._last_ms += 1
                self._counter = self._random_bits(_COUNTER_BITS - 1)
        return compose(self._last_ms, self._counter)
