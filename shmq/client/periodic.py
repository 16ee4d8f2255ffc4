"""Periodic: one thread that runs a client's repeated duties (routes, heartbeats, offsets) at their times.

A duty that raises is logged and runs again at its next time; duties run one after another. The thread sleeps
until the next due time, or until `wake`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from shmq.base import log

_LOG = log.get(__name__)


@dataclass(slots=True)
class Duty:
    """One repeated call. `due` is monotonic seconds; storing an earlier one and waking runs it sooner."""

    name: str
    run: Callable[[], object]
    period_s: float
    due: float


class Periodic:
    """The duties and their thread."""

    def __init__(self, name: str) -> None:
        """Start nothing yet."""
        self._name = name
        self._duties: list[Duty] = []
        self._lock = threading.Lock()
        """For changes of the list: consumers that come and go share it."""
        self._bell = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def add(self, name: str, run: Callable[[], object], first_s: float, period_s: float) -> Duty:
        """Add a duty, first due in `first_s` seconds."""
        duty = Duty(name, run, period_s, time.monotonic() + first_s)
        with self._lock:
            self._duties = [*self._duties, duty]
        self._bell.set()
        return duty

    def remove(self, duty: Duty) -> None:
        """Run a duty no more; again is harmless."""
        with self._lock:
            self._duties = [kept for kept in self._duties if kept is not duty]

    def start(self) -> None:
        """Start the thread; again is harmless."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Look at the due times again: somebody stored an earlier one."""
        self._bell.set()

    def stop(self, limit_s: float = 3.0) -> None:
        """End the thread after the duty it is in; called by another thread or by a duty itself."""
        self._stopping = True
        self._bell.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(limit_s)

    def _loop(self) -> None:
        while not self._stopping:
            self._bell.clear()
            now = time.monotonic()
            for duty in self._duties:
                if duty.due <= now and not self._stopping:
                    duty.due = now + duty.period_s
                    try:
                        duty.run()
                    except Exception as error:  # the edge of this thread: the other duties must go on
                        _LOG.warning(
                            "duty %s failed, next try in %.0f s: %s", duty.name, duty.period_s, error
                        )
            next_due = min((duty.due for duty in self._duties), default=now + 60)
            self._bell.wait(max(0.0, next_due - time.monotonic()))
