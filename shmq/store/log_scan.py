"""Reading the log in bulk: many records at once as arrays of fields. Recovery, the index builder and the
check use it.

A scan walks the chain of sizes from a record's start and judges each record by all that can be judged from
itself: magic, own physical offset, lengths that add up, body CRC, no NUL in topic or properties (pages that
were never written are zero, so a torn record has NULs where text belongs). It ends in front of the first
bytes that are no such record and says what it found there.

    END     the range is used up                     BLANK  a filler: go on at the next segment
    BROKEN  no sound record here; `broken_size` is the size it claims, when a next record may follow behind it

Positions in the arrays are relative to the view. Pure; numpy.
"""

from __future__ import annotations

import enum
import mmap
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shmq.base.checksum import crc32
from shmq.base.errors import MessageIllegal
from shmq.model.record import (
    BLANK_BYTES_MIN,
    BLANK_MAGIC,
    BODY_AT,
    BODY_CRC_AT,
    BODY_LENGTH_AT,
    MAGIC_AT,
    MAGIC_V1,
    MAGIC_V2,
    PHYSICAL_OFFSET_AT,
    QUEUE_ID_AT,
    QUEUE_OFFSET_AT,
    RECORD_OVERHEAD_V1,
    STORE_TIMESTAMP_AT,
    SYS_FLAG_AT,
    parse_record,
)
from shmq.model.sys_flag import BORN_HOST_V6, STORE_HOST_V6

IntArray = npt.NDArray[np.int64]

BATCH_RECORDS = 16_384
BATCH_BYTES = 16 << 20

BODY_CRC_MASK = 0x7FFFFFFF
"""A record's body CRC has no sign bit."""

WINDOW_BYTES = 256 << 10
"""How far ahead magics are looked for at once: what fits a core's own cache."""
ALIKE_MIN = 64
"""Neighbours of one size that make it worth trusting the next window to be alike, too."""
STEPS = 8
"""Records taken one by one behind a window: its last one, and those around a magic inside a body."""
LARGE_BYTES = 8 << 10
"""From this size on following sizes one by one costs less than looking at every byte for magics."""

_MAGIC_FIRST_BYTE = MAGIC_V1 >> 24 & 0xFF

_OVERHEAD_BEFORE_TOPIC = BODY_AT + 1
_MAGICS = (MAGIC_V1, MAGIC_V2)
_SIZE_AND_MAGIC = struct.Struct(">ii")


class ScanEnd(enum.Enum):
    """Why a scan stopped."""

    END = "end"
    BLANK = "blank"
    BROKEN = "broken"


@dataclass(slots=True)
class Scan:
    """The sound records in front of `stop`, one array element each.

    `stop` is relative to the view like `starts`.
    """

    starts: IntArray
    sizes: IntArray
    queue_ids: IntArray
    queue_offsets: IntArray
    physical_offsets: IntArray
    sys_flags: IntArray
    store_times: IntArray
    topic_starts: IntArray
    topic_ends: IntArray
    property_starts: IntArray
    stop: int
    end: ScanEnd
    broken_size: int = 0

    def __len__(self) -> int:
        """How many records were found sound."""
        return len(self.starts)

    @property
    def ends(self) -> IntArray:
        """The first position behind each record; its properties end there."""
        return self.starts + self.sizes


def scan(
    data: mmap.mmap,
    start: int,
    stop: int,
    base: int,
    *,
    check_bodies: bool = True,
    check_text: bool = True,
    records_max: int = BATCH_RECORDS,
) -> Scan:
    """Scan the records of the mapped segment `data` in `[start, stop)`; its first byte has physical offset
    `base`.

    At most `records_max` records and about BATCH_BYTES are taken at a time. `check_bodies`: compare body
    CRCs; `check_text`: a NUL in topic or properties makes a record unsound (only where a tail may be torn:
    another engine may have accepted one).
    """
    starts, sizes, position, end = _chain(data, start, stop, records_max)
    found = _fields(data, starts, sizes)
    sound = _sound(data, found, base)
    if check_text:
        _check_text(data, found, sound)
    if check_bodies:
        _check_bodies(data, found, sound)
    bad = np.flatnonzero(~sound)
    if len(bad):
        first = int(bad[0])
        position, end = int(starts[first]), ScanEnd.BROKEN
        broken_size = int(sizes[first])
        found = _Fields(*(array[:first] for array in found.arrays()))
    else:
        broken_size = 0
    return Scan(
        found.starts,
        found.sizes,
        found.queue_ids,
        found.queue_offsets,
        found.physical_offsets,
        found.sys_flags,
        found.store_times,
        found.topic_starts,
        found.topic_ends,
        found.property_starts,
        position,
        end,
        broken_size,
    )


