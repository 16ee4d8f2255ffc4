"""Where in the log to look when a queue's message is in doubt: from its neighbour before to the one behind.

Neighbours are messages of the queue whose units and records agree. The range begins with a record that lies
wholly in an earlier piece of 4 KiB than what follows (`checksums.py`), so that every piece in question is
looked at as a whole; where there is none, at a segment's start. The scrub's thread; reads only.
"""

from __future__ import annotations

from shmq.model.unit import UNIT_BYTES, UNIT_STRUCT
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView
from shmq.shm.page_layout import FLUSHED_POSITION, MIN_OFFSET
from shmq.shm.queue_table import QueueRef, QueueTable
from shmq.store.checksums import PIECE_BYTES
from shmq.store.names import StoreLayout
from shmq.store.promised import is_promised

NEIGHBOURS_MAX = 4096
"""So many units are tried in each direction."""


def queue_of_slot(page: ControlPage, slot: int) -> QueueRef | None:
    """The living queue that has a slot of the queue table."""
    directory = DirectoryView(page)
    queues = (queue for topic in directory.topics() for queue in directory.queues(topic))
    return next((queue for queue in queues if queue.slot == slot), None)


def doubtful_range(layout: StoreLayout, page: ControlPage, queue: QueueRef, number: int) -> tuple[int, int]:
    """Physical offsets `[begin, end)`; `begin` is a record's start."""
    table = QueueTable(page)
    low, high = table.min(queue.slot), table.max(queue.slot)
    end = int(page.words[FLUSHED_POSITION])
    for other in range(number + 1, min(high, number + NEIGHBOURS_MAX)):
        if (place := _place(layout, queue, other)) is not None:
            end = min(end, sum(place))
            break
    begin = piece_start = int(page.words[MIN_OFFSET])
    is_first = True
    for other in range(number - 1, max(low, number - NEIGHBOURS_MAX) - 1, -1):
        if (place := _place(layout, queue, other)) is None:
            continue
        if is_first:
            is_first, behind = False, sum(place)
            piece_start = behind - behind % PIECE_BYTES
            begin = max(begin, layout.segment_start(behind))
        if place[0] <= piece_start:
            return max(begin, place[0]), end
    return begin, end


def _place(layout: StoreLayout, queue: QueueRef, number: int) -> tuple[int, int] | None:
    """(physical offset, size) of a message whose unit and record agree, else None."""
    at = number * UNIT_BYTES
    start = at - at % layout.queue_file_bytes
    try:
        with open(layout.queue_file_path(queue.topic, queue.queue_id, start), "rb") as units:
            units.seek(at - start)
            position, size, _ = UNIT_STRUCT.unpack(units.read(UNIT_BYTES))
        if position < 0 or not 0 < size <= layout.segment_bytes:
            return None
        base = layout.segment_start(position)
        with open(layout.segment_path(base), "rb") as segment:
            segment.seek(position - base)
            record = memoryview(segment.read(size))
    except OSError:
        return None
    return (position, size) if is_promised(record, position, queue.queue_id, number) else None
