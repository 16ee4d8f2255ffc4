"""What is appended, and what became of it.

Made by send handlers and services, consumed by `append_claim.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shmq.base.errors import ShmqError
from shmq.model.record import SYS_FLAG_AT, stamp_record
from shmq.model.record_batch import stamp_batch
from shmq.model.sys_flag import BORN_HOST_V6
from shmq.model.unit import pack_unit
from shmq.model.unit_array import pack_units
from shmq.shm.producer_table import SequenceRef
from shmq.shm.queue_table import QueueRef

VECTOR_MIN = 16
"""From how many records on arrays are faster than a loop."""

IntArray = npt.NDArray[np.int64]


@dataclass(slots=True)
class AppendRequest:
    """Encoded, checked, unstamped records for one queue. They are appended together, whole in one segment.

    `data` holds the records back to back, hosts included, and is stamped in place; `sizes` and `tags_codes`
    have one entry each per record. `delay_ms` makes the tags code of a single record the time of its
    delivery. `word` is a word of the page with the value it gets together with the queue's maximum: in the
    same claim or not at all; `second_word` is another. No other path stores them while the broker runs.
    `with_next` ties it to the request behind it in the same call: both are in one claim, or neither is
    appended. `sequence` is that of an idempotent producer: when it is stored already, nothing is appended and
    the outcome says where it is.
    """

    queue: QueueRef
    data: bytearray | memoryview
    sizes: Sequence[int] | IntArray
    tags_codes: Sequence[int] | IntArray
    delay_ms: int = 0
    word: tuple[int, int] | None = None
    second_word: tuple[int, int] | None = None
    with_next: bool = False
    sequence: SequenceRef | None = None

    @property
    def count(self) -> int:
        """How many records it has."""
        return len(self.sizes)

    def stamp(self, queue_offset: int, physical_offset: int, store_time: int) -> bytes:
        """Write offsets and store time into the records and return their units. Under the AppendLock.

        All records of a request come from one client, so the first one tells whether born hosts are IPv6.
        """
        count = len(self.sizes)
        if count == 1:
            stamp_record(self.data, 0, queue_offset, physical_offset, store_time)
            code = store_time + self.delay_ms if self.delay_ms else int(self.tags_codes[0])
            return pack_unit(physical_offset, len(self.data), code)
        if count < VECTOR_MIN or self.data[SYS_FLAG_AT + 3] & BORN_HOST_V6:
            position = 0
            for number, size in enumerate(self.sizes):
                stamp_record(
                    self.data, position, queue_offset + number, physical_offset + position, store_time
                )
                position += int(size)
        else:
            sizes = np.asarray(self.sizes, np.int64)
            stamp_batch(self.data, np.cumsum(sizes) - sizes, queue_offset, physical_offset, store_time)
        return pack_units(physical_offset, self.sizes, self.tags_codes)


@dataclass(slots=True)
class AppendOutcome:
    """Where the records of one request lie now, or why they lie nowhere (`error`; the other fields are then
    0).

    `queue_offset` and `physical_offset` are the first record's, `end` the log position behind the last
    record, `store_time` in ms. `queue_id` is set when an earlier send of the same sequence stored it: that
    one's, which need not be the request's.
    """

    error: ShmqError | None = None
    queue_offset: int = 0
    physical_offset: int = 0
    end: int = 0
    store_time: int = 0
    queue_id: int | None = None
