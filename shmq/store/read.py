"""Reading a queue: which messages a pull gets, as views of the mapped CommitLog.

Every number is bounded by the page, in this order: slot generation, visible position, minimum, maximum,
units, records. A unit counts when its record ends at or below the visible position (flushed or replicated,
whatever the broker promises): otherwise a consumer could commit an offset that a power cut takes back. Called
by workers; takes no lock and never waits, except for a page that is not in memory.

Damage is never handed out: the unit of a damaged record has a tags code of its own
(`model/damaged_record.py`), and reads pass over it; what nobody knows of yet is found here, as each record
must be what its unit promises (`promised.py`). Such a message is doubted (`doubts.py`): the scrub looks at
it while the consumer is told to ask again.

Short reads unpack units one by one, long ones are arrays: below about 64 units numpy costs more than it
saves.
"""

from __future__ import annotations

import enum
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.record import RecordFields
from shmq.model.unit import UNIT_BYTES, UNIT_STRUCT
from shmq.model.unit_array import UNIT_DTYPE
from shmq.shm.control_page import ControlPage
from shmq.shm.page_layout import MIN_OFFSET, WRITE_POSITION
from shmq.shm.queue_table import QueueRef, QueueTable
from shmq.store.commit_log import CommitLog, UnreadableBytes
from shmq.store.consume_queue import FILLER_SIZE
from shmq.store.consume_queues import ConsumeQueues
from shmq.store.doubts import Doubts
from shmq.store.log_scan import IntArray
from shmq.store.promised import all_promised, has_promised_body, promised_head

SCAN_UNITS_MAX = 16_384
"""Units one read looks at when a tag filter rejects most of them; the consumer asks again from there."""

JUDGED_MAX = 2_048
"""Records one read judges by their properties: some milliseconds, then others get their turn."""

