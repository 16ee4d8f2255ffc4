"""Where in the log to look when a queue's message is in doubt: from its neighbour before to the one behind.

Neighbours are messages of the queue whose units and records agree. The range begins with a record that lies
wholly in an earlier piece of 4 KiB than what follows (`checksums.py`), so that every piece in question is
looked at as a whole; where there is none, at a segment's start. The scrub's thread; reads only.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.record import check_record, parse_record
from shmq.model.unit import UNIT_BYTES, UNIT_STRUCT, Unit
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView
from shmq.shm.page_layout import MIN_OFFSET, WRITE_POSITION
from shmq.shm.queue_table import QueueRef, QueueTable
from shmq.store.checksums import PIECE_BYTES
from shmq.store.damage_search import fits_its_unit
from shmq.store.mapped_file import MappedFile
from shmq.store.names import StoreLayout
from shmq.store.promised import is_promised

NEIGHBOURS_MAX = 4096
"""So many units are tried in each direction."""


def queue_of_slot(page: ControlPage, slot: int) -> QueueRef | None:
    """The living queue that has a slot of the queue table."""
    directory = DirectoryView(page)
    queues = (queue for topic in directory.topics() for queue in directory.queues(topic))
    return next((queue for queue in queues if queue.slot == slot), None)


class Stranger(NamedTuple):
    """A whole record at a place; `is_anothers`: the queue that it names has a unit for it."""

    position: int
    size: int
    store_time: int
    is_anothers: bool


def doubtful_range(layout: StoreLayout, page: ControlPage, queue: QueueRef, number: int) -> tuple[int, int]:
    """Physical offsets `[begin, end)`; `begin` is a record's start."""
    table = QueueTable(page)
    low, high = table.min(queue.slot), table.max(queue.slot)
    end = int(page.words[WRITE_POSITION])
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


def stranger(layout: StoreLayout, page: ControlPage, queue: QueueRef, number: int) -> Stranger | None:
    """What a message's unit leads to, when that is a whole record, but not of this message; None otherwise.

    Nothing can be mended then: the sums say that the log was always so, or say nothing of it yet.
    """
    unit = _unit(layout, queue, number)
    if unit is None or unit.tags_code == DAMAGED_TAGS_CODE or _place(layout, queue, number) is not None:
        return None
    position, size, _ = unit
    if not page.words[MIN_OFFSET] <= position < position + size <= page.words[WRITE_POSITION]:
        return None
    base = layout.segment_start(position)
    try:
        segment = MappedFile(layout.segment_path(base), base, layout.segment_bytes, writable=False)
    except OSError:
        return None
    at, end = position - base, position - base + size
    if end > segment.size or check_record(segment.view, at, end) != size:
        return None
    fields = parse_record(segment.view, at, end)
    is_own_number = (fields.queue_id, fields.queue_offset) == (queue.queue_id, number)
    is_anothers = not is_own_number and fits_its_unit(layout, segment, position, position + size)
    return Stranger(position, size, fields.store_timestamp, is_anothers)


def _unit(layout: StoreLayout, queue: QueueRef, number: int) -> Unit | None:
    """A queue's unit as it is in the file."""
    at = number * UNIT_BYTES
    start = at - at % layout.queue_file_bytes
    try:
        with open(layout.queue_file_path(queue.topic, queue.queue_id, start), "rb") as units:
            units.seek(at - start)
            return Unit(*UNIT_STRUCT.unpack(units.read(UNIT_BYTES)))
    except (OSError, struct.error):
        return None


def _place(layout: StoreLayout, queue: QueueRef, number: int) -> tuple[int, int] | None:
    """(physical offset, size) of a message whose unit and record agree, else None."""
    unit = _unit(layout, queue, number)
    if unit is None or unit.physical_offset < 0 or not 0 < unit.size <= layout.segment_bytes:
        return None
    position, size, _ = unit
    base = layout.segment_start(position)
    try:
        with open(layout.segment_path(base), "rb") as segment:
            segment.seek(position - base)
            record = memoryview(segment.read(size))
    except OSError:
        return None
    return (position, size) if is_promised(record, position, queue.queue_id, number) else None
