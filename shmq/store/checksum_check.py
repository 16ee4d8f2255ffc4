"""Comparing the log with its side files (`checksums.py`): which pieces are not what was flushed. Numpy.

A piece whose sum differs says that a byte between two positions changed, not which. When it was one byte
only, whatever became of it, the difference of the sums tells which: a CRC is linear, so the difference is the
CRC of the change alone, and among the 4096 * 255 changes of one byte at most one has it. That names the
record, and what the byte was.

Used by the check, the scrub, recovery and repair; any process. Reads only.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from shmq.base.checksum import crc32
from shmq.store.checksums import ENTRY_BYTES
from shmq.store.log_scan import IntArray
from shmq.store.names import StoreLayout

ENTRY_DTYPE = np.dtype([("start", ">i8"), ("length", ">i4"), ("crc", ">u4"), ("own", ">u4")])
assert ENTRY_DTYPE.itemsize == ENTRY_BYTES

_POLYNOMIAL = 0xEDB88320


class Piece(NamedTuple):
    """A piece of log that does not sum to `crc`: physical offsets `[start, end)`."""

    start: int
    end: int
    crc: int


class Change(NamedTuple):
    """One byte that changed: where (physical offset) and what it was."""

    position: int
    was: int


@dataclass(slots=True)
class SegmentChecksums:
    """The entries of one side file, in the order of the file; `broken` are bytes of it that hold no entry."""

    starts: IntArray
    ends: IntArray
    crcs: IntArray
    is_summed: np.ndarray
    broken: list[int]
    is_empty_file: bool = False

    @classmethod
    def load(cls, layout: StoreLayout, start: int, begin: int = 0) -> SegmentChecksums:
        """Read the side file of the segment at `start`; no file is one without entries.

        Entries of pieces that end at or below `begin` are left out, unseen.
        """
        try:
            raw = layout.checksum_path(start).read_bytes()
        except FileNotFoundError:
            raw = b""
        count = len(raw) // ENTRY_BYTES
        table = np.frombuffer(raw, ENTRY_DTYPE, count)
        rows = np.arange(count)
        if begin:
            rows = np.flatnonzero(table["start"] + np.abs(table["length"].astype(np.int64)) > begin)
            table = table[rows]
        view = memoryview(raw)
        own = map(crc32, [view[at : at + 16] for at in (rows * ENTRY_BYTES).tolist()])
        lengths = table["length"].astype(np.int64)
        whole = np.fromiter(own, np.int64, len(rows)) == table["own"]
        whole &= (lengths != 0) & (table["start"] >= 0)
        broken = (rows[~whole] * ENTRY_BYTES).tolist()
        table, lengths = table[whole], lengths[whole]
        starts = table["start"].astype(np.int64)
        return cls(
            starts,
            starts + np.abs(lengths),
            table["crc"].astype(np.int64),
            np.asarray(lengths > 0),
            broken,
            is_empty_file=not count and layout.checksum_path(start).exists(),
        )

    def __len__(self) -> int:
        """How many entries are whole."""
        return len(self.starts)

    def failing(
        self, data: mmap.mmap, base: int, begin: int, stop: int, limit: int | None = None
    ) -> list[Piece]:
        """The pieces of the mapped segment `data`, whose first byte is at `base`, that do not sum up.

        Looked at are those that reach into `[begin, stop)` and end at or below `limit` (None: `stop`): what
        lies behind the log's end is a torn tail and no damage.
        """
        wanted = (self.ends > begin) & (self.starts < stop) & (self.starts >= base)
        rows = np.flatnonzero(self.is_summed & wanted & (self.ends <= (stop if limit is None else limit)))
        with memoryview(data) as view:
            spans = zip((self.starts[rows] - base).tolist(), (self.ends[rows] - base).tolist(), strict=True)
            sums = [crc32(view[a:b]) for a, b in spans]
        wrong = rows[np.fromiter(sums, np.int64, len(rows)) != self.crcs[rows]]
        return [
            Piece(*row)
            for row in zip(
                self.starts[wrong].tolist(), self.ends[wrong].tolist(), self.crcs[wrong].tolist(), strict=True
            )
        ]

    def last_right(self, data: mmap.mmap, base: int, stop: int) -> int | None:
        """The end of the last piece at or below `stop` that sums up, or would but for one byte; else None."""
        rows = np.flatnonzero(self.is_summed & (self.starts >= base) & (self.ends <= stop))
        with memoryview(data) as view:
            for row in rows[::-1].tolist():
                first, end = int(self.starts[row]), int(self.ends[row])
                piece, found = Piece(first, end, int(self.crcs[row])), view[first - base : end - base]
                if crc32(found) == piece.crc or changed_byte(piece, found) is not None:
                    return end
        return None


def changed_byte(piece: Piece, found: bytes | memoryview) -> Change | None:
    """The one byte whose change explains why `found` does not sum up; None when it was more than one.

    Damage of several bytes is taken for a change of one in one of 4,000 cases.
    """
    state = crc32(found) ^ piece.crc
    matches: list[Change] = []
    for at in range(len(found) - 1, -1, -1):
        if (difference := _BYTE_OF_SUM.get(state)) is not None:
            matches.append(Change(piece.start + at, found[at] ^ difference))
        last = _BYTE_OF_TOP[state >> 24]
        state = (state ^ _TABLE[last]) << 8 & 0xFFFFFFFF | last
    return matches[0] if len(matches) == 1 else None


def _sum_of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = [_sum_of_byte(value) for value in range(256)]
_BYTE_OF_SUM = {value: byte for byte, value in enumerate(_TABLE) if byte}
_BYTE_OF_TOP = {value >> 24: byte for byte, value in enumerate(_TABLE)}
