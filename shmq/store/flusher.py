"""Flusher: moves `flushed_position`. A thread of the supervisor.

    SYNC_FLUSH    whenever something is unflushed: one fdatasync for all that was appended meanwhile
    ASYNC_FLUSH   RocketMQ's rhythm: every flushIntervalCommitLog ms if flushCommitLogLeastPages pages are
                  dirty, all at least every flushCommitLogThoroughInterval ms (5.3, CommitLog.java);
                  and at once when 64 MiB wait, or somebody is parked in FLUSH_RINGS: a send asked for the
                  disk, whose worker parked before it rang this bell

A flush: load `write_position`, fdatasync every segment that overlaps `[flushed_position, that value)`, say so
(`flushed_position.py`, which also has what a failed sync means). Loaded before the sync: what is appended
during it may or may not be on the disk. Under SYNC_FLUSH workers may flush, too (`turn_flush.py`).

What was flushed is then summed into the side files of `checksums.py`: whole pages at once, the rest when
nothing came for a moment. Nobody waits for that.

When nothing is unflushed it parks on APPEND_RINGS and sleeps on the supervisor's doorbell: no wake-ups on an
idle broker. A worker that flushes does not ring it for each append. So it parks on FLUSH_RINGS as well, and
from that bell on it looks every `TELL_MS` until the position stands still. If it dies with the supervisor,
nothing is lost that was promised. No numpy here.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Sequence

from shmq.base import log
from shmq.base.clock import monotonic_ms
from shmq.base.faults import declare, is_on, reach
from shmq.base.syncs import sync_range
from shmq.model.settings import BrokerSettings, FlushDiskType
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.counters import SlotCounters
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import (
    APPEND_RINGS,
    FLUSH_RINGS,
    FLUSHED_POSITION,
    RING_WORDS,
    SEGMENT_RINGS,
    WRITE_POSITION,
)
from shmq.shm.rings import park, unpark
from shmq.store.checksums import LogChecksums
from shmq.store.flushed_position import ACKNOWLEDGE_EARLY, FlushedPosition
from shmq.store.names import StoreLayout
from shmq.store.segment_descriptors import SegmentDescriptors
from shmq.store.step_thread import run_or_end

PAGE_BYTES = 4096
SLOT = 0
"""The supervisor's slot: its bell is the flusher's."""

UNFLUSHED_MAX = 64 << 20
"""So many unflushed bytes are flushed at any time: they are what a start after a power cut has to read."""

SETTLED_MS = 200
"""When nothing was appended for so long, the last bytes are summed, too."""

FAST_BYTES = 1 << 20
FAST_LOOK_MS = 50
"""A log that grew so much since the last look is looked at again so soon."""

BEFORE_SYNC = "flush.before_sync"
SYNCED = "flush.synced"
LOCKED = "flush.locked"
declare(
    {
        BEFORE_SYNC: "the position to flush is chosen, nothing of it is synced",
        SYNCED: "the segments are synced, flushed_position is not stored",
        LOCKED: "the same, flush.lock is held",
    }
)

TELL_MS = 20
"""Who is told of appends (allocator, checkpointer) is told at most so often: each is a thread that takes the
interpreter from this one, in the middle of a flush that somebody waits for."""

DEFECT_S = 0.002
"""How long a sync that was acknowledged early keeps off: a test need not hit the moments of a fast disk."""

_logger = log.get(__name__)


class Flusher:
    """Syncs the CommitLog in log order."""

    def __init__(
        self,
        layout: StoreLayout,
        page: ControlPage,
        bells: Sequence[Doorbell],
        descriptors: SegmentDescriptors,
        settings: BrokerSettings,
        *,
        checksums: LogChecksums,
        on_wake: Callable[[], None],
    ) -> None:
        """`on_wake` is called when something was appended or flushed since the last call, in time: at once
        when an appender waits for a segment, else every `TELL_MS`, and before this thread sleeps for good.

        Allocator and checkpointer have no bell of their own. While the log grows they look by themselves at
        least as often.
        """
        self._bell = bells[SLOT]
        self._bells = bells
        self._layout = layout
        self._page = page
        self._descriptors = descriptors
        self._settings = settings
        self._sync = settings.flush_disk_type is FlushDiskType.SYNC_FLUSH
        self._on_wake = on_wake
        self._checksums = checksums
        self._position = FlushedPosition(layout.flush_lock, page, SLOT, bells, LOCKED)
        self._counters = SlotCounters(page, SLOT)
        self._next_ms = 0
        self._told_ms = 0
        self._owes = False
        self._woken = False
        self._seen_unflushed = 0
        self._followed = 0
        self._thorough_ms = monotonic_ms()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. The segments that may hold unflushed bytes are opened first."""
        flushed = self._followed = int(self._page.words[FLUSHED_POSITION])
        self._checksums.open(flushed)
        self._descriptors.open_from(min(flushed, self._checksums.summed))
        self._thread = threading.Thread(
            target=run_or_end, args=("flusher", self._run), name="flusher", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Flush what is left, end the thread. Call it after the last appender is gone. Twice is harmless."""
        self._stopping = True
        self._bell.ring()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            if self._page.state is PageState.OK:
                self.flush()
            self._position.release()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._bell.fileno(), select.POLLIN)
        while not self._stopping:
            now_ms = monotonic_ms()
            pause_ms = self.step(now_ms)
            if self._owes and now_ms - self._told_ms >= TELL_MS:
                self._tell(now_ms)
            if pause_ms != 0:
                self._sleep(poll, pause_ms)

    def _sleep(self, poll: select.poll, pause_ms: int | None) -> None:
        """Wait for the bell or the deadline.

        Parked, so that appenders ring, only when there is nothing to flush.
        """
        if pause_ms is not None:
            poll.poll(pause_ms)
        else:
            park(self._page, APPEND_RINGS, SLOT)
            if self._can_flush() or self._stopping:
                pass
            elif self._sync and self._others_flushed():
                poll.poll(TELL_MS)
            else:
                self._sleep_long(poll)
            unpark(self._page, APPEND_RINGS, SLOT)
            self._woken = True
        self._bell.clear()
        self._owes = True
        if self._is_parked(SEGMENT_RINGS):
            self._tell(monotonic_ms())

    def _others_flushed(self) -> bool:
        """Whether a worker has flushed since the last look; what that leaves to do is done."""
        flushed = int(self._page.words[FLUSHED_POSITION])
        if flushed == self._followed:
            return False
        self._followed = flushed
        self._sum()
        return True

    def _sleep_long(self, poll: select.poll) -> None:
        """Nothing happens: sleep until somebody appends or flushes."""
        if self._sync:
            park(self._page, FLUSH_RINGS, SLOT)
            if self._page.words[FLUSHED_POSITION] != self._followed:
                self._bell.ring()
        if not self._settles(poll):
            if self._owes:
                self._tell(monotonic_ms())
            poll.poll()
        if self._sync:
            unpark(self._page, FLUSH_RINGS, SLOT)

    def _tell(self, now_ms: int) -> None:
        """Tell of appends."""
        self._owes, self._told_ms = False, now_ms
        self._on_wake()

    def _settles(self, poll: select.poll) -> bool:
        """Sum what is left when the log stands still; True when the bell rang first."""
        flushed = self._page.words[FLUSHED_POSITION]
        if self._checksums.summed < flushed:
            if poll.poll(SETTLED_MS):
                return True
            self._checksums.complete(flushed)
        return False

    def _unflushed(self) -> int:
        """How many bytes are appended and not flushed."""
        words = self._page.words
        return int(words[WRITE_POSITION] - words[FLUSHED_POSITION])

    def _can_flush(self) -> bool:
        return self._page.state is PageState.OK and self._unflushed() > 0

    def step(self, now_ms: int) -> int | None:
        """Flush if it is time; return the pause in ms: 0 again at once, None until something is appended."""
        if not self._can_flush():
            return None
        unflushed = self._unflushed()
        if not self._sync and unflushed < UNFLUSHED_MAX and not self._is_parked(FLUSH_RINGS):
            if now_ms < self._next_ms:
                return self._pause(self._next_ms - now_ms, unflushed)
            self._next_ms = now_ms + self._settings.flush_interval_commit_log
            if not self._is_due(now_ms):
                return self._pause(self._settings.flush_interval_commit_log, unflushed)
        self.flush()
        return 0

    def _is_parked(self, block: int) -> bool:
        """Whether somebody is parked in a block: FLUSH_RINGS, a send asked for the disk; SEGMENT_RINGS, the
        log has no room for one."""
        words = self._page.words
        return any(words[block + n] for n in range(RING_WORDS))

    def _pause(self, remaining_ms: int, unflushed: int) -> int:
        """Sleep until the interval is over, but look oftener when the log may grow fast meanwhile."""
        fast = self._woken or unflushed - self._seen_unflushed >= FAST_BYTES
        self._woken, self._seen_unflushed = False, unflushed
        return min(remaining_ms, FAST_LOOK_MS) if fast else remaining_ms

    def _is_due(self, now_ms: int) -> bool:
        """RocketMQ's test of an asynchronous flush.

        Enough pages, a finished segment, or the thorough interval.
        """
        if now_ms - self._thorough_ms >= self._settings.flush_commit_log_thorough_interval:
            self._thorough_ms = now_ms
            return True
        words = self._page.words
        flushed, written = words[FLUSHED_POSITION], words[WRITE_POSITION]
        pages = written // PAGE_BYTES - flushed // PAGE_BYTES
        least = self._settings.flush_commit_log_least_pages
        return bool(
            pages >= least or self._layout.segment_start(flushed) != self._layout.segment_start(written)
        )

    def flush(self) -> bool:
        """Sync everything appended so far and tell those who wait.

        False when the disk failed, now for good.
        """
        words = self._page.words
        flushed, target = words[FLUSHED_POSITION], words[WRITE_POSITION]
        if flushed < target:
            if is_on(ACKNOWLEDGE_EARLY):
                self._position.move(target, wait=True)
                time.sleep(DEFECT_S)
            reach(BEFORE_SYNC)
            try:
                self._sync_segments(flushed, target)
            except OSError as error:
                self._position.fail(error)
                return False
            reach(SYNCED)
            self._position.move(target, wait=True)
        self._followed = int(words[FLUSHED_POSITION])
        self._sum()
        return self._page.state is PageState.OK

    def _sum(self) -> None:
        """Sum what was flushed, let go of segments that are done with."""
        self._checksums.follow(self._page.words[FLUSHED_POSITION])
        self._descriptors.close_below(self._checksums.summed)

    def _sync_segments(self, flushed: int, target: int) -> None:
        """Bring what lies between two positions to the disk, and count it. OSError when the disk fails."""
        began_ns = time.monotonic_ns()
        for start in range(self._layout.segment_start(flushed), target, self._layout.segment_bytes):
            end = min(target - start, self._layout.segment_bytes)
            sync_range(self._descriptors.get(start), max(flushed - start, 0), end)
            self._counters.add("flushes")
        self._counters.add("flush_bytes", target - flushed)
        self._counters.add("flush_micros", (time.monotonic_ns() - began_ns) // 1000)
