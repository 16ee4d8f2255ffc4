"""StoreView: a store opened only to look at it, with its broker running, stopped or dead.

Takes no lock and changes nothing. File sizes are read off the files, not off settings. With the broker's
control page positions and maxima come from there; without one they are worked out: the log ends where its
last segment has no record any more, a queue where its units do. Used by tools and by the check; any process.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from shmq.model.record import check_record
from shmq.model.unit import Unit
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView
from shmq.shm.page_layout import MIN_OFFSET, WRITE_POSITION
from shmq.shm.queue_table import QueueRef, QueueTable
from shmq.store.commit_log import CommitLog
from shmq.store.consume_queues import ConsumeQueues
from shmq.store.names import StoreLayout, file_starts
from shmq.store.queue_repair import QueueRepair, find_queues
from shmq.store.run_marks import Identity

DEFAULT_SEGMENT_BYTES = 1 << 30
DEFAULT_QUEUE_FILE_BYTES = 6_000_000


FILES_LOOKED_AT = 64
"""So many ConsumeQueue files tell their size: some may have been cut."""


def layout_of(root: Path) -> StoreLayout:
    """The layout of the store at `root`, as its files say; RocketMQ's default sizes where there are none."""
    found = StoreLayout(root, DEFAULT_SEGMENT_BYTES, DEFAULT_QUEUE_FILE_BYTES)
    sizes = [_size_of(found.segment_path(start)) for start in found.segments()]
    queue_sizes = (
        size
        for queue in find_queues(found)
        for start in file_starts(found.queue_folder(*queue))
        if (size := _size_of(found.queue_file_path(*queue, start)))
    )
    noted = Identity.load(found)
    sizes.append(noted.segment_bytes if noted is not None else 0)
    segment_bytes = max(sizes) or DEFAULT_SEGMENT_BYTES  # any of them may have been cut
    queue_file_bytes = max(islice(queue_sizes, FILES_LOOKED_AT), default=0) or DEFAULT_QUEUE_FILE_BYTES
    return StoreLayout(root, segment_bytes, queue_file_bytes)


def _size_of(path: Path) -> int:
    """A file's bytes; 0 when retention was quicker than whoever looks."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class StoreView:
    """A store to look at."""

    def __init__(self, root: Path, page: ControlPage | None = None) -> None:
        """`page` is the broker's, attached for reading, when there is one."""
        self.layout = layout_of(root)
        self.page = page
        self._log = CommitLog(self.layout, writable=False)
        self._queues = ConsumeQueues(self.layout, writable=False)
        starts = self.layout.segments()
        self.min_offset = starts[0] if starts else 0
        self.end = self._find_end(starts) if page is None else int(page.words[WRITE_POSITION])
        if page is not None:
            self.min_offset = max(self.min_offset, int(page.words[MIN_OFFSET]))

    def _find_end(self, starts: list[int]) -> int:
        """Where the last segment that holds anything has no record any more."""
        for start in reversed(starts):
            position = start
            for record in self.records(start, start + self.layout.segment_bytes):
                position += len(record)
            if position > start or start == starts[0]:
                return self._behind_blank(position)
        return 0

    def _behind_blank(self, position: int) -> int:
        segment = self._log.segment(position)
        at = position - segment.start
        blank = check_record(segment.view, at, segment.size) == 0
        return segment.start + segment.size if blank else position

    def queues(self) -> list[tuple[str, int, int, int]]:
        """(topic, queue id, minimum, maximum) of every queue."""
        if self.page is not None:
            table, directory = QueueTable(self.page), DirectoryView(self.page)
            refs = [ref for topic in sorted(directory.topics()) for ref in directory.queues(topic)]
            return [(q.topic, q.queue_id, table.min(q.slot), table.max(q.slot)) for q in refs]
        rows: list[tuple[str, int, int, int]] = []
        for topic, queue_id in find_queues(self.layout):
            queue = QueueRepair(
                self.layout, topic, queue_id, file_starts(self.layout.queue_folder(topic, queue_id))
            )
            high = queue.count_below(self.end)
            rows.append((topic, queue_id, min(high, queue.first_from(self.min_offset, high)), high))
        return rows

    def units(self, topic: str, queue_id: int, first: int, end: int) -> Iterator[Unit]:
        """The units `[first, end)` of a queue, as far as there are files."""
        queue = QueueRef(topic, queue_id, -1, 0)
        for queue_offset in range(first, end):
            try:
                yield self._queues.unit(queue, queue_offset)
            except FileNotFoundError:
                return

    def record_at(self, physical_offset: int) -> memoryview | None:
        """The record that begins exactly there, or None."""
        return self._log.record_at(physical_offset, self.min_offset, self.end)

    def records(self, begin: int, end: int) -> Iterator[memoryview]:
        """The records from `begin`, a record's start, up to `end`, over BLANKs.

        Ends where there is no record.
        """
        position = begin
        while position < end:
            try:
                segment = self._log.segment(position)
            except FileNotFoundError:
                return
            at = position - segment.start
            size = check_record(segment.view, at, segment.size, check_crc=False)
            if size < 0:
                return
            if size == 0:
                position = segment.start + segment.size
                continue
            yield segment.view[at : at + size]
            position += size
