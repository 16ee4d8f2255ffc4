"""The worker's duty cycle beside its sockets: services that settle what waits, woken by the bell, by what
this worker has appended itself, or by a deadline.

Each service has ``step(now_ms) -> next deadline or None``. The cycle runs all of them in a fixed order,
then arms one timer for the earliest deadline. Runs in the worker's event loop; an idle worker has at most
one far timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from shmq.net.outbox import Outbox
from shmq.shm.doorbell import Doorbell

Step = Callable[[int], int | None]


class DutyCycle:
    """Clear the bell, look for work, arm the timer: in this order, or a wake-up is lost."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bell: Doorbell,
        outbox: Outbox,
        monotonic_ms: Callable[[], int],
    ) -> None:
        """Set ``steps`` before ``start``: they run in that order, each bounded and without blocking."""
        self._loop = loop
        self._bell = bell
        self.steps: Sequence[Step] = ()
        self._outbox = outbox
        self._monotonic_ms = monotonic_ms
        self._timer: asyncio.TimerHandle | None = None
        self._armed_ms = 0
        self._soon = False

    def start(self) -> None:
        """Watch the bell."""
        self._loop.add_reader(self._bell.fileno(), self._on_bell)

    def stop(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._bell.fileno())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wake_by(self, deadline_ms: int) -> None:
        """Make sure the services are looked at when the monotonic clock shows ``deadline_ms``."""
        if self._timer is not None:
            if self._armed_ms <= deadline_ms:
                return
            self._timer.cancel()
        self._armed_ms = deadline_ms
        delay_s = max(0, deadline_ms - self._monotonic_ms()) / 1000
        self._timer = self._loop.call_later(delay_s, self._on_timer)

    def look_soon(self) -> None:
        """Run the services before the loop sleeps: something changed that this process did itself."""
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self._on_soon)

    def run(self) -> None:
        """Run every service once and arm the timer for what comes next."""
        now_ms = self._monotonic_ms()
        earliest: int | None = None
        with self._outbox:
            for step in self.steps:
                deadline_ms = step(now_ms)
                if deadline_ms is not None and (earliest is None or deadline_ms < earliest):
                    earliest = deadline_ms
        if earliest is not None:
            self.wake_by(earliest)

    def _on_bell(self) -> None:
        self._bell.clear()
        self.run()

    def _on_soon(self) -> None:
        self._soon = False
        self.run()

    def _on_timer(self) -> None:
        self._timer = None
        self.run()