def _chain(
    data: mmap.mmap, start: int, stop: int, records_max: int
) -> tuple[IntArray, IntArray, int, ScanEnd]:
    """Follow the size fields; return starts, sizes, where it stopped and why.

    Where the next magics stand is found for a whole window at once: as long as each record ends where the
    next magic says one begins, nothing needs to be followed. A magic inside a body, or the end, is taken by
    single steps.
    """
    pieces: list[IntArray] = []
    position, end, found = start, ScanEnd.END, 0
    byte_stop = min(stop, start + BATCH_BYTES)
    while position < byte_stop and found < records_max:
        run = _run(data, position, byte_stop, stop)[: records_max - found]
        if len(run):
            pieces.append(run)
            found += len(run)
            last = int(run[-1])
            position = last + _SIZE_AND_MAGIC.unpack_from(data, last)[0]
        most = min(STEPS, records_max - found)
        steps, position, end = _steps(data, position, byte_stop, stop, most)
        pieces.append(np.array(steps, np.int64))
        found += len(steps)
        if end is not ScanEnd.END:
            break
    starts = np.concatenate(pieces) if pieces else np.empty(0, np.int64)
    return starts, np.diff(starts, append=position), position, end


def _run(data: mmap.mmap, position: int, byte_stop: int, stop: int) -> IntArray:
    """The starts of records that follow each other from `position`, as far as one window shows it."""
    window = min(byte_stop, position + WINDOW_BYTES, len(data) - BLANK_BYTES_MIN)
    if window <= position:
        return np.empty(0, np.int64)
    i32 = overlapping(data, ">i4")
    alike = _alike(i32, position, window)
    if len(alike) >= ALIKE_MIN or i32[position] >= LARGE_BYTES:
        return alike
    u8 = np.frombuffer(data, np.uint8)
    hits = np.flatnonzero(u8[position + MAGIC_AT : window + MAGIC_AT] == _MAGIC_FIRST_BYTE) + position
    magics = i32[hits + MAGIC_AT]
    starts: IntArray = hits[(magics == MAGIC_V1) | (magics == MAGIC_V2)]
    if not len(starts) or starts[0] != position:
        return starts[:0]
    ends = starts + i32[starts]
    unlike = np.flatnonzero((ends[:-1] != starts[1:]) | (ends[:-1] - starts[:-1] < RECORD_OVERHEAD_V1))
    known = int(unlike[0]) if len(unlike) else len(starts) - 1
    return starts[:known]


def _alike(i32: npt.NDArray[Any], position: int, window: int) -> IntArray:
    """The same where neighbours have one size, as they often do: then every size field is one stride away."""
    size = int(i32[position])
    starts = np.arange(position, window, max(size, RECORD_OVERHEAD_V1))
    odd = (i32[starts] != size) | (i32[starts + MAGIC_AT] != MAGIC_V1)
    return starts[: int(np.argmax(odd)) if odd.any() else len(starts)][:-1]


def _steps(
    data: mmap.mmap, position: int, byte_stop: int, stop: int, most: int
) -> tuple[list[int], int, ScanEnd]:
    """Follow single records, at most `most`; return their starts, where that ended and why."""
    starts: list[int] = []
    while position < byte_stop and len(starts) < most:
        room = stop - position
        if room < BLANK_BYTES_MIN:
            return starts, position, ScanEnd.BROKEN
        size, magic = _SIZE_AND_MAGIC.unpack_from(data, position)
        if magic not in _MAGICS or size < RECORD_OVERHEAD_V1 or size > room:
            return starts, position, ScanEnd.BLANK if magic == BLANK_MAGIC else ScanEnd.BROKEN
        starts.append(position)
        position += size
    return starts, position, ScanEnd.END


@dataclass(slots=True)
class _Fields:
    starts: IntArray
    sizes: IntArray
    magics: IntArray
    queue_ids: IntArray
    queue_offsets: IntArray
    physical_offsets: IntArray
    sys_flags: IntArray
    store_times: IntArray
    body_starts: IntArray
    body_lengths: IntArray
    body_crcs: IntArray
    topic_starts: IntArray
    topic_ends: IntArray
    property_starts: IntArray

    def arrays(self) -> list[IntArray]:
        return [getattr(self, name) for name in self.__dataclass_fields__]


