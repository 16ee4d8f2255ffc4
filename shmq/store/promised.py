"""Is a record what its ConsumeQueue unit promises? What every read asks before it hands records out.

A record is, when it lies where the unit says and is as long, names the queue's id and the unit's number, its
lengths add up, and its body has its CRC. So a changed byte in any of these, in the record or in the unit,
costs nobody more than that one message: without the question a wrong length would spoil the whole answer, a
wrong number would become a consumer's offset, and a changed body would be taken for what was sent.

Half a microsecond a message. Pure functions; numpy.
"""

from __future__ import annotations

import struct

import numpy as np

from shmq.base.checksum import body_crc, crc32
from shmq.base.errors import MessageIllegal
from shmq.model.record import BODY_AT, MAGIC_V1, RECORD_OVERHEAD_V1, RecordFields, parse_record
from shmq.model.record_array import HEAD_DTYPE, body_ends, gathered
from shmq.model.sys_flag import BORN_HOST_V6, STORE_HOST_V6
from shmq.model.unit import UNIT_BYTES, UNIT_STRUCT
from shmq.model.unit_array import UNIT_DTYPE
from shmq.store.log_scan import BODY_CRC_MASK, IntArray

FEW = 64
"""So many records are looked at one by one: arrays cost more."""

_HEAD = struct.Struct(">iiii4xqqi44xi")
"""What of HEAD_DTYPE is compared."""
assert _HEAD.size == BODY_AT

_V6 = BORN_HOST_V6 | STORE_HOST_V6


def is_promised(record: memoryview, start: int, queue_id: int, number: int) -> bool:
    """Whether `record`, the bytes that a unit names, is the message `number` of its queue."""
    fields = promised_head(record, start, queue_id, number)
    return fields is not None and has_promised_body(record, fields)


def promised_head(record: memoryview, start: int, queue_id: int, number: int) -> RecordFields | None:
    """All of that but the body, which is not touched; None when something is not as promised."""
    try:
        fields = parse_record(record)
    except MessageIllegal:
        return None
    found = (fields.size, fields.queue_id, fields.queue_offset, fields.physical_offset)
    return fields if found == (len(record), queue_id, number, start) else None


def has_promised_body(record: memoryview, fields: RecordFields) -> bool:
    """Whether the body has its CRC."""
    if not fields.body_length:
        return True
    return body_crc(record[fields.body_at : fields.body_at + fields.body_length]) == fields.body_crc


def all_promised(
    view: memoryview, start: int, units: memoryview, taken: list[int] | IntArray, queue_id: int, first: int
) -> bool:
    """Whether `view`, which begins at `start` of the log, is the records of the `taken` units, each as
    promised, one behind the other and nothing else.

    `first` is the queue offset of the first unit in `units`. They may be mended at this very moment: nothing
    is assumed of those that the view was chosen by, its bounds included.
    """
    if len(taken) <= FEW:
        return _few(view, start, units, taken, queue_id, first)
    table = np.frombuffer(units, UNIT_DTYPE)[taken]
    sizes = table["size"].astype(np.int64)
    starts = table["physical_offset"].astype(np.int64) - start
    ends = starts + sizes
    if (sizes < RECORD_OVERHEAD_V1).any() or starts[0] != 0 or ends[-1] != len(view):
        return False
    if (starts[1:] != ends[:-1]).any():
        return False
    heads = gathered(view, BODY_AT, starts).view(HEAD_DTYPE).ravel()
    same = (
        (heads["total_size"] == sizes)
        & (heads["physical_offset"] == starts + start)
        & (heads["queue_offset"] == np.asarray(taken) + first)
        & (heads["queue_id"] == queue_id)
    )
    if not same.all():
        return False
    bodies_end = body_ends(view, heads, starts, ends)
    if bodies_end is None:
        return _few(view, start, units, taken, queue_id, first)
    spans = map(slice, (starts + BODY_AT).tolist(), bodies_end.tolist())
    bodies = map(bytes(view).__getitem__, spans)  # a copy: slices of it cost less than views
    crcs = np.fromiter(map(crc32, bodies), np.int64, len(starts)) & BODY_CRC_MASK
    return bool((crcs == heads["body_crc"]).all())


def _few(
    view: memoryview, start: int, units: memoryview, taken: list[int] | IntArray, queue_id: int, first: int
) -> bool:
    """The same, one by one."""
    behind = 0
    for n in taken if isinstance(taken, list) else taken.tolist():
        position, size, _ = UNIT_STRUCT.unpack_from(units, n * UNIT_BYTES)
        at = position - start
        end = at + size
        if size < RECORD_OVERHEAD_V1 or at != behind or end > len(view):
            return False
        behind = end
        total, magic, crc, own_queue, number, own_start, flags, length = _HEAD.unpack_from(view, at)
        if total != size or own_start != position or number != first + n or own_queue != queue_id:
            return False
        topic_at = at + BODY_AT + length
        if magic != MAGIC_V1 or flags & _V6 or length <= 0 or topic_at + 3 > end:
            if not is_promised(view[at:end], position, queue_id, first + n):
                return False
            continue
        properties_at = topic_at + 1 + view[topic_at]
        if properties_at + 2 > end:
            return False
        if properties_at + 2 + (view[properties_at] << 8 | view[properties_at + 1]) != end:
            return False
        if crc32(view[at + BODY_AT : topic_at]) & BODY_CRC_MASK != crc:
            return False
    return behind == len(view)
