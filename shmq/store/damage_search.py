"""Which records a damaged piece of log spoils: from bytes that do not sum up to positions, sizes and reasons.

    1  follow the records through the range; what is unsound by itself is damage, up to the next sound record
    2  a piece that does not sum up although every record in it is sound (a flip in a header, topic or
       property): the one changed byte tells which record, else each record is compared with its unit
    3  if that names nobody, every record that reaches into the piece counts as damaged

A changed byte in the filler behind a BLANK harms nobody. Used by the check, the scrub, recovery and repair.
Reads only. Numpy.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from shmq.base.errors import MessageIllegal
from shmq.model.record import BLANK_BYTES_MIN, check_record, parse_record
from shmq.store.checksum_check import Change, Piece, changed_byte
from shmq.store.commit_log import is_record
from shmq.store.log_scan import IntArray, ScanEnd, scan
from shmq.store.mapped_file import MappedFile
from shmq.store.names import StoreLayout
from shmq.store.queue_repair import QueueRepair

_MAGIC_BYTES = b"\xda\xa3 "


@dataclass(slots=True)
class Damage:
    """Bytes `[position, position + size)` of the log that hold no good record, and why.

    `change`: the one byte that changed, when it is known. `is_record`: the bytes still have a record's shape.
    `store_time`: that of a sound record next to it (ms), 1 when there is none in its segment.
    """

    position: int
    size: int
    reason: str
    change: Change | None = None
    is_record: bool = False
    store_time: int = 1

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.position + self.size


@dataclass(slots=True)
class _Followed:
    """The records of a range: sound ones as arrays, the rest as damage; `blank` is where a BLANK begins."""

    starts: IntArray
    ends: IntArray
    times: IntArray
    damaged: list[Damage]
    blank: int


def find_damage(
    layout: StoreLayout, segment: MappedFile, begin: int, stop: int, failing: list[Piece], *, own: bool = True
) -> list[Damage]:
    """All damage in `[begin, stop)` of a segment, ascending. `begin` is a record's start; `failing` pieces
    of it do not sum up. `own`: shmq wrote it, so a NUL in a text is damage.
    """
    followed = _follow(segment, begin, stop, own=own)
    found = {damage.position: damage for damage in followed.damaged}
    pieces_of: dict[int, int] = {}
    for piece in failing:
        change = changed_byte(piece, segment.view[piece.start - segment.start : piece.end - segment.start])
        unsound = [d for d in followed.damaged if d.position < piece.end and d.end > piece.start]
        hit = [d for d in unsound if change and d.position <= change.position < d.end]
        for damage in unsound:
            pieces_of[damage.position] = pieces_of.get(damage.position, 0) + 1
            damage.change = change if damage in hit and pieces_of[damage.position] == 1 else None
        if not unsound or (change and not hit):
            for damage in _judge(layout, segment, followed, piece, change):
                found.setdefault(damage.position, damage)
    for damage in found.values():
        row = int(np.searchsorted(followed.starts, damage.position)) - 1
        if len(followed.times):
            damage.store_time = int(followed.times[max(row, 0)])
    return sorted(found.values(), key=lambda damage: damage.position)


def _follow(segment: MappedFile, begin: int, stop: int, *, own: bool) -> _Followed:
    """Go through the records of `[begin, stop)`."""
    base = segment.start
    position, blank = begin - base, stop
    starts: list[IntArray] = [np.empty(0, np.int64)]
    ends: list[IntArray] = [np.empty(0, np.int64)]
    times: list[IntArray] = [np.empty(0, np.int64)]
    damaged: list[Damage] = []
    while position < stop - base:
        found = scan(segment.map, position, stop - base, base, check_text=own)
        starts.append(found.starts + base)
        ends.append(found.ends + base)
        times.append(found.store_times)
        position = found.stop
        if found.end is ScanEnd.BLANK:
            blank = base + position
            break
        if found.end is ScanEnd.BROKEN:
            behind = behind_damage(segment, base + position, found.broken_size, stop)
            same = behind == base + position + found.broken_size
            reason = "its body does not have its CRC" if same else "no record can be read here"
            damaged.append(Damage(base + position, behind - base - position, reason, is_record=same))
            position = behind - base
    return _Followed(np.concatenate(starts), np.concatenate(ends), np.concatenate(times), damaged, blank)


def _judge(
    layout: StoreLayout, segment: MappedFile, followed: _Followed, piece: Piece, change: Change | None
) -> list[Damage]:
    """Who is spoiled by a piece, when no unsound record explains why it does not sum up."""
    base = segment.start
    rows = np.flatnonzero((followed.ends > piece.start) & (followed.starts < piece.end))
    spans = list(zip(followed.starts[rows].tolist(), followed.ends[rows].tolist(), strict=True))
    if change is not None:
        for start, end in spans:
            if start <= change.position < end:
                what = f"byte {change.position - start} of it was {change.was:#04x}"
                return [Damage(start, end - start, what, change, is_record=True)]
        if followed.blank <= change.position < followed.blank + BLANK_BYTES_MIN:
            size = base + segment.size - followed.blank
            return [Damage(followed.blank, size, "the blank at the segment's end changed", change)]
        return []
    named = [span for span in spans if not fits_its_unit(layout, segment, *span)]
    if named:
        return [
            Damage(start, end - start, "it and its ConsumeQueue unit differ", is_record=True)
            for start, end in named
        ]
    reason = f"bytes {piece.start} to {piece.end} do not sum up, and which record it is cannot be told"
    return [Damage(start, end - start, reason, is_record=True) for start, end in spans]


def fits_its_unit(layout: StoreLayout, segment: MappedFile, start: int, end: int) -> bool:
    """Whether the queue that a record names has a unit with its number, position and size."""
    try:
        fields = parse_record(segment.view, start - segment.start, end - segment.start)
    except MessageIllegal:
        return False
    topic = str(segment.view[fields.topic_at : fields.topic_at + fields.topic_length], "utf-8", "replace")
    if "/" in topic or topic in ("", ".", ".."):
        return False
    queue = QueueRepair(layout, topic, fields.queue_id)
    return queue.load() and queue.last_unit(fields.queue_offset + 1) == (start, end - start)


def behind_damage(segment: MappedFile, position: int, size: int, stop: int) -> int:
    """Where the next record begins behind damage at `position`, at most `stop`.

    `size` is what the damaged record claims; it is believed when all lengths in the record agree with it, as
    then only its body, or a text, is damaged.
    """
    end = stop - segment.start
    at = position - segment.start
    if 0 < size <= end - at and _has_shape(segment, at, size):
        return position + size
    at += 1
    while (magic := segment.map.find(_MAGIC_BYTES, at + 4, end)) >= 0:
        at = magic - 4
        if _is_sound(segment, at):
            return segment.start + at
        at += 1
    blank = _blank_behind(segment, position - segment.start, end)
    return segment.start + (end if blank is None else blank)


def _blank_behind(segment: MappedFile, position: int, end: int) -> int | None:
    """Where the BLANK that ends the segment lies, known by its size; None when none is behind `position`."""
    at = position
    while (magic := segment.map.find(b"\xcb\xd4\x31\x94", at + 4, end)) >= 0:
        at = magic - 4
        if int.from_bytes(segment.view[at : at + 4], "big") == segment.size - at:
            return at
        at += 1
    return None


def _has_shape(segment: MappedFile, at: int, size: int) -> bool:
    """Whether the lengths of the record at file position `at` add up to `size`, and it says it lies there."""
    try:
        whole = check_record(segment.view, at, at + size, check_crc=False) == size
        return whole and is_record(segment.view[at : at + size], segment.start + at)
    except struct.error:
        return False


def _is_sound(segment: MappedFile, at: int) -> bool:
    """Whether a whole record, or the BLANK that ends the segment, lies at file position `at`."""
    if at >= segment.size - BLANK_BYTES_MIN:
        return at == segment.size
    try:
        size = check_record(segment.view, at, segment.size)
        if size == 0:
            return int.from_bytes(segment.view[at : at + 4], "big") == segment.size - at
        return size > 0 and is_record(segment.view[at : at + size], segment.start + at)
    except struct.error:
        return False
