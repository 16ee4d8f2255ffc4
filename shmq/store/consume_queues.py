"""The ConsumeQueues of one process: units by (queue, queue offset).

Knows files and maps, not who may store: units are written inside an append claim (`append_claim.py`) and by
recovery, and read below a maximum that the caller loaded from the page. One object per thread.
"""

from __future__ import annotations

from collections.abc import Callable

from shmq.base.errors import StoreDamaged
from shmq.model.unit import UNIT_BYTES, UNIT_STRUCT, Unit
from shmq.shm.queue_table import QueueRef
from shmq.store.mapped_file import MappedFile
from shmq.store.mapped_files import (
    QUEUE_MAPS_MAX,
    READER_QUEUES_SHARE,
    WRITER_QUEUES_SHARE,
    MappedFiles,
    maps_max,
)
from shmq.store.names import StoreLayout


class ConsumeQueues:
    """Maps of ConsumeQueue files, least recently used first out."""

    def __init__(self, layout: StoreLayout, *, writable: bool, wary: bool = False) -> None:
        """Nothing is opened yet. `writable` maps are for processes with an appender slot.

        `wary`: a process died of SIGBUS before, so units are touched in a way that only gives an error.
        """
        self._wary = wary
        self.layout = layout
        self._file_bytes = layout.queue_file_bytes
        self._writable = writable
        limit = maps_max(QUEUE_MAPS_MAX, WRITER_QUEUES_SHARE if writable else READER_QUEUES_SHARE)
        self._files: MappedFiles[tuple[QueueRef, int]] = MappedFiles(self._open, limit)

    def _open(self, key: tuple[QueueRef, int]) -> MappedFile:
        queue, start = key
        path = self.layout.queue_file_path(queue.topic, queue.queue_id, start)
        return MappedFile(path, start, self._file_bytes, writable=self._writable, read_ahead=False)

    def file(self, queue: QueueRef, queue_offset: int) -> MappedFile:
        """The mapped file that holds unit `queue_offset`; FileNotFoundError when there is none."""
        position = queue_offset * UNIT_BYTES
        return self._files.get((queue, position - position % self._file_bytes))

    def map_ahead(self, queue: QueueRef, first: int, end: int) -> None:
        """Map the files of units `[first, end)`, whatever else is mapped; `trim` ends that."""
        position = first * UNIT_BYTES
        for start in range(position - position % self._file_bytes, end * UNIT_BYTES, self._file_bytes):
            self._files.get((queue, start), stay=True)

    def shrink(self) -> None:
        """Keep half as many maps from the next `trim` on: this process has used up descriptors or maps."""
        self._files.shrink()

    def trim(self) -> None:
        """Drop maps used least recently that are too many."""
        self._files.trim()

    def are_mapped(self, queue: QueueRef, first: int, end: int) -> bool:
        """Whether the files of units `[first, end)` are mapped. Opens nothing."""
        position = first * UNIT_BYTES
        start = position - position % self._file_bytes
        while self._files.has((queue, start)):
            start += self._file_bytes
            if start >= end * UNIT_BYTES:
                return True
        return False

    def units(self, queue: QueueRef, first: int, end: int) -> memoryview:
        """The bytes of the units `[first, end)`, cut at the end of the file that holds `first`. No copy.

        StoreDamaged: the disk cannot give them, seen before they were read.
        """
        file = self.file(queue, first)
        position = first * UNIT_BYTES - file.start
        stop = min(end * UNIT_BYTES - file.start, file.size)
        if self._wary:
            self._touch(queue, file, position, stop - position)
        return file.view[position:stop]

    def _touch(self, queue: QueueRef, file: MappedFile, position: int, size: int) -> None:
        if not file.touch(position, size):
            raise StoreDamaged(
                f"the disk cannot give units of queue {queue.queue_id} of {queue.topic}: run storeCheck; a "
                "start without that queue's files makes them anew from the log"
            )

    def unit(self, queue: QueueRef, queue_offset: int) -> Unit:
        """One unit; FileNotFoundError when its file is gone."""
        file = self.file(queue, queue_offset)
        if self._wary:
            self._touch(queue, file, queue_offset * UNIT_BYTES - file.start, UNIT_BYTES)
        return Unit._make(UNIT_STRUCT.unpack_from(file.view, queue_offset * UNIT_BYTES - file.start))

    def next_file(self, queue_offset: int) -> int:
        """The first queue offset of the file after the one that holds `queue_offset`."""
        position = queue_offset * UNIT_BYTES
        return (position - position % self._file_bytes + self._file_bytes) // UNIT_BYTES

    def drop_where(self, ended: Callable[[QueueRef], bool]) -> None:
        """Forget the maps of queues that have `ended`, so that their unlinked files free their blocks."""
        self._files.drop_where(lambda key: ended(key[0]))

    def drop_below(self, minimum: Callable[[QueueRef], int]) -> None:
        """Forget the maps of files that lie wholly below their queue's `minimum`: retention unlinked them."""
        self._files.drop_where(lambda key: key[1] + self._file_bytes <= minimum(key[0]) * UNIT_BYTES)

    def close(self) -> None:
        """Forget all maps; views handed out stay valid."""
        self._files.clear()
