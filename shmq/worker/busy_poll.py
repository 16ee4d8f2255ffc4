"""Keep the event loop awake for a moment after work, where that pays: a sleeping worker costs its client a
wake-up.

After a request the loop is re-armed for ``busyPollMicros`` instead of sleeping; a request that arrives
meanwhile is read at once. It must cost a loaded machine no throughput and an idle one no power, so it stops
by itself:

    traffic   polls only when the last request came within the budget too: a lone request wakes nobody's fan
    loaded    two looks of one poll lie further apart than ``PREEMPTED_NS``: somebody else wanted this core;
    no
              polling for ``BACKOFF_NS``, doubled each time up to ``BACKOFF_NS_MAX``
    useless   more than half of the recent polls ended without a request: the same

Runs in the worker's event loop thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from time import monotonic_ns

PREEMPTED_NS = 150_000
BACKOFF_NS = 20_000_000
BACKOFF_NS_MAX = 2_000_000_000
_HITS_OF_LAST = 16


class BusyPoll:
    """One per worker. ``worked`` is called for each request."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, budget_ns: int, clock: Callable[[], int] = monotonic_ns
    ) -> None:
        """``budget_ns`` 0 switches it off, as does a machine with a single core."""
        self._loop = loop
        self._budget_ns = budget_ns if len(os.sched_getaffinity(0)) > 1 else 0
        self._clock = clock
        self._last_work = 0
        self._last_look = 0
        self._polling = False
        self._hit = False
        self._score = _HITS_OF_LAST
        self._off_until = 0
        self._backoff_ns = BACKOFF_NS

    def worked(self) -> None:
        """A request was read: poll for the next one, if the last came recently enough."""
        if not self._budget_ns:
            return
        now = self._clock()
        gap, self._last_work = now - self._last_work, now
        if self._polling:
            self._hit = True
        elif gap < self._budget_ns and now >= self._off_until:
            self._polling, self._hit, self._last_look = True, False, now
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """One turn of the loop: go on, end, or give up polling for a while."""
        now = self._clock()
        if now - self._last_look > PREEMPTED_NS and not self._hit:
            self._end()
            self._back_off(now)
            return
        self._last_look = now
        if now - self._last_work < self._budget_ns:
            if self._hit:
                self._hit = False
                self._learn(True)
            self._loop.call_soon(self._look)
            return
        self._end()
        if not self._learn(False):
            self._back_off(now)

    def _end(self) -> None:
        self._polling = False

    def _learn(self, hit: bool) -> bool:
        """Remember an outcome; False when polling has not paid lately."""
        self._score = min(_HITS_OF_LAST, self._score + 1) if hit else self._score - 2
        if hit and self._score == _HITS_OF_LAST:
            self._backoff_ns = BACKOFF_NS
        return self._score > 0

    def _back_off(self, now: int) -> None:
        self._off_until = now + self._backoff_ns
        self._backoff_ns = min(self._backoff_ns * 2, BACKOFF_NS_MAX)
        self._score = _HITS_OF_LAST // 2
