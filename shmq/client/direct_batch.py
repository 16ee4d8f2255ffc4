"""One direct batch: from queue offset to message views, checked in the order of `direct_reader`.

Imports numpy, so only the first direct read loads this module. All positions come from the mapped page; the
maps are the broker's own files. Everything about a batch is checked with arrays: each unit against its
record's head, each body against its CRC. Returns None whenever the answer is not plainly "found", "nothing
new" or "nothing matched".
"""

from __future__ import annotations

import mmap
from typing import cast

import numpy as np

from shmq.base.checksum import crc32
from shmq.base.errors import StoreDamaged
from shmq.base.map_touch import touch
from shmq.client.grant import READABLE, FileMap, ReaderGrant
from shmq.client.pull import PullResult, PullStatus, wanted
from shmq.client.pulled_message import PulledMessage
from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.message_queue import MessageQueue
from shmq.model.record import BODY_AT, MAGIC_V1, RECORD_OVERHEAD_V1
from shmq.model.record_array import HEAD_DTYPE, gathered
from shmq.model.subscription import SubscriptionData
from shmq.model.sys_flag import BORN_HOST_V6, STORE_HOST_V6
from shmq.model.unit import UNIT_BYTES
from shmq.model.unit_array import UNIT_DTYPE, IntArray
from shmq.protocol.grant import LOG, QUEUE, FileRequest
from shmq.shm import page_layout as at
from shmq.shm.queue_table import QueueRef

HOT_SEGMENTS = 2
"""The newest segments: they were just written, so they are in memory and are read without a question."""
TOUCH_BYTES = 4 << 20
"""Records that lie so near each other are touched together."""
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
    positions = units["physical_offset"].astype(np.int64)
    sizes = units["size"].astype(np.int64)
    seen = int(np.searchsorted(positions + sizes, visible, side="right"))
    codes = units["tags_code"][:seen]
    wanted_units = codes != DAMAGED_TAGS_CODE
    if filtered:
        wanted_units &= np.isin(codes, np.fromiter(subscription.code_set, dtype=np.int64))
    chosen: IntArray = np.flatnonzero(wanted_units)
    # The limits of count and bytes cut the scan: what is behind the last message taken was not looked at.
    count = min(len(chosen), max_count, _fitting(sizes[chosen], max_bytes))
    scanned = seen if count == len(chosen) else int(chosen[count])
    taken = chosen[:count]
    if count:  # a damaged unit may say anything
        begins, ends = positions[taken], positions[taken] + sizes[taken]
        possible = (begins >= 0) & (ends > begins) & (ends <= visible)
        possible[1:] &= begins[1:] >= ends[:-1]
        _demand(possible, queue, offset + taken, "its unit leads nowhere")
    records = _records(grant, queue, offset + taken, positions[taken], sizes[taken])
    if records is None:
        return None
    changed = words[slot + at.QUEUE_GENERATION] != ref.generation or words[slot + at.QUEUE_MIN] > offset
    if changed or words[at.STATE] not in READABLE or words[at.PAGE_ID] != grant.answer.page_id:
        return None
    if not seen:
        status = PullStatus.NO_NEW_MSG
    elif not count:
        status = PullStatus.NO_MATCHED_MSG
    else:
        status = PullStatus.FOUND
    bounds, name = (minimum, maximum), queue.broker_name
    messages = wanted([PulledMessage(record, name, bounds) for record in records], subscription)
    return PullResult(
        status, offset + scanned, minimum, maximum, messages, record_bytes=int(sizes[taken].sum())
    )


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


def _records(
    grant: ReaderGrant, queue: MessageQueue, offsets: IntArray, positions: IntArray, sizes: IntArray
) -> list[FileMap] | None:
    """Return a checked view of each record; None when a segment is not there."""
    size = grant.answer.log_file_size
    file_starts = positions - positions % size
    words = grant.page.words
    hot_from = words[words[at.VISIBLE_WORD]] - HOT_SEGMENTS * size
    found: list[FileMap] = []
    place = 0
    while place < len(positions):
        start = int(file_starts[place])
        end = int(np.searchsorted(file_starts, start, side="right"))  # positions rise, so segments do
        mapped = grant.file(FileRequest(LOG, "", 0, start))
        if mapped is None:
            return None
        part = slice(place, end)
        if start < hot_from and not _is_readable(mapped, positions[part] - start, sizes[part]):
            raise StoreDamaged(f"the disk cannot give records of {queue} from offset {offsets[place]} on")
        found += _checked(mapped, queue, offsets[part], positions[part], positions[part] - start, sizes[part])
        place = end
    return found


def _is_readable(mapped: FileMap, starts: IntArray, sizes: IntArray) -> bool:
    """Bring records into memory; False when the disk cannot give them: a load would be SIGBUS, our end."""
    low, high = int(starts[0]), int(starts[-1] + sizes[-1])
    memory = cast(mmap.mmap, mapped.obj)
    if high - low <= TOUCH_BYTES:
        return touch(memory, low, high - low)
    return all(touch(memory, *at) for at in zip(starts.tolist(), sizes.tolist(), strict=True))


def _checked(
    mapped: FileMap,
    queue: MessageQueue,
    offsets: IntArray,
    positions: IntArray,
    starts: IntArray,
    sizes: IntArray,
) -> list[FileMap]:
    """Return the records of one segment after comparing each with its unit, and its body with its CRC."""
    ends = starts + sizes
    _demand((sizes >= RECORD_OVERHEAD_V1) & (ends <= len(mapped)), queue, offsets, "its size is impossible")
    heads = gathered(mapped, BODY_AT, starts).view(HEAD_DTYPE).ravel()
    same = (
        (heads["total_size"] == sizes)
        & (heads["physical_offset"] == positions)
        & (heads["queue_offset"] == offsets)
        & (heads["queue_id"] == queue.queue_id)
    )
    _demand(same, queue, offsets, "it is not what its unit promises")
    records = [mapped[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    v6 = BORN_HOST_V6 | STORE_HOST_V6
    if bool(((heads["magic"] == MAGIC_V1) & ((heads["sys_flag"] & v6) == 0)).all()):
        body_starts = starts + BODY_AT
        body_ends = body_starts + heads["body_length"]
        _demand(
            (body_starts < body_ends) & (body_ends < ends), queue, offsets, "its body length is impossible"
        )
        bodies = zip(body_starts.tolist(), body_ends.tolist(), strict=True)
        found = np.fromiter(map(crc32, [mapped[a:b] for a, b in bodies]), np.int64, len(records))
        _demand(found & 0x7FFFFFFF == heads["body_crc"], queue, offsets, "its body CRC is wrong")
    else:  # long topics or IPv6 hosts: the body is elsewhere
        sound = [PulledMessage(record, "", (0, 0)).body_crc_ok() for record in records]
        _demand(np.array(sound), queue, offsets, "its body CRC is wrong")
    return records


def _demand(holds: np.ndarray, queue: MessageQueue, offsets: IntArray, fault: str) -> None:
    if not holds.all():
        raise StoreDamaged(f"the record of {queue} at offset {offsets[int(np.argmin(holds))]}: {fault}")
