"""Reading a queue: which messages a pull gets, as views of the mapped CommitLog.

Every number is bounded by the page, in this order: slot generation, visible position, minimum, maximum,
units, records. A unit counts when its record ends at or below the visible position (flushed or replicated,
whatever the broker promises): otherwise a consumer could commit an offset that a power cut takes back. Called
by workers; takes no lock and never waits, except for a page that is not in memory.

Damage that is known is never handed out: the unit of a damaged record has a tags code of its own
(`model/damaged_record.py`), and reads pass over it.

Short reads unpack units one by one, long ones are arrays: below about 64 units numpy costs more than it
saves.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.unit import UNIT_BYTES, UNIT_STRUCT
from shmq.model.unit_array import UNIT_DTYPE
from shmq.shm.control_page import ControlPage
from shmq.shm.queue_table import QueueRef, QueueTable
from shmq.store.commit_log import CommitLog, UnreadableBytes
from shmq.store.consume_queue import FILLER_SIZE
from shmq.store.consume_queues import ConsumeQueues

SCAN_UNITS_MAX = 16_384
"""Units one read looks at when a tag filter rejects most of them; the consumer asks again from there."""

JUDGED_MAX = 2_048
"""Records one read judges by their properties: some milliseconds, then others get their turn."""

_SMALL = 64

ExactFilter = Callable[[memoryview], bool]
"""Looks at one record and says whether the consumer wants it."""

Run = tuple[int, int, int]
"""First physical offset, end and number of records that lie back to back. A run never leaves its segment: a
BLANK
stands between the last record of one segment and the first of the next."""


class ReadStatus(enum.Enum):
    """What became of a read (Apache RocketMQ 5.3, GetMessageStatus.java)."""

    FOUND = enum.auto()
    NO_MATCHED_MESSAGE = enum.auto()
    NO_MATCHED_LOGIC_QUEUE = enum.auto()
    NO_MESSAGE_IN_QUEUE = enum.auto()
    OFFSET_TOO_SMALL = enum.auto()
    OFFSET_OVERFLOW_ONE = enum.auto()
    OFFSET_OVERFLOW_BADLY = enum.auto()
    OFFSET_FOUND_NULL = enum.auto()
    MESSAGE_WAS_REMOVING = enum.auto()


@dataclass(slots=True)
class ReadResult:
    """The answer to one read.

    `views` hold `count` whole records in queue order, neighbours in the log merged into one view, `size`
    bytes in all. `next_offset` is where the next read goes on; `max_offset` counts visible messages only.
    """

    status: ReadStatus
    next_offset: int
    min_offset: int
    max_offset: int
    views: list[memoryview] = field(default_factory=list)
    count: int = 0
    size: int = 0


class QueueReader:
    """Reads queues for one process."""

    def __init__(self, page: ControlPage, table: QueueTable, log: CommitLog, queues: ConsumeQueues) -> None:
        """All four belong to the calling process and thread."""
        self._page = page
        self._table = table
        self._log = log
        self._queues = queues

    def visible_max(self, queue: QueueRef) -> int:
        """The queue's maximum as readers may know it: one behind the last visible message."""
        visible = self._page.visible_position()
        low, high = self._table.min(queue.slot), self._table.max(queue.slot)
        return self._visible_bound(queue, visible, low, high)

    def _visible_bound(self, queue: QueueRef, visible: int, low: int, high: int) -> int:
        if low >= high or self._end_of(queue, high - 1) <= visible:
            return high
        units = range(low, high - 1)
        return low + bisect_right(units, visible, key=lambda offset: self._end_of(queue, offset))

    def _end_of(self, queue: QueueRef, queue_offset: int) -> int:
        try:
            unit = self._queues.unit(queue, queue_offset)
        except FileNotFoundError:
            return 0
        return unit.physical_offset + (unit.size if unit.size != FILLER_SIZE else 0)

    def read(
        self,
        queue: QueueRef,
        queue_offset: int,
        max_count: int,
        max_bytes: int,
        tag_hashes: frozenset[int] | None = None,
        exact: ExactFilter | None = None,
    ) -> ReadResult:
        """Read up to `max_count` records and `max_bytes` from `queue_offset`, but at least one when there is
        one.

        `tag_hashes` are Java hashes of wanted tags (None: all); `exact` judges the records that pass.
        """
        if not self._table.alive(queue):
            return ReadResult(ReadStatus.NO_MATCHED_LOGIC_QUEUE, 0, 0, 0)
        visible = self._page.visible_position()
        low, high = self._table.min(queue.slot), self._table.max(queue.slot)
        high = self._visible_bound(queue, visible, low, high)
        refusal = _refusal(queue_offset, low, high)
        if refusal is not None:
            return ReadResult(*refusal, low, high)
        reach = max(1, max_count) if tag_hashes is None else SCAN_UNITS_MAX
        if exact is not None:
            reach = JUDGED_MAX
        try:
            units = self._queues.units(queue, queue_offset, min(high, queue_offset + reach))
        except FileNotFoundError:
            skipped = min(high, max(low, self._queues.next_file(queue_offset)))
            return ReadResult(ReadStatus.OFFSET_FOUND_NULL, skipped, low, high)
        if exact is None:
            select = _select_few if len(units) <= _SMALL * UNIT_BYTES else _select_many
            runs, scanned = select(units, max(1, max_count), max_bytes, tag_hashes)
            try:
                result = ReadResult(ReadStatus.FOUND, queue_offset + scanned, low, high)
                return self._collect(result, runs, visible)
            except UnreadableBytes:
                exact = _anything  # one by one, then: the disk gives most of them
        result = ReadResult(ReadStatus.FOUND, queue_offset, low, high)
        return self._judge(result, units, max(1, max_count), max_bytes, tag_hashes, exact, visible)

    def _judge(
        self,
        result: ReadResult,
        units: memoryview,
        max_count: int,
        max_bytes: int,
        tag_hashes: frozenset[int] | None,
        exact: ExactFilter,
        visible: int,
    ) -> ReadResult:
        """Fill `result` with records `exact` agrees to, until it is full or all `units` were looked at.

        One that the disk cannot give is passed over, like every known damage.
        """
        looked = 0
        for start, size, tags_code in UNIT_STRUCT.iter_unpack(units):
            if _is_wanted(size, tags_code, tag_hashes):
                try:
                    record = self._log.view(start, size, visible)
                except FileNotFoundError:
                    result.status = ReadStatus.MESSAGE_WAS_REMOVING
                    break
                except UnreadableBytes:
                    looked += 1
                    continue
                if exact(record):
                    if result.count and result.size + size > max_bytes:
                        break
                    result.views.append(record)
                    result.count += 1
                    result.size += size
            looked += 1
            if result.count == max_count:
                break
        result.next_offset += looked
        if result.count:
            result.status = ReadStatus.FOUND
        elif looked:
            result.status = ReadStatus.NO_MATCHED_MESSAGE
        return result

    def _collect(self, result: ReadResult, runs: list[Run], visible: int) -> ReadResult:
        """Fill `result` with the views of `runs`. UnreadableBytes."""
        for start, end, count in runs:
            try:
                view = self._log.view(start, end - start, visible)
            except FileNotFoundError:
                break
            result.views.append(view)
            result.count += count
            result.size += end - start
        else:
            if not result.count:
                result.status = ReadStatus.NO_MATCHED_MESSAGE
            return result
        if not result.count:
            result.status = ReadStatus.MESSAGE_WAS_REMOVING
        return result


