"""SegmentAllocator: makes CommitLog segments before anybody needs them. A thread of the supervisor.

A segment gets its disk blocks whole (`posix_fallocate`) in a folder of its own and then its name, so that a
segment is there with its full size or not at all, and a full disk is an error here and never a SIGBUS in a
worker. The next one is made when half of the present one is used.

The pages an appender will store into are then prepared some way ahead of the log's end, because a first touch
inside the AppendLock costs everybody (seen: 4 to 18 ms whenever the kernel reads ahead in a fresh segment,
and twice the time per byte):

    ASYNC_FLUSH   the pages are brought into memory, nothing is written
    SYNC_FLUSH    they are overwritten with zeros and synced, a piece at a time: the first sync after writing
                  into a fresh block must also note that it is no longer unwritten

    ZEROED_POSITION   stored here alone: claims end at or below it, zeros are written at or above it only.
                      Without zeroing it is the end of the last segment.
    SEGMENT_RINGS     rung after each step; parked appenders try again
    SEGMENT_ERROR     errno while the disk refuses, else 0: appenders answer SERVICE_NOT_AVAILABLE meanwhile

If it dies: the temporary file is made anew; a segment that has its name is whole. Takes no lock. No numpy
here.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Sequence

from shmq.base import faults, log
from shmq.base.clock import monotonic_ms
from shmq.base.files import fsync_folder
from shmq.base.syncs import sync_range
from shmq.model.settings import BrokerSettings, FlushDiskType
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import SlotCounters
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import (
    SEGMENT_ERROR,
    SEGMENT_INODE,
    SEGMENT_RINGS,
    WRITE_POSITION,
    ZEROED_POSITION,
)
from shmq.shm.rings import ring_parked
from shmq.shm.word import fence
from shmq.shm.worker_slots import FLUSHER_SLOT
from shmq.store.mapped_file import MappedFile
from shmq.store.names import StoreLayout
from shmq.store.segment_descriptors import SegmentDescriptors
from shmq.store.step_thread import StepThread

STEP_BYTES = 1 << 20
"""Zeros written and synced at a time."""

RETRY_MS = 1000
"""Pause after the disk refused."""

ACTIVE_MS = 20
"""Pause between two looks while the log grows.

It sleeps for good when nothing was appended since the last look.
"""

WARM_STEP_BYTES = 2 << 20
"""Page memory prepared at a time: 0.3 ms, during which no other thread of the supervisor runs."""

WARM_AHEAD_BYTES = 64 << 20
"""How far ahead of the log's end pages are brought into memory."""

_POPULATE_READ = 22
"""MADV_POPULATE_READ of Linux 5.14; `mmap` has no name for it."""

faults.declare(
    {
        "segment.allocated": "a segment has its blocks and no name",
        "segment.named": "a segment has its name, perhaps not durably; nobody knows of it",
        "segment.zeroed": "zeros are written and synced, ZEROED_POSITION is not stored",
    }
)

_ZEROS = bytes(STEP_BYTES)
_logger = log.get(__name__)


def zero_ahead_bytes(settings: BrokerSettings) -> int:
    """How far ahead to zero under these settings: only where somebody waits for each sync."""
    return settings.zero_ahead_bytes if settings.flush_disk_type is FlushDiskType.SYNC_FLUSH else 0