JUDGING_S = 0.01
"""How long one read may judge: an expression of a thousand conditions costs a millisecond a record."""
_CLOCK_EVERY = 8

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
    IN_DOUBT = enum.auto()
    """Ours: the next message is not what it should be, and perhaps will be in a moment. Ask again."""


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

    def __init__(
        self, page: ControlPage, table: QueueTable, log: CommitLog, queues: ConsumeQueues, doubts: Doubts
    ) -> None:
        """All of them belong to the calling process and thread."""
        self._doubts = doubts
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
        # Maxima follow the write position: while that is `visible`, every message below `high` can be seen.
        if (
            low >= high
            or self._page.words[WRITE_POSITION] == visible
            or self._end_of(queue, high - 1) <= visible
        ):
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
            runs, taken, scanned = select(units, max(1, max_count), max_bytes, tag_hashes)
            result = ReadResult(ReadStatus.FOUND, queue_offset + scanned, low, high)
            if self._collect(result, queue, units, runs, taken, queue_offset, visible):
                return result
            exact = _anything  # one by one, then: most of them can be had
        result = ReadResult(ReadStatus.FOUND, queue_offset, low, high)
        return self._judge(result, queue, units, max(1, max_count), max_bytes, tag_hashes, exact, visible)

    def _judge(
        self,
        result: ReadResult,
        queue: QueueRef,
        units: memoryview,
        max_count: int,
        max_bytes: int,
        tag_hashes: frozenset[int] | None,
        exact: ExactFilter,
        visible: int,
    ) -> ReadResult:
        """Fill `result` with records `exact` agrees to, until it is full, all `units` were looked at or
        JUDGING_S are over. The body of what it refuses is not touched.

        One that the disk cannot give is passed over, like every known damage. One that is not what its unit
        promises ends the answer; where it is the first, it is doubted.
        """
        first, looked, began = result.next_offset, 0, time.monotonic()
        for start, size, tags_code in UNIT_STRUCT.iter_unpack(units):
            if _is_wanted(size, tags_code, tag_hashes):
                try:
                    record = self._headed(queue, first + looked, start, size, visible)
                except UnreadableBytes:
                    looked += 1
                    continue
                is_wanted = record is not None and exact(record[0])
                if record is None or (is_wanted and not has_promised_body(*record)):
                    if result.count:
                        break
                    if self._table.min(queue.slot) > first + looked:
                        result.status = ReadStatus.MESSAGE_WAS_REMOVING
                        break
                    if self._doubts.may_be_mended(queue, first + looked):
                        result.status = ReadStatus.IN_DOUBT
                        break
                elif is_wanted:
                    if result.count and result.size + size > max_bytes:
                        break
                    result.views.append(record[0])
                    result.count += 1
                    result.size += size
            looked += 1
            if result.count == max_count or (
                looked % _CLOCK_EVERY == 0 and time.monotonic() - began > JUDGING_S
            ):
                break
        result.next_offset += looked
        if not result.count and result.status is ReadStatus.FOUND:
            result.status = ReadStatus.NO_MATCHED_MESSAGE
        return result

    def _headed(
        self, queue: QueueRef, number: int, start: int, size: int, visible: int
    ) -> tuple[memoryview, RecordFields] | None:
        """The record that a unit names, its body not looked at; None when it is not there, or another.

        UnreadableBytes: nobody can mend it, as its segment is gone or the disk does not give it.
        """
        if not self._can_lie_at(start, size, visible):
            return None
        try:
            record = self._log.view(start, size, visible)
        except FileNotFoundError:
            if start >= self._page.words[MIN_OFFSET]:
                raise UnreadableBytes(f"the segment with position {start} is missing") from None
            return None
        fields = promised_head(record, start, queue.queue_id, number)
        return None if fields is None else (record, fields)

    def _can_lie_at(self, start: int, size: int, visible: int) -> bool:
        """Whether bytes of the log that readers may see can lie there, all in one segment."""
        room = self._log.segment_bytes - start % self._log.segment_bytes
        return 0 <= start <= start + size <= visible and size <= room

    def _collect(
        self,
        result: ReadResult,
        queue: QueueRef,
        units: memoryview,
        runs: list[Run],
        taken: list[int] | IntArray,
        first: int,
        visible: int,
    ) -> bool:
        """Fill `result` with the views of `runs`; False when something is wrong with any record of them."""
        done = 0
        for start, end, count in runs:
            if not self._can_lie_at(start, end - start, visible):
                return False
            try:
                view = self._log.view(start, end - start, visible)
            except (FileNotFoundError, UnreadableBytes):
                return False
            if not all_promised(view, start, units, taken[done : done + count], queue.queue_id, first):
                return False
            done += count
            result.views.append(view)
            result.count += count
            result.size += end - start
        if not result.count:
            result.status = ReadStatus.NO_MATCHED_MESSAGE
        return True


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
) -> tuple[list[Run], list[int], int]:
    """Choose records from a short piece of queue; return their runs, which units they are of, and how many
    units are dealt with."""
    runs: list[Run] = []
    taken: list[int] = []
    size_sum = scanned = 0
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
            taken.append(scanned)
        scanned += 1
        if len(taken) == max_count:
            break
    if run_count:
        runs.append((run_start, run_end, run_count))
    return runs, taken, scanned


def _select_many(
    units: memoryview, max_count: int, max_bytes: int, tag_hashes: frozenset[int] | None
) -> tuple[list[Run], IntArray, int]:
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
        return [], wanted[:0], len(table)
    ends = starts[:taken] + sizes[:taken]
    firsts = np.concatenate(([0], np.flatnonzero(starts[1:taken] != ends[:-1]) + 1))
    lasts = np.concatenate((firsts[1:], [taken]))
    if taken == max_count:
        scanned = int(wanted[taken - 1]) + 1
    else:
        scanned = int(wanted[taken]) if taken < len(wanted) else len(table)
    runs = zip(starts[firsts].tolist(), ends[lasts - 1].tolist(), (lasts - firsts).tolist(), strict=True)
    return list(runs), wanted[:taken], scanned


def _is_wanted(size: int, tags_code: int, tag_hashes: frozenset[int] | None) -> bool:
    """Whether a unit is one of a message, and of one of the wanted tags."""
    if size == FILLER_SIZE or tags_code == DAMAGED_TAGS_CODE:
        return False
    return tag_hashes is None or _low_32(tags_code) in tag_hashes


def _low_32(tags_code: int) -> int:
    """The low 32 bits as a signed number: what consumers send, and all that RocketMQ compares."""
    return ((tags_code + 0x80000000) & 0xFFFFFFFF) - 0x80000000
