"""ExecutorPool: runs a consumer's listener on an executor of the application's, in place of `ListenerPool`.

The executor decides how many calls run at once; it stays the application's, and is not shut down here. Tasks
start in the order in which the executor takes them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

from shmq.base import log

T = TypeVar("T")

_LOG = log.get(__name__)


class ExecutorPool(Generic[T]):
    """Hands `run(task)` to an executor for each submitted task."""

    def __init__(self, executor: Executor, run: Callable[[T], None]) -> None:
        """Use an executor of threads: listeners share this process' memory."""
        self._executor = executor
        self._run = run
        self._changed = threading.Condition()
        self._running = 0
        self._stopping = False

    def submit(self, *tasks: T) -> None:
        """Hand tasks over; when the executor was shut down, they are dropped and logged."""
        try:
            for task in tasks:
                self._executor.submit(self._work, task)
        except RuntimeError as error:
            _LOG.error("the executor takes no listener calls any more: %s", error)

    def _work(self, task: T) -> None:
        with self._changed:
            if self._stopping:
                return
            self._running += 1
        try:
            self._run(task)
        except Exception:  # the executor would keep it in a future nobody looks at
            _LOG.exception("a consume task failed")
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def set_threads(self, count: int) -> None:
        """The executor's owner decides how many calls run at once."""

    def stop(self, grace_s: float) -> bool:
        """Let running tasks finish for up to `grace_s`, start no more; False when some still run."""
        with self._changed:
            self._stopping = True
            return self._changed.wait_for(lambda: not self._running, grace_s)
