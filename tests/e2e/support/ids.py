"""Message ids: UUIDv7 (RFC 9562, section 5.7), increasing within this process."""

from __future__ import annotations

import itertools
import os
import time

_counter = itertools.count()
_run = int.from_bytes(os.urandom(5), "big")


def at(unix_ms: int, number: int | None = None) -> bytes:
    """Return an id of that time; ``number`` orders ids of one millisecond."""
    number = next(_counter) if number is None else number
    return uuid7(unix_ms, number >> 20 & 0xFFF, (number & 0xFFFFF) << 42 | _run << 2)


def uuid7(unix_ms: int, rand_a: int, rand_b: int) -> bytes:
    """Return an id of these fields: 48, 12 and 62 bits."""
    value = unix_ms << 80 | 7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    return value.to_bytes(16, "big")


def now() -> bytes:
    """Return an id of now."""
    return at(time.time_ns() // 1_000_000)


def ms() -> int:
    """Return Unix milliseconds."""
    return time.time_ns() // 1_000_000
