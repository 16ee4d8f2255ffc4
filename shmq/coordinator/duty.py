"""The duty cycle: services that do a short, bounded piece of work and say when they want to run again.

A service is `step(now_ms) -> next_ms` on the monotonic clock; it never blocks on a socket and waits for a
disk only where its own text says so. One timer serves all of them: it is set to the earliest deadline. An
error in a step is logged, once as long as it stays the same, and the step tried again after `RETRY_MS`; it
does not stop the others.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

from shmq.base import log
from shmq.base.clock import SYSTEM_CLOCK, Clock

RETRY_MS = 1000
"""Pause after a step that failed."""
GRID_MS = 1000
"""Far deadlines are moved down to multiples of this, so an idle coordinator wakes once a second."""
PAUSE_MS_MIN = 1
"""A service that is always due still lets the loop serve requests in between."""

_logger = log.get(__name__)


class Service(Protocol):
    """One service of the coordinator."""

    def step(self, now_ms: int) -> int:
        """Do what is due and return the monotonic time of the next step, in ms."""


@dataclass(slots=True)
class _Entry:
    name: str
    service: Service
    due_ms: int
    failure: str = ""


class DutyCycle:
    """Runs the services in the event loop's thread, in the order they were added."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock = SYSTEM_CLOCK) -> None:
        """Start with no service; `start` begins the turns."""
        self._loop = loop
        self._clock = clock
        self._entries: list[_Entry] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running = False

    def add(self, name: str, service: Service, first_after_ms: int = 0) -> None:
        """Add a service whose first step is due after `first_after_ms`."""
        self._entries.append(_Entry(name, service, self._clock.monotonic_ms() + first_after_ms))
        self._set_timer()

    def start(self) -> None:
        """Begin to run what is due."""
        self._running = True
        self._set_timer()

    def stop(self) -> None:
        """Run nothing any more. Twice is harmless."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hurry(self, name: str) -> None:
        """Make a service due at once: something changed that it should see early."""
        for entry in self._entries:
            if entry.name == name:
                entry.due_ms = self._clock.monotonic_ms()
        self._set_timer()

    def turn(self) -> None:
        """Run every service that is due, once."""
        for entry in self._entries:
            now_ms = self._clock.monotonic_ms()
            if entry.due_ms <= now_ms:
                entry.due_ms = self._step(entry, now_ms)
        self._set_timer()

    def _step(self, entry: _Entry, now_ms: int) -> int:
        try:
            due_ms = entry.service.step(now_ms)
            entry.failure = ""
        except Exception as error:  # the edge of a service: its failure must not end the others
            if repr(error) != entry.failure:
                entry.failure = repr(error)
                log.event(_logger, logging.ERROR, "service_failed", exc_info=True, service=entry.name)
            due_ms = now_ms + RETRY_MS
        if due_ms - now_ms >= GRID_MS:
            due_ms -= due_ms % GRID_MS
        return max(due_ms, now_ms + PAUSE_MS_MIN)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running and self._entries:
            wait_ms = min(entry.due_ms for entry in self._entries) - self._clock.monotonic_ms()
            # the loop's clock may be up to 1 ms behind: a timer that is early would wake us twice
            self._timer = self._loop.call_later((wait_ms + 1) / 1000 if wait_ms > 0 else 0, self.turn)
