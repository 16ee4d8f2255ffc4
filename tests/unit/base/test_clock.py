from __future__ import annotations

import time

from shmq.base.clock import SYSTEM_CLOCK, ManualClock, monotonic_ms, now_ms


def test_system_clock_is_wall_and_monotonic_milliseconds() -> None:
    assert abs(now_ms() - time.time() * 1000) < 1000
    assert abs(monotonic_ms() - time.monotonic() * 1000) < 1000
    assert SYSTEM_CLOCK.now_ms() >= 1_700_000_000_000


def test_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(now_ms=5000, monotonic_ms=10)
    clock.advance(7)
    assert (clock.now_ms(), clock.monotonic_ms()) == (5007, 17)


def test_setting_the_wall_clock_back_leaves_monotonic_time() -> None:
    clock = ManualClock(now_ms=5000, monotonic_ms=10)
    clock.set_wall(1000)
    assert (clock.now_ms(), clock.monotonic_ms()) == (1000, 10)
