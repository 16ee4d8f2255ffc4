"""AppendMaps: the maps and disk blocks that appends of one process may store into, made outside the lock.

Inside the AppendLock nothing is opened or allocated, only looked up here; what is not here ends the claim in
front of the request that needs it, and `make_ready` gets it before the next try. One thread of one process.
"""

from __future__ import annotations

from collections.abc import Iterable

from shmq.base.errors import QueueGone, ServiceNotAvailable, ShmqError
from shmq.model.unit import UNIT_BYTES
from shmq.shm.control_page import ControlPage
from shmq.shm.page_layout import WRITE_POSITION, ZEROED_POSITION
from shmq.shm.queue_table import QueueRef, QueueTable
from shmq.store.append_request import AppendRequest
from shmq.store.commit_log import CommitLog
from shmq.store.consume_queue import USED_UP, make_room
from shmq.store.consume_queues import ConsumeQueues
from shmq.store.mapped_file import MappedFile


class AppendMaps:
    """What is ready to be stored into."""

    def __init__(self, page: ControlPage, table: QueueTable, log: CommitLog, queues: ConsumeQueues) -> None:
        """`log` and `queues` are writable."""
        self._words = page.words
        self._table = table
        self._log = log
        self._queues = queues
        self._unit_file_bytes = queues.layout.queue_file_bytes
        self.segments: dict[int, MappedFile] = {}

    def make_ready(self, requests: Iterable[AppendRequest]) -> dict[QueueRef, ShmqError]:
        """Make room and maps for the next units of these requests' queues, and map the log's end.

        Returns why not, by queue: it was deleted meanwhile, or the disk is full.
        """
        counts: dict[QueueRef, int] = {}
        size_sum = 0
        for request in requests:
            counts[request.queue] = counts.get(request.queue, 0) + len(request.sizes)
            size_sum += len(request.data)
        self._queues.trim()
        failed: dict[QueueRef, ShmqError] = {}
        for queue, count in counts.items():
            try:
                self._make_queue_ready(queue, count)
            except ShmqError as error:
                failed[queue] = error
            except OSError as error:
                failed[queue] = self._cannot_map(error)
        try:
            self._map_segments(size_sum)
        except OSError as error:
            failed = dict.fromkeys(counts, self._cannot_map(error))
        return failed

    def _cannot_map(self, error: OSError) -> ShmqError:
        """What a sender is told when a file cannot be opened or mapped.

        When descriptors or maps are used up, the next turn has fewer queue files mapped: connections and
        others may need what these took.
        """
        if error.errno in USED_UP:
            self._queues.shrink()
        return ServiceNotAvailable(f"a file of the store cannot be mapped: {error}; send again later")

    def _make_queue_ready(self, queue: QueueRef, count: int) -> None:
        """Allocate and map what the queue's next `count` units need. QueueGone; ServiceNotAvailable.

        Disk full.
        """
        if not self._table.alive(queue):
            raise QueueGone([queue.slot])
        first = self._table.max(queue.slot)
        end = first + count
        if self._table.allocated(queue.slot) < end:
            room = make_room(self._queues.layout, queue.topic, queue.queue_id, first, end)
            self._table.set_allocated(queue.slot, room)
        self._queues.map_ahead(queue, first, end)

    def _map_segments(self, size_sum: int) -> None:
        """Map the segments that claims of `size_sum` bytes may reach, as far as they are ready.

        Forget older ones.
        """
        position, ready, step = (
            self._words[WRITE_POSITION],
            self._words[ZEROED_POSITION],
            self._log.segment_bytes,
        )
        start = position - position % step
        reach = min(ready, position + 2 * size_sum + step)
        self.segments = {s: self._log.segment(s) for s in range(start, reach, step)}

    def has_unit_files(self, queue: QueueRef, first: int, end: int) -> bool:
        """Whether units `[first, end)` can be stored.

        Their disk blocks are noted and their files mapped here.
        """
        return end <= self._table.allocated(queue.slot) and self._queues.are_mapped(queue, first, end)

    def store_units(self, queue: QueueRef, first: int, units: bytes) -> None:
        """Copy units into their file, or files where one ends in between. Under the AppendLock."""
        size = self._unit_file_bytes
        position, done = first * UNIT_BYTES, 0
        while done < len(units):
            at = position % size
            file = self._queues.file(queue, position // UNIT_BYTES)
            piece = units[done : done + size - at]
            file.map[at : at + len(piece)] = piece
            position += len(piece)
            done += len(piece)
