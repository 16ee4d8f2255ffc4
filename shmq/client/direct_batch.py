"""One direct batch: from queue offset to message views, checked in the order of `direct_reader`.

Imports numpy, so only the first direct read loads this module. All positions come from the mapped page; the
maps are the broker's own files. Returns None whenever the answer is not plainly "found", "nothing new" or
"nothing matched".
"""

from __future__ import annotations

import numpy as np

from shmq.base.errors import StoreDamaged
from shmq.client.grant import READABLE, FileMap, ReaderGrant
from shmq.client.pull import PullResult, PullStatus, wanted
from shmq.client.pulled_message import PulledMessage
from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import SubscriptionData
from shmq.model.unit import UNIT_BYTES
from shmq.model.unit_array import UNIT_DTYPE, IntArray
from shmq.protocol.grant import LOG, QUEUE, FileRequest
from shmq.shm import page_layout as at
from shmq.shm.queue_table import QueueRef

SCAN_UNITS = 800
"""Units looked at for one batch when a tag filter may drop most of them."""


def read_batch(
    grant: ReaderGrant,
    queue: MessageQueue,
    ref: QueueRef,
    offset: int,
    max_count: int,
    max_bytes: int,
    subscription: SubscriptionData,
) -> PullResult | None:
    """Read from `offset`; the caller has checked state, page id and policy epoch and holds the granted
    `ref`."""
    words = grant.page.words
    slot = at.QUEUE_TABLE + ref.slot * at.QUEUE_WORDS
    if words[slot + at.QUEUE_GENERATION] != ref.generation:
        return None
    visible = words[words[at.VISIBLE_WORD]]
    minimum, maximum = words[slot + at.QUEUE_MIN], words[slot + at.QUEUE_MAX]
    if not minimum <= offset <= maximum:
        return None
    filtered = not subscription.matches_all
    last = min(maximum, offset + (max(SCAN_UNITS, max_count) if filtered else max_count))
    units = _units(grant, queue, offset, last)
    if units is None:
        return None
    seen = int(np.searchsorted(units["physical_offset"] + units["size"], visible, side="right"))
    positions = units["physical_offset"][:seen].astype(np.int64)
    sizes = units["size"][:seen].astype(np.int64)
    chosen: IntArray = np.arange(seen)
    if filtered:
        codes = np.fromiter(subscription.code_set, dtype=np.int64)
        chosen = np.flatnonzero(np.isin(units["tags_code"][:seen], codes))
    # The limits of count and bytes cut the scan: what is behind the last message taken was not looked at.
    count = min(len(chosen), max_count, _fitting(sizes[chosen], max_bytes))
    scanned = seen if count == len(chosen) else int(chosen[count])
    bounds = (minimum, maximum)
    messages: list[PulledMessage] = []
    for position, size in zip(
        positions[chosen[:count]].tolist(), sizes[chosen[:count]].tolist(), strict=True
    ):
        record = _record(grant, position, size)
        if record is None:
            return None
        message = PulledMessage(record, queue.broker_name, bounds)
        if message.queue_offset - offset not in range(seen) or not message.body_crc_ok():
            raise StoreDamaged(
                f"the record at {position} of {queue} is not what its unit promises, or its CRC is wrong"
            )
        messages.append(message)
    changed = words[slot + at.QUEUE_GENERATION] != ref.generation or words[slot + at.QUEUE_MIN] > offset
    if changed or words[at.STATE] not in READABLE or words[at.PAGE_ID] != grant.answer.page_id:
        return None
    if not seen:
        status = PullStatus.NO_NEW_MSG
    elif not count:
        status = PullStatus.NO_MATCHED_MSG
    else:
        status = PullStatus.FOUND
    return PullResult(status, offset + scanned, *bounds, wanted(messages, subscription))


def _units(grant: ReaderGrant, queue: MessageQueue, first: int, last: int) -> np.ndarray | None:
    """Return the units [first, last) as far as they lie in the file of the first one."""
    size = grant.answer.queue_file_size
    start = first * UNIT_BYTES
    file_start = start - start % size
    if first >= last:
        return np.empty(0, UNIT_DTYPE)
    mapped = grant.file(FileRequest(QUEUE, queue.topic, queue.queue_id, file_start))
    if mapped is None:
        return None
    end = min(last * UNIT_BYTES, file_start + size)
    return np.frombuffer(mapped[start - file_start : end - file_start], dtype=UNIT_DTYPE)


def _fitting(sizes: IntArray, max_bytes: int) -> int:
    """Return how many messages fit `max_bytes`, at least one."""
    return max(1, int(np.searchsorted(np.cumsum(sizes), max_bytes, side="right")))


def _record(grant: ReaderGrant, position: int, size: int) -> FileMap | None:
    """Return a view of one record."""
    file_start = position - position % grant.answer.log_file_size
    mapped = grant.file(FileRequest(LOG, "", 0, file_start))
    if mapped is None:
        return None
    return mapped[position - file_start : position - file_start + size]
