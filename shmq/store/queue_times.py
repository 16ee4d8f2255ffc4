"""Queue offsets by store time: a binary search over the records, as store times never go back in the log."""

from __future__ import annotations

import enum
import struct
from bisect import bisect_left, bisect_right

from shmq.model.record import STORE_TIMESTAMP_AT, SYS_FLAG_AT
from shmq.model.sys_flag import BORN_HOST_V6
from shmq.shm.queue_table import QueueRef, QueueTable
from shmq.store.commit_log import CommitLog
from shmq.store.consume_queues import ConsumeQueues
from shmq.store.read import QueueReader

_I64 = struct.Struct(">q")


class Boundary(enum.Enum):
    """Which of several messages stored at or around a time is meant (RocketMQ's boundaryType)."""

    LOWER = "LOWER"
    """The first one stored at the time or later."""
    UPPER = "UPPER"
    """The last one stored at the time or earlier."""


def store_time_of(record: memoryview) -> int:
    """The store timestamp of a whole record."""
    shift = 12 if record[SYS_FLAG_AT + 3] & BORN_HOST_V6 else 0
    return int(_I64.unpack_from(record, STORE_TIMESTAMP_AT + shift)[0])


class QueueTimes:
    """Answers time questions for one process; reads a handful of records per question."""

    def __init__(self, reader: QueueReader, table: QueueTable, log: CommitLog, queues: ConsumeQueues) -> None:
        """All four belong to the calling process and thread."""
        self._reader = reader
        self._table = table
        self._log = log
        self._queues = queues

    def store_time_at(self, queue: QueueRef, queue_offset: int) -> int | None:
        """When the message at `queue_offset` was stored (ms); None when it is not there (any more)."""
        if not self._table.min(queue.slot) <= queue_offset < self._table.max(queue.slot):
            return None
        try:
            unit = self._queues.unit(queue, queue_offset)
            return store_time_of(self._log.view(unit.physical_offset, unit.size))
        except (FileNotFoundError, struct.error):
            return None

    def offset_by_time(self, queue: QueueRef, ts_ms: int, boundary: Boundary) -> int:
        """The queue offset for `ts_ms`.

        LOWER: the first message stored at `ts_ms` or later, the maximum when all are earlier. UPPER: the last
        one stored at `ts_ms` or earlier, the minimum when all are later. An empty queue gives its minimum.
        """
        low, high = self._table.min(queue.slot), self._reader.visible_max(queue)
        if low >= high:
            return low
        offsets = range(low, high)
        if boundary is Boundary.LOWER:
            return low + bisect_left(offsets, ts_ms, key=lambda offset: self._time_or_zero(queue, offset))
        after = bisect_right(offsets, ts_ms, key=lambda offset: self._time_or_zero(queue, offset))
        return low + max(0, after - 1)

    def _time_or_zero(self, queue: QueueRef, queue_offset: int) -> int:
        """The store time, 0 for a message that retention has removed since the minimum was read.

        It is the oldest.
        """
        return self.store_time_at(queue, queue_offset) or 0
