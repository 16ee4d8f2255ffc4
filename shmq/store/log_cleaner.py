"""Removes the oldest part of a log: its segments, and the ConsumeQueue and index files that speak only of it.

    1  MIN_OFFSET       page: nothing below is given out any more
    2  queue minima     page: the first unit of each queue that points at or above it
    3  segments         oldest first, each: unlink, its checksums too, fsync of the folder
    4  queue files      of each queue those wholly below its minimum, but never the one with its last unit: a
                        queue's numbering is in no other place
    5  index files      whose last entry lies below, but never the newest

A mapped file is only unlinked, never shortened: whoever reads it goes on reading. FILES_UNLINKED tells all
processes to let go of their maps.

If it dies after 1, `follow` of the next coordinator does the rest, whatever was done: each step is found out
from the page and the folders. A power cut in between brings back at most what had no fsync: the log then
begins earlier, with the ConsumeQueue units that belong to it, as those go only after the segments' folder is
synced.
Facts: Apache RocketMQ 5.3, DefaultMessageStore.java, ConsumeQueue.java. Coordinator only, no lock.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial

from shmq.base import faults
from shmq.base.file_sums import forget
from shmq.base.files import fsync_folder
from shmq.model.unit import UNIT_BYTES
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView
from shmq.shm.page_layout import FILES_UNLINKED, FLUSHED_POSITION, MIN_OFFSET, WRITE_POSITION
from shmq.shm.queue_table import QueueRef, QueueTable
from shmq.store.checkpoint import Checkpoint
from shmq.store.checksums import remove_checksums
from shmq.store.consume_queue import FILLER_SIZE
from shmq.store.consume_queues import ConsumeQueues
from shmq.store.index_file import HEADER, IndexHeader, index_names
from shmq.store.names import StoreLayout, file_starts

JOIN_S = 0.001
"""How long one step waits for the thread that unlinks."""

QUEUES_AT_ONCE = 32
"""Queues looked at before a caller with other work gets its turn: about a millisecond."""

faults.declare(
    {
        "retention.min_stored": "the page says that a segment is gone, queue minima do not",
        "retention.queue_min_stored": "one queue's minimum is stored, others perhaps not",
        "retention.minima_stored": "all minima are stored, every file is still there",
        "retention.unlinked": "a segment is unlinked, perhaps not durably; its checksums are still there",
        "retention.folder_synced": "the segment is gone for good, queue and index files of it are there",
        "retention.queue_file_unlinked": "a ConsumeQueue file is unlinked, perhaps not durably",
        "retention.index_file_unlinked": "an index file is unlinked, perhaps not durably",
    }
)


class LogCleaner:
    """Carries out what retention decides."""

    def __init__(
        self, layout: StoreLayout, page: ControlPage, directory: DirectoryView, queues: ConsumeQueues
    ) -> None:
        """All of the calling process and thread."""
        self._layout = layout
        self._page = page
        self._table = QueueTable(page)
        self._directory = directory
        self._queues = queues
        self._files_seen: dict[tuple[int, int], int] = {}
        """By (slot, generation): the first queue file that was there at the last look."""

    def removable(self) -> list[int]:
        """The starts of the segments that may go, oldest first: wholly on the disk and below the checkpoint,
        so that no start ever needs them. The one that is written to never is."""
        words = self._page.words
        last = self._layout.segment_start(max(0, words[WRITE_POSITION] - 1))
        end = min(last, words[FLUSHED_POSITION], Checkpoint.load(self._layout.checkpoint).confirm_offset)
        return [s for s in self._layout.segments() if s + self._layout.segment_bytes <= end]

    def raise_minimum(self, end: int) -> None:
        """Give up everything below `end`, a segment's start. `follow` does the rest."""
        self._page.words[MIN_OFFSET] = max(end, self._page.words[MIN_OFFSET])
        faults.reach("retention.min_stored")

    def follow(self) -> Iterator[str]:
        """Remove everything below MIN_OFFSET, step by step; yields what was done: "looked", "waited",
        "segment", "queue" or "index". OSError when the disk refuses: call it again later."""
        yield from self._raise_minima()
        yield from self._remove_segments()
        yield from self.remove_queue_files()
        yield from self._remove_index_files()

    # ---- minima

    def _refs(self) -> list[QueueRef]:
        self._directory.catch_up()
        return [ref for topic in self._directory.topics() for ref in self._directory.queues(topic)]

    def _raise_minima(self) -> Iterator[str]:
        low = int(self._page.words[MIN_OFFSET])
        for n, ref in enumerate(self._refs(), 1):
            if self._table.alive(ref):
                self._raise_minimum_of(ref, low)
            if n % QUEUES_AT_ONCE == 0:
                yield "looked"
        faults.reach("retention.minima_stored")

    def _raise_minimum_of(self, ref: QueueRef, low: int) -> None:
        """Store the first queue offset whose record is still there; the maximum when none is."""
        first, end = self._table.min(ref.slot), self._table.max(ref.slot)
        if first >= end or not self._is_below(ref, first, low):
            return
        found = end
        if not self._is_below(ref, end - 1, low):
            found = bisect_left(
                range(end), True, first, end, key=lambda offset: not self._is_below(ref, offset, low)
            )
        self._table.set_min(ref.slot, found)
        faults.reach("retention.queue_min_stored")

    def _is_below(self, ref: QueueRef, queue_offset: int, low: int) -> bool:
        """Whether a unit's record begins below `low`, or the unit is a filler without a place, or gone."""
        try:
            physical, size, _ = self._queues.unit(ref, queue_offset)
        except FileNotFoundError:
            return True
        return physical < low or (physical, size) == (0, FILLER_SIZE)

    # ---- files

    def _remove_segments(self) -> Iterator[str]:
        low = self._page.words[MIN_OFFSET]
        for start in self._layout.segments():
            if start + self._layout.segment_bytes > low:
                break
            yield from _beside(partial(self._remove_segment, start))
            yield "segment"
        for start in file_starts(self._layout.checksums):
            if start + self._layout.segment_bytes <= low:
                remove_checksums(self._layout, start)

    def _remove_segment(self, start: int) -> None:
        """One after the other and each synced: a power cut must leave no gap. A thread of its own."""
        self._layout.segment_path(start).unlink()
        faults.reach("retention.unlinked")
        fsync_folder(self._layout.commit_log)
        self._told()
        faults.reach("retention.folder_synced")

    def remove_queue_files(self) -> Iterator[str]:
        """Remove the ConsumeQueue files that hold only units below their queue's minimum."""
        for n, ref in enumerate(self._refs(), 1):
            if self._table.alive(ref) and self._remove_files_of(ref):
                yield "queue"
            if n % QUEUES_AT_ONCE == 0:
                yield "looked"

    def _remove_files_of(self, ref: QueueRef) -> bool:
        size = self._queues.layout.queue_file_bytes
        low, high = self._table.min(ref.slot), self._table.max(ref.slot)
        kept = min(low, max(0, high - 1)) * UNIT_BYTES
        kept -= kept % size
        if self._files_seen.get((ref.slot, ref.generation), 0) >= kept:
            return False
        folder = self._layout.queue_folder(ref.topic, ref.queue_id)
        removed = False
        for start in file_starts(folder):
            if start >= kept:
                break
            self._layout.queue_file_path(ref.topic, ref.queue_id, start).unlink()
            faults.reach("retention.queue_file_unlinked")
            fsync_folder(folder)
            removed = True
        self._files_seen[ref.slot, ref.generation] = kept
        if removed:
            self._told()
        return removed

    def _remove_index_files(self) -> Iterator[str]:
        low = self._page.words[MIN_OFFSET]
        for name in index_names(self._layout.index)[:-1]:
            path = self._layout.index / name
            with path.open("rb") as file:
                header = IndexHeader.decode(memoryview(file.read(HEADER.size)))
            if header.end_physical_offset >= low:
                break
            forget(self._layout.checksums, path)
            path.unlink()
            faults.reach("retention.index_file_unlinked")
            fsync_folder(self._layout.index)
            self._told()
            yield "index"

    def _told(self) -> None:
        """Let everybody see, when it looks next, that there are maps to let go of."""
        self._page.words[FILES_UNLINKED] += 1


def _beside(work: Callable[[], None]) -> Iterator[str]:
    """Do `work` in a thread and yield until it is done; raises what it raised.

    To unlink a gigabyte that is in memory takes the kernel a second or two: the event loop must go on.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:  # whatever it is, it belongs to who waits
            failures.append(failure)

    thread = threading.Thread(target=run, name="retention", daemon=True)
    thread.start()
    thread.join(JOIN_S)
    while thread.is_alive():
        yield "waited"
        thread.join(JOIN_S)
    if failures:
        raise failures[0]
