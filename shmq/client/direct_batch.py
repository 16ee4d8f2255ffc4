"""One direct batch: from queue offset to message views, checked in the order of `direct_reader`.

Imports numpy, so only the first direct read loads this module. All positions come from the mapped page; the
maps are the broker's own files. Everything about a batch is checked with arrays: each unit against its
record's head, each body against its CRC. Returns None whenever the answer is not plainly "found", "nothing
new" or "nothing matched".
"""

from __future__ import annotations

import mmap
from typing import Any, cast

import numpy as np

from shmq.base.checksum import crc32
from shmq.base.errors import StoreDamaged
from shmq.base.map_touch import touch
from shmq.client.grant import READABLE, FileMap, ReaderGrant
from shmq.client.pull import PullResult, PullStatus, wanted
from shmq.client.pulled_message import COPIED_BYTES, Pull, PulledMessage, cut_messages, make_messages
from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.message_queue import MessageQueue
from shmq.model.record import BODY_AT, RECORD_OVERHEAD_V1, Buffer
from shmq.model.record_array import HEAD_DTYPE, body_ends, gathered
from shmq.model.subscription import SubscriptionData
from shmq.model.sys_flag import COMPRESSED
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
    bounds = (minimum, maximum)
    messages = _messages(grant, queue, bounds, offset + taken, positions[taken], sizes[taken])
    if messages is None:
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
    size = int(sizes[taken].sum())
    return PullResult(status, offset + scanned, *bounds, wanted(messages, subscription), record_bytes=size)


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


def _messages(
    grant: ReaderGrant,
    queue: MessageQueue,
    bounds: tuple[int, int],
    offsets: IntArray,
    positions: IntArray,
    sizes: IntArray,
) -> list[PulledMessage] | None:
    """Return the checked messages of some units; None when a segment is not there."""
    size = grant.answer.log_file_size
    file_starts = positions - positions % size
    words = grant.page.words
    hot_from = words[words[at.VISIBLE_WORD]] - HOT_SEGMENTS * size
    found: list[PulledMessage] = []
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
        found += _checked(mapped, queue, bounds, offsets[part], positions[part], start, sizes[part])
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
    bounds: tuple[int, int],
    offsets: IntArray,
    positions: IntArray,
    file_start: int,
    sizes: IntArray,
) -> list[PulledMessage]:
    """Return the messages of one segment after comparing each with its unit, and its body with its CRC.

    Small records are copied first, so what is checked is what is handed out; larger ones stay in the map.
    """
    starts = positions - file_start
    ends = starts + sizes
    _demand((sizes >= RECORD_OVERHEAD_V1) & (ends <= len(mapped)), queue, offsets, "its size is impossible")
    firsts = np.flatnonzero(np.concatenate(([True], starts[1:] != ends[:-1])))  # of those back to back
    lasts = np.append(firsts[1:], len(starts)) - 1
    runs = zip(starts[firsts].tolist(), ends[lasts].tolist(), strict=True)
    pieces: list[Buffer] = [mapped[start:end] for start, end in runs]
    source: Buffer = mapped
    if sizes[0] <= COPIED_BYTES:
        source = b"".join(pieces)
        pieces, starts = [source], np.cumsum(sizes) - sizes
    heads = gathered(source, BODY_AT, starts).view(HEAD_DTYPE).ravel()
    same = (
        (heads["total_size"] == sizes)
        & (heads["physical_offset"] == positions)
        & (heads["queue_offset"] == offsets)
        & (heads["queue_id"] == queue.queue_id)
    )
    _demand(same, queue, offsets, "it is not what its unit promises")
    name = queue.broker_name
    bodies_end = body_ends(source, heads, starts, starts + sizes)
    if bodies_end is None:
        messages = [message for piece in pieces for message in cut_messages(piece, name, bounds)]
        sound = np.fromiter(map(PulledMessage.body_crc_ok, messages), np.bool_, len(messages))
    else:
        spans = map(slice, (starts + BODY_AT).tolist(), bodies_end.tolist())
        bodies: list[Any] = list(map(source.__getitem__, spans))
        if source is mapped or (heads["sys_flag"] & COMPRESSED).any():
            messages = [message for piece in pieces for message in cut_messages(piece, name, bounds)]
        else:
            messages = make_messages(
                Pull(source, name, bounds), starts.tolist(), sizes.tolist(), offsets.tolist(), bodies
            )
        sound = np.fromiter(map(crc32, bodies), np.int64, len(bodies)) & 0x7FFFFFFF == heads["body_crc"]
    _demand(sound, queue, offsets, "its body CRC is wrong")
    return messages


def _demand(holds: np.ndarray, queue: MessageQueue, offsets: IntArray, fault: str) -> None:
    if not holds.all():
        raise StoreDamaged(f"the record of {queue} at offset {offsets[int(np.argmin(holds))]}: {fault}")