def _fields(data: mmap.mmap, starts: IntArray, sizes: IntArray) -> _Fields:
    """Take the fields out of every record.

    Those of a record whose lengths do not hold together make no sense.
    """
    i32 = overlapping(data, ">i4")
    i64 = overlapping(data, ">i8")
    u8 = np.frombuffer(data, np.uint8)
    magics = i32[starts + MAGIC_AT].astype(np.int64)
    sys_flags = i32[starts + SYS_FLAG_AT].astype(np.int64)
    body_lengths = i32[starts + BODY_LENGTH_AT].astype(np.int64)
    last = starts + sizes - 1
    topic_starts = np.clip(starts + _OVERHEAD_BEFORE_TOPIC + body_lengths, starts, last)
    topic_ends = topic_starts + u8[topic_starts - 1]
    fields = _Fields(
        starts,
        sizes,
        magics,
        i32[starts + QUEUE_ID_AT].astype(np.int64),
        i64[starts + QUEUE_OFFSET_AT].astype(np.int64),
        i64[starts + PHYSICAL_OFFSET_AT].astype(np.int64),
        sys_flags,
        i64[starts + STORE_TIMESTAMP_AT].astype(np.int64),
        starts + BODY_AT,
        body_lengths,
        i32[starts + BODY_CRC_AT].astype(np.int64),
        topic_starts,
        topic_ends,
        topic_ends + 2,
    )
    for i in np.flatnonzero((magics == MAGIC_V2) | (sys_flags & (BORN_HOST_V6 | STORE_HOST_V6) != 0)):
        _parse_one(data, fields, int(i))
    return fields


def overlapping(data: mmap.mmap, dtype: str) -> npt.NDArray[Any]:
    """A view in which element k is the number that begins at byte k."""
    kind = np.dtype(dtype)
    return np.ndarray((len(data) - kind.itemsize + 1,), kind, buffer=data, strides=(1,))


def _parse_one(data: mmap.mmap, fields: _Fields, i: int) -> None:
    """Correct the fields of a record with IPv6 hosts or a long topic; mark it as unsound when it is none."""
    start = int(fields.starts[i])
    with memoryview(data) as view:
        try:
            parsed = parse_record(view, start, start + int(fields.sizes[i]))
        except MessageIllegal:
            fields.magics[i] = 0
            return
    fields.magics[i] = MAGIC_V1
    fields.store_times[i] = parsed.store_timestamp
    fields.body_starts[i] = parsed.body_at
    fields.topic_starts[i] = parsed.topic_at
    fields.topic_ends[i] = parsed.topic_at + parsed.topic_length
    fields.property_starts[i] = parsed.properties_at


def _sound(data: mmap.mmap, fields: _Fields, base: int) -> npt.NDArray[np.bool_]:
    """Judge every record by its fixed fields and its lengths."""
    ends = fields.starts + fields.sizes
    u8 = np.frombuffer(data, np.uint8)
    sound: npt.NDArray[np.bool_] = fields.magics == MAGIC_V1
    sound &= fields.physical_offsets == base + fields.starts
    sound &= (
        (fields.body_lengths >= 0)
        & (fields.topic_ends > fields.topic_starts)
        & (fields.property_starts <= ends)
    )
    sound &= (fields.store_times > 0) & (fields.queue_offsets >= 0) & (fields.queue_ids >= 0)
    length_at = np.minimum(fields.property_starts, ends) - 2
    property_lengths = u8[length_at].astype(np.int64) << 8 | u8[length_at + 1]
    sound &= fields.property_starts + property_lengths == ends
    return sound


def _check_text(data: mmap.mmap, fields: _Fields, sound: npt.NDArray[np.bool_]) -> None:
    """Look for NULs in properties, and in the first and last byte of topics.

    A torn page cannot leave both ends of a topic and lose its middle: a topic is shorter than a sector.
    """
    checked = np.flatnonzero(sound)
    u8 = np.frombuffer(data, np.uint8)
    whole = (u8[fields.topic_starts[checked]] != 0) & (u8[fields.topic_ends[checked] - 1] != 0)
    find, ends = data.find, fields.starts + fields.sizes
    spans = zip(fields.property_starts[checked].tolist(), ends[checked].tolist(), strict=True)
    whole &= np.array([find(b"\0", a, b) for a, b in spans], np.int64) < 0
    sound[checked] &= whole


def _check_bodies(data: mmap.mmap, fields: _Fields, sound: npt.NDArray[np.bool_]) -> None:
    """Compare body CRCs; an empty body has none.

    A million small bodies: nothing here may run a line of Python for each.
    """
    checked = np.flatnonzero(sound & (fields.body_lengths > 0))
    if not len(checked):
        return
    begins = fields.body_starts[checked]
    ends = begins + fields.body_lengths[checked]
    first = int(begins[0])
    piece = data[first : int(ends[-1])]
    bodies = map(piece.__getitem__, map(slice, (begins - first).tolist(), (ends - first).tolist()))
    crcs = np.fromiter(map(crc32, bodies), np.int64, len(checked)) & BODY_CRC_MASK
    sound[checked] = crcs == fields.body_crcs[checked]
