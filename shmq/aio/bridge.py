"""Bridge: calls from an event loop to blocking code and outcomes back, without blocking the loop.

Calls run on one thread in the order they were made (`submit`). Outcomes of any thread are collected and
handed to the loop together, with one wake-up for all that came meanwhile: waking a loop costs more than most
sends.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from shmq.base import log

_LOG = log.get(__name__)

Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Bridge:
    """The way between one loop and one client."""

    def __init__(self, name: str) -> None:
        """Bind to the running loop and start the thread."""
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outcomes: deque[Outcome] = deque()
        self._handing_over = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], None]) -> None:
        """Run a call on the bridge's thread, after those submitted before. Never blocks."""
        self._calls.put(call)

    def close(self) -> None:
        """End the thread after the calls submitted so far."""
        self._calls.put(None)

    def settle(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """Settle a future of the loop; from any thread."""
        self._outcomes.append((future, result, error))
        if not self._handing_over:
            self._handing_over = True
            try:
                self._loop.call_soon_threadsafe(self._hand_over)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._outcomes.clear()

    def _hand_over(self) -> None:
        """Settle everything that has come; on the loop. The flag falls first: later ones call again."""
        self._handing_over = False
        while self._outcomes:
            future, result, error = self._outcomes.popleft()
            if future.done():  # cancelled by whoever awaited it
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:  # the edge of this thread; calls settle their own errors
                _LOG.exception("a call from the event loop failed")
