"""Waiting for a condition with a limit, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


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