def _anything(_record: memoryview) -> bool:
    """Every record is wanted."""
    return True


def _refusal(queue_offset: int, low: int, high: int) -> tuple[ReadStatus, int] | None:
    """Status and next offset when `queue_offset` is outside `[low, high)`."""
    if high == 0:
        return ReadStatus.NO_MESSAGE_IN_QUEUE, 0
    if queue_offset < low:
        return ReadStatus.OFFSET_TOO_SMALL, low
    if queue_offset == high:
        return ReadStatus.OFFSET_OVERFLOW_ONE, queue_offset
    if queue_offset > high:
        return ReadStatus.OFFSET_OVERFLOW_BADLY, high
    return None


def _select_few(
    units: memoryview, max_count: int, max_bytes: int, tag_hashes: frozenset[int] | None
) -> tuple[list[Run], int]:
    """Choose records from a short piece of queue; return their runs and how many units are dealt with."""
    runs: list[Run] = []
    size_sum = taken = scanned = 0
    run_start = run_end = run_count = 0
    for start, size, tags_code in UNIT_STRUCT.iter_unpack(units):
        if _is_wanted(size, tags_code, tag_hashes):
            size_sum += size
            if taken and size_sum > max_bytes:
                break
            if start != run_end:
                if run_count:
                    runs.append((run_start, run_end, run_count))
                run_start, run_count = start, 0
            run_end = start + size
            run_count += 1
            taken += 1
        scanned += 1
        if taken == max_count:
            break
    if run_count:
        runs.append((run_start, run_end, run_count))
    return runs, scanned


def _select_many(
    units: memoryview, max_count: int, max_bytes: int, tag_hashes: frozenset[int] | None
) -> tuple[list[Run], int]:
    """The same as `_select_few`, with arrays."""
    table = np.frombuffer(units, UNIT_DTYPE)
    wanted = np.flatnonzero((table["size"] != FILLER_SIZE) & (table["tags_code"] != DAMAGED_TAGS_CODE))
    if tag_hashes is not None:
        codes = table["tags_code"].astype(np.int64).astype(np.int32)[wanted]
        wanted = wanted[np.isin(codes, np.fromiter(tag_hashes, np.int32, len(tag_hashes)))]
    starts = table["physical_offset"].astype(np.int64)[wanted]
    sizes = table["size"].astype(np.int64)[wanted]
    fitting = int(np.searchsorted(np.cumsum(sizes), max_bytes, side="right"))
    taken = min(max_count, max(1, fitting), len(wanted))
    if not taken:
        return [], len(table)
    ends = starts[:taken] + sizes[:taken]
    firsts = np.concatenate(([0], np.flatnonzero(starts[1:taken] != ends[:-1]) + 1))
    lasts = np.concatenate((firsts[1:], [taken]))
    if taken == max_count:
        scanned = int(wanted[taken - 1]) + 1
    else:
        scanned = int(wanted[taken]) if taken < len(wanted) else len(table)
    return list(
        zip(starts[firsts].tolist(), ends[lasts - 1].tolist(), (lasts - firsts).tolist(), strict=True)
    ), scanned


def _is_wanted(size: int, tags_code: int, tag_hashes: frozenset[int] | None) -> bool:
    """Whether a unit is one of a message, and of one of the wanted tags."""
    if size == FILLER_SIZE or tags_code == DAMAGED_TAGS_CODE:
        return False
    return tag_hashes is None or _low_32(tags_code) in tag_hashes


def _low_32(tags_code: int) -> int:
    """The low 32 bits as a signed number: what consumers send, and all that RocketMQ compares."""
    return ((tags_code + 0x80000000) & 0xFFFFFFFF) - 0x80000000
