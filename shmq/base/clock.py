"""Wall and monotonic time in whole milliseconds, replaceable in tests.

Store times and everything on the wire use `now_ms` (may jump when the clock is set); deadlines and ages use
`monotonic_ms` (never jumps). Code that must be tested against time takes a `Clock` and defaults to
`SYSTEM_CLOCK`.
"""

from __future__ import annotations

import time
from typing import Protocol


def now_ms() -> int:
    """Return the wall time: milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Return milliseconds of CLOCK_MONOTONIC: never goes back, the same in all processes of a boot."""
    return time.monotonic_ns() // 1_000_000


class Clock(Protocol):
    """What code that needs replaceable time asks for."""

    def now_ms(self) -> int:
        """Return wall milliseconds."""

    def monotonic_ms(self) -> int:
        """Return monotonic milliseconds."""


class SystemClock:
    """The machine's own clocks."""

    now_ms = staticmethod(now_ms)
    monotonic_ms = staticmethod(monotonic_ms)


SYSTEM_CLOCK: Clock = SystemClock()


class ManualClock:
    """A clock for tests that moves only when told to."""

    def __init__(self, now_ms: int = 1_700_000_000_000, monotonic_ms: int = 0) -> None:
        """Start at the given wall and monotonic milliseconds."""
        self._now_ms = now_ms
        self._monotonic_ms = monotonic_ms

    def now_ms(self) -> int:
        """Return the wall time as set."""
        return self._now_ms

    def monotonic_ms(self) -> int:
        """Return the monotonic time as set."""
        return self._monotonic_ms

    def advance(self, ms: int) -> None:
        """Let `ms` milliseconds pass on both clocks."""
        self._now_ms += ms
        self._monotonic_ms += ms

    def set_wall(self, now_ms: int) -> None:
        """Set the wall clock, back or forth, as an administrator would; monotonic time stays."""
        self._now_ms = now_ms
