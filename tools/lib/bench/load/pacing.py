"""Pacing: when an open-loop sender should have sent, whatever the answers to earlier sends took.

Latency is counted from the intended time. A sender that waits for an answer before it looks at the clock
again would leave out of its figures just those messages that a stall delayed (coordinated omission).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

SPIN_NS = 150_000
"""A sleep may end so late (timer slack, waking a halted core): the rest is waited for awake."""


def intended_times(begin_ns: int, rate: float, seconds: float) -> Iterator[int]:
    """The moments of an open-loop schedule: `rate` a second for `seconds`, from `begin_ns` on."""
    for number in range(round(rate * seconds)):
        yield begin_ns + round(number * 1e9 / rate)


def wait_until(
    moment_ns: int,
    clock: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return at a moment of the clock, at once when it has passed."""
    while (left := moment_ns - clock()) > 0:
        if left > SPIN_NS:
            sleep((left - SPIN_NS) / 1e9)


def paced(
    send: Callable[[int], object],
    times: Iterator[int],
    clock: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> list[int]:
    """Call `send(intended time)` on schedule; return nanoseconds from each intended time to its answer.

    A send that comes late because the one before was slow goes out at once and is charged for the delay.
    """
    latencies = []
    for moment in times:
        wait_until(moment, clock, sleep)
        send(moment)
        latencies.append(clock() - moment)
    return latencies
