"""What this worker counts: page counters for operators, and per-topic increments for the coordinator's
statistics.

Runs in the worker's event loop. Counting is a dict entry; about once a second, and only while there is
something to tell, the counts are added to the page and sent to the coordinator. A worker's death loses at
most that second of counts, never a message.
"""

from __future__ import annotations

from collections.abc import Callable

from shmq.net.connection import Traffic
from shmq.protocol.internal import StatsReport
from shmq.shm.counters import SlotCounters

REPORT_INTERVAL_MS = 1_000


class Tally:
    """Implements ``handlers.context.WorkerStats`` and the ``count`` function of everything in this worker."""

    def __init__(
        self,
        counters: SlotCounters,
        report: Callable[[StatsReport], bool],
        wake_by: Callable[[int], None],
        monotonic_ms: Callable[[], int],
    ) -> None:
        """``report`` hands an increment to the coordinator; False: it is not there, keep collecting."""
        self._counters = counters
        self._report = report
        self._wake_by = wake_by
        self._monotonic_ms = monotonic_ms
        self.traffic = Traffic()
        self._counts: dict[str, int] = {}
        self._puts: dict[str, list[int]] = {}
        self._gets: dict[tuple[str, str], list[int]] = {}
        self._found = 0
        self._missed = 0
        self._failed = 0
        self._put_time_max_ms = 0
        self._due_ms: int | None = None

    def count(self, name: str, n: int) -> None:
        """Add ``n`` to the page counter ``name``."""
        counts = self._counts
        counts[name] = counts.get(name, 0) + n
        if self._due_ms is None:
            self._arm()

    def put(self, topic: str, messages: int, size: int) -> None:
        """Count stored messages and their record bytes."""
        row = self._puts.get(topic)
        if row is None:
            row = self._puts[topic] = [0, 0]
        row[0] += messages
        row[1] += size
        if self._due_ms is None:
            self._arm()

    def put_failed(self) -> None:
        """Count a refused or failed send."""
        self._failed += 1
        self.count("sends_refused", 1)

    def put_took(self, spent_ms: int) -> None:
        """Remember the slowest append."""
        if spent_ms > self._put_time_max_ms:
            self._put_time_max_ms = spent_ms

    def got(self, topic: str, group: str, messages: int, size: int) -> None:
        """Count messages handed to a consumer group."""
        row = self._gets.get((topic, group))
        if row is None:
            row = self._gets[(topic, group)] = [0, 0]
        row[0] += messages
        row[1] += size
        if self._due_ms is None:
            self._arm()

    def pulled(self, found: bool) -> None:
        """Count a pull by its outcome."""
        if found:
            self._found += 1
            self.count("pulls_found", 1)
        else:
            self._missed += 1

    def _arm(self) -> None:
        self._due_ms = self._monotonic_ms() + REPORT_INTERVAL_MS
        self._wake_by(self._due_ms)

    def step(self, now_ms: int) -> int | None:
        """Hand over what was counted when it is time; return when that is, None when nothing was counted."""
        if self._due_ms is None or now_ms < self._due_ms:
            return self._due_ms
        self.flush()
        if self._puts or self._gets:  # the coordinator is away: keep what it has not heard
            self._due_ms = now_ms + REPORT_INTERVAL_MS
        return self._due_ms

    def flush(self) -> None:
        """Add the counts to the page and tell the coordinator its part."""
        self._due_ms = None
        for name, n in (*self._counts.items(), *self.traffic.take().items()):
            self._counters.add(name, n)
        self._counts = {}
        report = StatsReport(
            puts={topic: (row[0], row[1]) for topic, row in self._puts.items()},
            gets={key: (row[0], row[1]) for key, row in self._gets.items()},
            found=self._found,
            missed=self._missed,
            failed=self._failed,
            put_time_max_ms=self._put_time_max_ms,
        )
        if report != StatsReport() and self._report(report):
            self._puts, self._gets = {}, {}
            self._found = self._missed = self._failed = self._put_time_max_ms = 0
