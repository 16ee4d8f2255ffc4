"""Taking back what a dead appender wrote: zeros over its bytes in the CommitLog and its ConsumeQueue units.

Called by crash repair in the supervisor's main thread while the world stands still. Positional writes into
the files, which are coherent with every process's map of them. Repeating it is harmless. A file that is not
there was never written or belongs to a deleted topic: there is nothing to take back.
"""

from __future__ import annotations

import os
from pathlib import Path

from shmq.model.unit import UNIT_BYTES
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView
from shmq.shm.queue_table import QueueRef
from shmq.store.names import StoreLayout

_ZEROS = bytes(1 << 20)


class Zeroing:
    """Zeroes ranges of one store's files."""

    def __init__(self, layout: StoreLayout, page: ControlPage) -> None:
        """`page` tells which queue a slot belongs to."""
        self._layout = layout
        self._directory = DirectoryView(page)

    def zero_log(self, start: int, end: int) -> None:
        """Zero `[start, end)` of the CommitLog, over a segment's end too."""
        while start < end:
            segment = self._layout.segment_start(start)
            piece_end = min(end, segment + self._layout.segment_bytes)
            _zero(self._layout.segment_path(segment), start - segment, piece_end - segment)
            start = piece_end

    def zero_units(self, slot: int, old_max: int, new_max: int) -> None:
        """Zero the units `[old_max, new_max)` of the queue in `slot`."""
        queue = self._queue_of(slot)
        if queue is None:
            return
        start, end = old_max * UNIT_BYTES, new_max * UNIT_BYTES
        size = self._layout.queue_file_bytes
        while start < end:
            file_start = start - start % size
            piece_end = min(end, file_start + size)
            path = self._layout.queue_file_path(queue.topic, queue.queue_id, file_start)
            _zero(path, start - file_start, piece_end - file_start)
            start = piece_end

    def _queue_of(self, slot: int) -> QueueRef | None:
        self._directory.catch_up()
        for topic in self._directory.topics():
            for queue in self._directory.queues(topic):
                if queue.slot == slot:
                    return queue
        return None


def _zero(path: Path, start: int, end: int) -> None:
    """Write zeros to `[start, end)` of an existing file."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        while start < end:
            start += os.pwrite(fd, _ZEROS[: end - start], start)
    finally:
        os.close(fd)
