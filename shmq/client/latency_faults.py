"""Latency fault tolerance: after a slow or failed attempt a broker is avoided for a while.

Pure: the producer tells what it saw (`update`) and asks (`is_available`, `is_reachable`). Off by default
(`send_latency_fault_enable`), never used for sends with a selector or an explicit queue. The table is
RocketMQ's (Apache RocketMQ 5.3, MQFaultStrategy.java). Called by any sending thread; one lock guards the map.
"""

from __future__ import annotations

import bisect
import threading
from dataclasses import dataclass

from shmq.base.clock import SYSTEM_CLOCK, Clock

LATENCY_MS = (50, 100, 550, 1800, 3000, 5000, 15000)
AVOIDED_MS = (0, 0, 2000, 5000, 6000, 10000, 30000)
"""A latency of at least LATENCY_MS[i] (the highest that fits) avoids the broker for AVOIDED_MS[i]."""

FAILED_LATENCY_MS = 10_000
"""What a transport error or an error code counts as: the broker is avoided for 10 s."""


def avoided_ms(latency_ms: int) -> int:
    """Return how long a broker that took `latency_ms` is avoided."""
    step = bisect.bisect_right(LATENCY_MS, latency_ms)
    return AVOIDED_MS[step - 1] if step else 0


@dataclass(slots=True)
class _Fault:
    """One broker's record; `start_ms` (monotonic) is only ever moved later."""

    start_ms: int
    reachable: bool


class LatencyFaults:
    """The brokers that are avoided now."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        """Start with no broker avoided."""
        self._clock = clock
        self._lock = threading.Lock()
        self._faults: dict[str, _Fault] = {}

    def update(
        self, broker_name: str, latency_ms: int, *, failed: bool = False, reachable: bool = True
    ) -> None:
        """Record one attempt: its latency, whether it failed (then it counts as 10 s), whether the broker
        answered."""
        start = self._clock.monotonic_ms() + avoided_ms(FAILED_LATENCY_MS if failed else latency_ms)
        with self._lock:
            fault = self._faults.get(broker_name)
            if fault is None:
                self._faults[broker_name] = _Fault(start, reachable)
            else:
                fault.start_ms = max(fault.start_ms, start)
                fault.reachable = reachable

    def is_available(self, broker_name: str) -> bool:
        """Tell whether no avoidance period of that broker is running."""
        fault = self._faults.get(broker_name)
        return fault is None or self._clock.monotonic_ms() >= fault.start_ms

    def is_reachable(self, broker_name: str) -> bool:
        """Tell whether the last attempt got any answer from that broker."""
        fault = self._faults.get(broker_name)
        return fault is None or fault.reachable
