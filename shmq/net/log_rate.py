"""Bound how many lines a process writes about its peers' faults: a hostile peer must not fill the log.

Counters see every fault; the log sees the first ones of each second, and how many it missed. One per process,
used in its event loop thread.
"""

from __future__ import annotations

import logging
from typing import Any

from shmq.base import log
from shmq.base.clock import SYSTEM_CLOCK, Clock

LINES_PER_SECOND = 5


class LogRate:
    """Writes at most ``LINES_PER_SECOND`` events a second."""

    def __init__(self, logger: logging.Logger, clock: Clock = SYSTEM_CLOCK) -> None:
        """Write to ``logger``."""
        self._logger = logger
        self._clock = clock
        self._second = 0
        self._lines = 0
        self._unseen = 0

    def event(self, level: int, name: str, **values: Any) -> None:
        """Write one event, or only count it when this second has had its share."""
        second = self._clock.monotonic_ms() // 1000
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= LINES_PER_SECOND:
            self._unseen += 1
            return
        self._lines += 1
        if self._unseen:
            values["unseen_before"], self._unseen = self._unseen, 0
        log.event(self._logger, level, name, **values)
