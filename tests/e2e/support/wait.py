"""Waiting for conditions. A condition is asked again and again until it holds; no test sleeps for a fixed time.

How fast things are is measured in bench/. Here nothing may depend on it: a test waits for what must come as long as a
machine that is busy with other things could need, so that only what never comes fails.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, TypeVar

T = TypeVar("T")

#: Seconds to wait for what must come. A sound server on an idle machine needs milliseconds.
PATIENCE = 120.0

_never = threading.Event()


def until(condition: Callable[[], T], what: str, timeout: float = PATIENCE, every: float = 0.01) -> T:
    """Return the first true value of ``condition``; fail with ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout} s still not: {what}")
        _never.wait(every)
