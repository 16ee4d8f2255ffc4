"""StepThread: a thread that does a service's next piece of work when it is due or when it is woken.

For services of the supervisor that wait for a disk: `step` does one bounded piece and returns the pause in ms
before the next one, 0 for at once, None to sleep until `wake`. Between steps nothing is held, so stopping
costs one step at most. An error that a step does not expect ends the supervisor: without the service nobody
would be answered any more, and the next start recovers.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable

from shmq.base import log

EXIT_SERVICE_FAILED = 1

_logger = log.get(__name__)


def run_or_end(name: str, body: Callable[[], None]) -> None:
    """Run the `body` of a service's thread; end this process when it fails."""
    try:
        body()
    except BaseException:
        log.event(_logger, logging.CRITICAL, "service_failed", exc_info=True, service=name)
        print(f"shmq: the {name} failed; the log says why", file=sys.stderr, flush=True)
        os._exit(EXIT_SERVICE_FAILED)


class StepThread:
    """Runs `step` again and again, in a thread of its own."""

    def __init__(self, name: str, step: Callable[[], int | None]) -> None:
        """Nothing runs before `start`."""
        self._name = name
        self._step = step
        self._wanted = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self, *, at_once: bool = True, first_ms: int | None = None) -> None:
        """Start the thread; the first step is done at once, after `first_ms`, or when it is woken."""
        pause_ms = 0 if at_once else first_ms
        self._thread = threading.Thread(
            target=run_or_end, args=(self._name, lambda: self._run(pause_ms)), name=self._name, daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Let the next step be done now. Any thread."""
        self._wanted.set()

    def stop(self) -> bool:
        """End the thread and wait for it; False when it does not run."""
        if self._thread is None:
            return False
        self._stopping = True
        self._wanted.set()
        self._thread.join()
        self._thread = None
        return True

    def _run(self, pause_ms: int | None) -> None:
        while not self._stopping:
            self._wanted.wait(None if pause_ms is None else pause_ms / 1000)
            self._wanted.clear()
            if not self._stopping:
                pause_ms = self._step()
