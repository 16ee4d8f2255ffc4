"""The producer table on disk, for a start without the page: `shmq/producers` in the store's folder.

    0  8s   "shmqprod"
    8  i64  position: every sequence stored below it is in the file
   16  i32  rows, then of each: i64 id, i64 highest, 1,024 words of the window
    .. u32  CRC-32 of all before it

Little endian. The checkpointer writes it before the checkpoint that says the same position; recovery reads it
and adds what the log holds from there on. No file: no producer had a sequence at the last checkpoint. Of a
damaged one nothing is used, and the log's last 128 MiB speak instead. What points behind the recovered end of
the log is dropped. No numpy here.
"""

from __future__ import annotations

import mmap
import struct
import sys
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from shmq.base.checksum import crc32
from shmq.base.errors import MessageIllegal
from shmq.base.files import write_durably
from shmq.model.properties import SHMQ_SEQUENCE, decode_properties
from shmq.model.record import BLANK_BYTES_MIN, check_record, properties_of
from shmq.model.sequence import PRODUCER_WINDOW, Sequence, parse_sequence
from shmq.shm.producer_table import ProducerTable
from shmq.store.names import StoreLayout

MAGIC = b"shmqprod"
SEARCHED_BYTES = 128 << 20
_HEAD = struct.Struct("<8sqi")
_ROW = struct.Struct("<qq")
_CRC = struct.Struct("<I")
_ROW_BYTES = _ROW.size + 8 * PRODUCER_WINDOW
_MARK = f"{SHMQ_SEQUENCE}\x01".encode()


class SavedProducer(NamedTuple):
    """One row as it was saved."""

    producer_id: int
    highest: int
    window: array[int]


def save_producers(layout: StoreLayout, table: ProducerTable, position: int) -> None:
    """Write the rows in use, which have every sequence stored below `position`. OSError from the disk."""
    rows = list(table.rows())
    if not rows and not layout.producers.exists():
        return
    parts = [_HEAD.pack(MAGIC, position, len(rows))]
    for producer_id, highest, window in rows:
        parts += (_ROW.pack(producer_id, highest), _little_endian(array("q", window)).tobytes())
    data = b"".join(parts)
    write_durably(layout.producers, data + _CRC.pack(crc32(data)), backup=False)


def load_producers(layout: StoreLayout) -> tuple[int, list[SavedProducer]] | None:
    """Return the position of the saved table and its rows, longest unused first; None without a file.

    The position is 0 when the file is damaged.
    """
    try:
        data = layout.producers.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        return 0, []
    if len(data) < _HEAD.size + _CRC.size:
        return 0, []
    magic, position, count = _HEAD.unpack_from(data)
    end = len(data) - _CRC.size
    sound = magic == MAGIC and _CRC.unpack_from(data, end)[0] == crc32(memoryview(data)[:end])
    if not sound or end != _HEAD.size + count * _ROW_BYTES:
        return 0, []
    rows = []
    for at in range(_HEAD.size, end, _ROW_BYTES):
        window = array("q")
        window.frombytes(data[at + _ROW.size : at + _ROW_BYTES])
        producer_id, highest = _ROW.unpack_from(data, at)
        rows.append(SavedProducer(producer_id, highest, _little_endian(window)))
    return position, rows


def restore_producers(layout: StoreLayout, table: ProducerTable, low: int, since: int, end: int) -> int:
    """Fill the table of a new page from the file and from the log; return how many sequences the log gave.

    The log has `[low, end)`, and a record begins at `since`, which no checkpoint is behind. Recovery only.
    """
    saved = load_producers(layout)
    begin, at_record = since, True
    if saved is not None:
        begin, rows = saved
        for row in rows:
            table.restore_row(row.producer_id, row.highest, row.window, end)
    if not max(low, end - SEARCHED_BYTES) <= begin <= end:
        begin, at_record = max(low, end - SEARCHED_BYTES), False
    found = 0
    for sequence, physical_offset in _sequences(layout, begin, end, at_record=at_record):
        table.restore(*sequence, physical_offset)
        found += 1
    return found


def _sequences(
    layout: StoreLayout, begin: int, end: int, *, at_record: bool
) -> Iterator[tuple[Sequence, int]]:
    """The sequences in the log from `begin` on, in order, where each is stored.

    A segment without the property's name is passed over; others are walked from record to record, from the
    segment's first one unless a record is known to begin at `begin`.
    """
    for start in layout.segments():
        if start + layout.segment_bytes <= begin or start >= end:
            continue
        with open(layout.segment_path(start), "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with mapped, memoryview(mapped) as view:
            last = min(end - start, layout.segment_bytes)
            first = max(begin - start, 0)
            if mapped.find(_MARK, first, last) < 0:
                continue
            at = first if at_record else 0
            while last - at > BLANK_BYTES_MIN and (size := check_record(view, at, last, check_crc=False)) > 0:
                with view[at : at + size] as record, properties_of(record) as properties:
                    sequence = _sequence_of(properties) if at >= first else None
                if sequence is not None:
                    yield sequence, start + at
                at += size


def _sequence_of(properties: memoryview) -> Sequence | None:
    raw = bytes(properties)
    if _MARK not in raw:
        return None
    text = decode_properties(raw).get(SHMQ_SEQUENCE)
    try:
        return None if text is None else parse_sequence(text)
    except MessageIllegal:
        return None


def _little_endian(words: array[int]) -> array[int]:
    if sys.byteorder == "big":
        words.byteswap()
    return words
