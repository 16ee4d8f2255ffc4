"""TaskLoop: one thread that runs callables, now or after a delay, in the order of their times.

A consumer's pull loop and its second tries live here. A task that raises is logged; the loop goes on.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from shmq.base import log

_LOG = log.get(__name__)


class TaskLoop:
    """Tasks in the order of their due times."""

    def __init__(self, name: str) -> None:
        """Start nothing yet."""
        self._name = name
        self._changed = threading.Condition(threading.Lock())
        self._tasks: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
        self._thread.start()

    def later(self, delay_s: float, task: Callable[[], None]) -> None:
        """Run a task after a delay; any thread."""
        due = time.monotonic() + delay_s if delay_s > 0 else 0.0
        with self._changed:
            heapq.heappush(self._tasks, (due, next(self._order), task))
            if self._tasks[0][2] is task:
                self._changed.notify()

    def stop(self, limit_s: float) -> None:
        """Drop what waits and end the thread after the task it is in."""
        with self._changed:
            self._stopping = True
            self._tasks.clear()
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(limit_s)

    def _loop(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except Exception:  # the edge of this thread: the other tasks must go on
                _LOG.exception("a task of %s failed", self._name)

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next due task; None when stopping."""
        with self._changed:
            while not self._stopping:
                if not self._tasks:
                    self._changed.wait()
                    continue
                wait_s = self._tasks[0][0] - time.monotonic()
                if wait_s <= 0:
                    return heapq.heappop(self._tasks)[2]
                self._changed.wait(wait_s)
            return None
