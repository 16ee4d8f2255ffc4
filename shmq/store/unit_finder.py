"""From a place in the log to the ConsumeQueue units that point there: whose message was it? Numpy.

For damage, which is rare: every queue of the store is searched. Recovery, repair and scrub.

`mark_unit` tells all readers to pass over a message, also while the broker runs: nobody else writes a unit
below its queue's maximum, and a reader that meets half of the new tags code sees a tag that is nobody's.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from shmq.model.damaged_record import DAMAGED_TAGS_CODE, RECORD_BYTES_MIN
from shmq.model.unit import UNIT_BYTES, UNIT_STRUCT
from shmq.store.consume_queue import FILLER_SIZE
from shmq.store.names import StoreLayout
from shmq.store.queue_repair import QueueRepair, find_queues


class FoundUnit(NamedTuple):
    """A unit and the queue it is in."""

    topic: str
    queue_id: int
    queue_offset: int
    position: int
    size: int


class UnitFinder:
    """The queues of a store as they are when it is made."""

    def __init__(self, layout: StoreLayout) -> None:
        """Find all queues; those with files of a wrong length tell nothing."""
        queues = [QueueRepair(layout, topic, queue_id) for topic, queue_id in find_queues(layout)]
        self._queues = [queue for queue in queues if queue.load() and queue.starts]

    def between(self, begin: int, end: int) -> list[FoundUnit]:
        """The units whose records begin in `[begin, end)` and end there, ascending and without overlap."""
        found = sorted((unit for queue in self._queues for unit in _between(queue, begin, end)), key=_place)
        apart: list[FoundUnit] = []
        for unit in found:
            if unit.position >= (apart[-1].position + apart[-1].size if apart else begin):
                apart.append(unit)
        return apart

    def position_of(self, topic: str, queue_id: int, queue_offset: int) -> int | None:
        """Where a queue says that message lies; None when it says nothing."""
        for queue in self._queues:
            if (queue.topic, queue.queue_id) == (topic, queue_id):
                unit = queue.last_unit(queue_offset + 1)
                return unit[0] if unit and unit != (0, 0) else None
        return None


def _place(unit: FoundUnit) -> tuple[int, int]:
    """Of several units that point to one record the last is its own: those before it are of lost ones."""
    return unit.position, -unit.queue_offset


def _between(queue: QueueRepair, begin: int, end: int) -> list[FoundUnit]:
    last = queue.count_below(end)
    first = queue.first_from(begin, last)
    units = enumerate(UNIT_STRUCT.iter_unpack(queue.read(first, last - first)), first)
    return [
        FoundUnit(queue.topic, queue.queue_id, n, position, size)
        for n, (position, size, _) in units
        if begin <= position and RECORD_BYTES_MIN <= size != FILLER_SIZE and position + size <= end
    ]


def mark_unit(layout: StoreLayout, topic: str, queue_id: int, queue_offset: int, position: int) -> bool:
    """Let readers pass over a message. False when its queue has no unit that points to `position`."""
    at = queue_offset * UNIT_BYTES
    start = at - at % layout.queue_file_bytes
    try:
        fd = os.open(layout.queue_file_path(topic, queue_id, start), os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        unit = os.pread(fd, UNIT_BYTES, at - start)
        if len(unit) < UNIT_BYTES or UNIT_STRUCT.unpack(unit)[0] != position:
            return False
        os.pwrite(fd, DAMAGED_TAGS_CODE.to_bytes(8, "big"), at - start + 12)
        os.fdatasync(fd)
    finally:
        os.close(fd)
    return True
