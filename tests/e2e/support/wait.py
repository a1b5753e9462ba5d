"""Waiting for conditions. A condition is asked again and again until it holds; no test sleeps for a fixed time."""

from __future__ import annotations

import threading
import time
from typing import Callable, TypeVar

T = TypeVar("T")

_never = threading.Event()


def until(condition: Callable[[], T], what: str, timeout: float = 10.0, every: float = 0.01) -> T:
    """Return the first true value of ``condition``; fail with ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout} s still not: {what}")
        _never.wait(every)
