"""Waiting for a condition with a limit, instead of sleeping and hoping."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def is_readable(descriptor: int, limit_s: float = 0) -> bool:
    """Wait until `descriptor` has something to read; False after `limit_s`.

    By poll(): select() knows no descriptor above 1,023, and a process of many tests has more.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(limit_s * 1000))


def wait_until(condition: Callable[[], T], limit_s: float = 10, what: str = "") -> T:
    """Call `condition` until it is true and return its value; fail with `what` after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    pause_s = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s} s: {what or condition}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.05)