class SegmentAllocator:
    """Keeps segments ready ahead of `write_position`."""

    def __init__(
        self,
        layout: StoreLayout,
        page: ControlPage,
        bells: Sequence[Doorbell],
        descriptors: SegmentDescriptors,
        *,
        zero_ahead_bytes: int,
    ) -> None:
        """`zero_ahead_bytes` 0: no zeroing.

        `descriptors` gets one of each new segment before anything is in it.
        """
        self._layout = layout
        self._page = page
        self._bells = bells
        self._descriptors = descriptors
        self._zero_ahead = zero_ahead_bytes
        self._counters = SlotCounters(page, FLUSHER_SLOT)
        self._allocated_end = 0
        self._warmed = 0
        self._warming: MappedFile | None = None
        self._zeroing: tuple[int, int] | None = None
        self._seen_position = -1
        self._can_warm = layout.segment_bytes % mmap.PAGESIZE == 0
        self._thread = StepThread("segment-allocator", self.step)

    def prepare(self) -> None:
        """Make what the first appends need, before any appender is started. OSError when the disk refuses."""
        starts = self._layout.segments()
        words = self._page.words
        if starts:
            words[SEGMENT_INODE] = self._layout.segment_path(starts[-1]).stat().st_ino
        self._allocated_end = starts[-1] + self._layout.segment_bytes if starts else words[WRITE_POSITION]
        while self._allocated_end <= words[WRITE_POSITION]:
            self._make_segment()
        if self._zero_ahead and self._zeroed < self._allocated_end:
            self._zero_step()
        self._warm_if_due()
        self._publish_without_zeroing()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to leave and wait for it. Twice is harmless."""
        self._thread.stop()
        self._close_zeroing()

    def wake(self) -> None:
        """Look again soon: the flusher calls this when something was appended (see its `TELL_MS`)."""
        self._thread.wake()

    def step(self) -> int | None:
        """One bounded piece of work; return the pause in ms before the next one, None: when woken."""
        try:
            worked = (
                self._make_segment_if_due(self._layout.segment_bytes // 2)
                or self._zero_if_due()
                or self._make_segment_if_due(self._zero_ahead)
            )
            warmed = not worked and self._warm_if_due()
        except OSError as error:
            self.refused(error)
            return RETRY_MS
        if self._page.words[SEGMENT_ERROR]:
            self._page.words[SEGMENT_ERROR] = 0
            log.event(_logger, logging.WARNING, "segment_allocation_resumed")
        if worked:
            fence()
            ring_parked(self._page, SEGMENT_RINGS, self._bells)
            return 0
        if warmed:
            return 0
        position = self._page.words[WRITE_POSITION]
        moved, self._seen_position = position != self._seen_position, position
        return ACTIVE_MS if moved else None

    @property
    def _zeroed(self) -> int:
        return int(self._page.words[ZEROED_POSITION])

    def _make_segment_if_due(self, ahead: int) -> bool:
        """Make the next segment when less than `ahead` bytes are there to be written.

        Half a segment before anything else; for what zeroing will need only when what is there is zeroed:
        small segments would otherwise be made by the hundred while appenders wait for the first of them.
        """
        if self._page.words[WRITE_POSITION] + ahead < self._allocated_end:
            return False
        self._make_segment()
        self._publish_without_zeroing()
        return True

    def _zero_if_due(self) -> bool:
        """Write one step of zeros when less than the wanted distance is ready."""
        wanted = min(self._page.words[WRITE_POSITION] + self._zero_ahead, self._allocated_end)
        if not self._zero_ahead or self._zeroed >= wanted:
            return False
        self._zero_step()
        return True

    def _warm_if_due(self) -> bool:
        """Bring the next piece into memory when less than the wanted distance is there.

        Purely an optimisation.
        """
        position = int(self._page.words[WRITE_POSITION])
        self._warmed = max(self._warmed, position - position % mmap.PAGESIZE)
        wanted = min(position + WARM_AHEAD_BYTES, self._allocated_end)
        if self._zero_ahead or not self._can_warm or self._warmed >= wanted:
            return False
        start = self._layout.segment_start(self._warmed)
        size = self._layout.segment_bytes
        if self._warming is None or self._warming.start != start:
            self._warming = MappedFile(self._layout.segment_path(start), start, size, writable=False)
        at = self._warmed - start
        length = min(WARM_STEP_BYTES, size - at)
        try:
            self._warming.map.madvise(_POPULATE_READ, at, length)
        except OSError:
            self._can_warm = False
        self._warmed += length
        return True

    def _publish_without_zeroing(self) -> None:
        if not self._zero_ahead and self._zeroed < self._allocated_end:
            self._page.words[ZEROED_POSITION] = self._allocated_end

    def _make_segment(self) -> None:
        """Make the segment at the allocated end: blocks first, name last, folder synced."""
        start = self._allocated_end
        temp = self._layout.identity.parent / "next-segment"
        temp.unlink(missing_ok=True)
        began = monotonic_ms()
        fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(fd, 0, self._layout.segment_bytes)
            os.fsync(fd)
            faults.reach("segment.allocated")
            temp.rename(self._layout.segment_path(start))
        except BaseException:
            os.close(fd)
            temp.unlink(missing_ok=True)
            raise
        faults.reach("segment.named")
        self._descriptors.hold(start, fd)
        self._page.words[SEGMENT_INODE] = os.fstat(fd).st_ino
        fsync_folder(self._layout.commit_log)
        self._allocated_end = start + self._layout.segment_bytes
        self._counters.add("segments_made")
        log.event(_logger, logging.INFO, "segment_made", start=start, ms=monotonic_ms() - began)

    def _zero_step(self) -> None:
        """Zero the next piece and sync it, then let claims use it."""
        position = self._zeroed
        start = self._layout.segment_start(position)
        end = min(position + STEP_BYTES, start + self._layout.segment_bytes)
        fd = self._zeroing_fd(start)
        os.pwrite(fd, memoryview(_ZEROS)[: end - position], position - start)
        sync_range(fd, position - start, end - start)
        faults.reach("segment.zeroed")
        self._page.words[ZEROED_POSITION] = end

    def _zeroing_fd(self, start: int) -> int:
        """A descriptor of the segment that begins at `start`, for zeroing alone.

        A write that failed is told once to each descriptor: if this sync were told of a record's through the
        flusher's, the flusher would never hear of it, and acknowledge it.
        """
        if self._zeroing is None or self._zeroing[0] != start:
            self._close_zeroing()
            self._zeroing = start, os.open(self._layout.segment_path(start), os.O_RDWR | os.O_CLOEXEC)
        return self._zeroing[1]

    def _close_zeroing(self) -> None:
        if self._zeroing is not None:
            os.close(self._zeroing[1])
            self._zeroing = None

    def refused(self, error: OSError) -> None:
        """Tell appenders why nothing comes, once per kind of refusal, and wake those that wait for it."""
        number = error.errno or 1
        self._counters.add("segment_failures")
        if self._page.words[SEGMENT_ERROR] != number:
            self._page.words[SEGMENT_ERROR] = number
            log.event(_logger, logging.ERROR, "segment_allocation_failed", error=error)
        fence()
        ring_parked(self._page, SEGMENT_RINGS, self._bells)
