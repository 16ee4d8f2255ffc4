"""The order in which a broker comes up and goes down, as data.

Steps are started in their order and stopped in the reverse one; each is logged with its time. A step that
fails to start stops those before it. Stopping is the one door out: it goes on after a step that fails, and
twice is harmless. Main thread of the supervisor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shmq.base import log
from shmq.base.clock import monotonic_ms

_logger = log.get("shmq.supervisor")


def _nothing() -> None:
    """Stand in for a step that has nothing to undo."""


@dataclass(frozen=True)
class Step:
    """One step of the lifecycle: what it is called in the log, how it starts, how it is undone."""

    name: str
    start: Callable[[], None]
    stop: Callable[[], None] = _nothing


class Lifecycle:
    """Runs steps up and down."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = tuple(steps)
        self._started: list[Step] = []
        self.failed_stops: list[str] = []
        """Names of steps whose stop raised; the broker's exit code tells of it."""

    def start(self) -> None:
        """Start every step; on a failure stop what had started, then raise it."""
        try:
            for step in self._steps:
                began_ms = monotonic_ms()
                self._started.append(step)
                step.start()
                _log("step_started", step, began_ms)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop what was started, newest first. A step that failed half-way through its start is stopped
        too."""
        while self._started:
            step = self._started.pop()
            began_ms = monotonic_ms()
            try:
                step.stop()
            except Exception:  # the edge of shutdown: the steps below must still be undone
                self.failed_stops.append(step.name)
                log.event(_logger, logging.ERROR, "step_stop_failed", step=step.name, exc_info=True)
            else:
                _log("step_stopped", step, began_ms)


def _log(event: str, step: Step, began_ms: int) -> None:
    log.event(_logger, logging.INFO, event, step=step.name, ms=monotonic_ms() - began_ms)
