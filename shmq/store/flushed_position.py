"""FlushedPosition: how far the log is on the disk, a word of the page, and the one way to move it.

    before       whoever moves it has loaded `write_position`, then synced everything between the flushed
                 position and that value, through descriptors that were open before those bytes were written
    flush.lock   flock(LOCK_EX): nobody has failed, the value is larger: store it; unlock
    after        fence, ring FLUSH_RINGS

The flusher moves it, and under SYNC_FLUSH workers (`turn_flush.py`). They may sync at the same time: the
kernel tells a failed write to each descriptor that was open, so each of them knows of its own bytes. Only the
store is one at a time, so the position never goes back. Nobody waits for a disk with the lock: it is held for
microseconds, and the kernel drops it with its holder. A holder that stands still is ended by the flusher, as
one of the AppendLock is by the supervisor.

A failed sync is final, whoever made it: the kernel may have dropped the pages, a second try would succeed
over lost data. The page state becomes FLUSH_FAILED, acknowledging stops, and the next start recovers from the
disk. No numpy here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from shmq.base import log
from shmq.base.faults import declare, reach
from shmq.base.files import SharedFileLock, lock_holders
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.counters import SlotCounters
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import FLUSH_RINGS, FLUSHED_POSITION, STATE
from shmq.shm.rings import ring_parked
from shmq.shm.word import fence
from shmq.shm.worker_slots import SlotTable

TRY_AGAIN_S = 100e-6
TRIES_MAX = 5000
"""Who holds the lock for so many looks, about a second, hangs or was stopped: it needs it for microseconds.

Looks, not a clock: when all processes were frozen together (a suspended machine), nobody is to blame.
"""

_OK = int(PageState.OK)
_logger = log.get(__name__)

ACKNOWLEDGE_EARLY = "flush.acknowledge_early"
declare({ACKNOWLEDGE_EARLY: "a defect for tests: flushed_position moves before the sync"})


class FlushedPosition:
    """The position as one thread moves it."""

    def __init__(
        self, lock_file: Path, page: ControlPage, slot: int, bells: Sequence[Doorbell], locked: str
    ) -> None:
        """Count for `slot`. `locked` is the fault point that is reached with the lock.

        OSError when the lock file cannot be made.
        """
        self._locked = locked
        self._page = page
        self._words = page.words
        self._bells = bells
        self._counters = SlotCounters(page, slot)
        self._lock = SharedFileLock(lock_file)

    def move(self, target: int, *, wait: bool) -> bool:
        """Everything below `target` is synced: say so, unless more was said or somebody's sync has failed.

        False when somebody else has the lock and the caller does not want to `wait`: nothing was said.
        """
        if not (self._lock.exclusive(nonblocking=True) or (wait and self._wait())):
            return False
        words = self._words
        reach(self._locked)
        if words[STATE] == _OK and words[FLUSHED_POSITION] < target:
            words[FLUSHED_POSITION] = target
        self._lock.unlock()
        self.ring()
        return True

    def fail(self, error: OSError) -> None:
        """A sync of the log failed: nothing is acknowledged any more, by anybody."""
        self._page.state = PageState.FLUSH_FAILED
        self._counters.add("flush_failures")
        flushed = self._words[FLUSHED_POSITION]
        log.event(_logger, logging.CRITICAL, "flush_failed", error=error, flushed=flushed)
        self.ring()

    def ring(self) -> None:
        """Wake who waits for the position, or for the end of all waiting."""
        fence()
        ring_parked(self._page, FLUSH_RINGS, self._bells)

    def release(self) -> None:
        """Close the lock file. Twice is harmless."""
        self._lock.release()

    def _wait(self) -> bool:
        """Wait until the lock is ours. True."""
        tries = 0
        while not self._lock.exclusive(nonblocking=True):
            tries += 1
            if tries % TRIES_MAX == 0:
                self._end_holder()
            time.sleep(TRY_AGAIN_S)
        return True

    def _end_holder(self) -> None:
        """Kill the process of this broker that has the lock; the supervisor starts it again."""
        appenders = {slot.pid for slot in SlotTable(self._page).taken()} - {os.getpid()}
        for pid in lock_holders(os.fstat(self._lock.fileno()), "FLOCK"):
            if pid in appenders:
                log.event(_logger, logging.ERROR, "flush_lock_stuck", pid=pid)
                self._counters.add("holders_stuck")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
