"""Whether this coordinator has heard from every worker what clients and locks it holds.

Until then nothing is said about membership and no lock is granted: a coordinator that was started again
knows nothing, and a worker's silence does not mean that a client is gone. Workers that live are those the
control page lists. A worker that stays silent (a stopped process) is waited for `LIMIT_S` only, with a
warning: its clients are not served anyway; queue locks are then withheld for as long as any lock could
still be held.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from shmq.base import log
from shmq.coordinator.worker_links import WorkerLinks

LIMIT_S = 5.0
LOOK_S = 0.05

_logger = log.get(__name__)


class Settling:
    """Becomes `settled` once, and then stays so."""

    def __init__(self, links: WorkerLinks, live_slots: Callable[[], Iterable[int]]) -> None:
        """`live_slots` lists the slots of workers that are alive according to the page."""
        self._links = links
        self._live_slots = live_slots
        self._done = asyncio.Event()
        self.silent: list[int] = []
        """Slots of workers that had not replayed when the limit was reached."""

    @property
    def settled(self) -> bool:
        """Whether membership and locks may be answered."""
        return self._done.is_set()

    async def wait(self) -> None:
        """Return when settled."""
        await self._done.wait()

    def missing(self) -> list[int]:
        """Slots of live workers that have not told everything yet."""
        links = {link.slot: link for link in self._links}
        return [slot for slot in self._live_slots() if slot not in links or not links[slot].replayed]

    async def run(self) -> None:
        """Wait for every live worker, at most `LIMIT_S`; then declare it settled."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LIMIT_S
        while self.missing() and loop.time() < deadline:
            await asyncio.sleep(LOOK_S)
        self.silent = self.missing()
        if self.silent:
            log.event(_logger, logging.WARNING, "workers_silent", slots=self.silent, waited_s=LIMIT_S)
        self._done.set()
