"""The timer log: one unit per waiting message, chained backwards second by second.

    timerlog/00000000000000000000   units of 52 bytes, big-endian
      +0  i32  52                             +28 i64  physical offset of the message's record
      +4  i64  position of the unit before    +36 i32  its size
               in the same slot, -1: none     +40 i32  Java hash of the message's own topic
      +12 i32  1, +2 roll, +4 cancels         +44 i64  0
      +16 i64  base, ms
      +24 i32  ms from the base to when it is due (roll: to when it is looked at again)

A unit with a roll bit is of a message due later than the wheel reaches. Where 52 + 16 bytes are not left,
a segment ends with {i32 bytes left, i64 0, i32 CBD43194}. Layout of Apache RocketMQ 5.3 (TimerLog.java). The
coordinator alone reads and writes; by `pwrite`, so that a full disk is an error and no SIGBUS. It can always
be made again from the log, so it is never synced.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shmq.model.record import BLANK_MAGIC
from shmq.store.mapped_file import MappedFile
from shmq.store.names import file_name, file_starts

DEFAULT = 1
ROLL = 2
CANCELS = 4

_UNIT = struct.Struct(">iqiqiqiiq")
UNIT_BYTES = 52
_FILLER = struct.Struct(">iqi")
_UNIT_DTYPE = np.dtype(
    {
        "names": ["base", "delay"],
        "formats": [">i8", ">i4"],
        "offsets": [16, 24],
        "itemsize": UNIT_BYTES,
    }
)

assert _UNIT.size == UNIT_BYTES


class TimerUnit(NamedTuple):
    """One unit; `at_ms` is when it is due, or to be looked at again."""

    previous: int
    magic: int
    at_ms: int
    physical_offset: int
    size: int


def pack_unit(
    previous: int, magic: int, base_ms: int, at_ms: int, physical_offset: int, size: int, topic_hash: int
) -> bytes:
    """Return the bytes of a unit; `at_ms` lies within 24 days of `base_ms`."""
    return _UNIT.pack(
        *(UNIT_BYTES, previous, magic, base_ms, at_ms - base_ms, physical_offset, size, topic_hash, 0)
    )


class TimerLog:
    """The units of one store. The caller keeps the end position."""

    def __init__(self, folder: Path, segment_bytes: int, *, make: bool) -> None:
        """Use the segments in `folder`; `make`: throw them away and begin anew. OSError."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._views: dict[int, memoryview] = {}
        self._fds: dict[int, int] = {}
        if make:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, end: int) -> bool:
        """Tell whether the segment with the last unit before `end` is there."""
        return not end or (end - 1) // self._segment_bytes * self._segment_bytes in file_starts(self._folder)

    def places(self, end: int, count: int) -> list[int]:
        """Return where the next units go when the log ends at `end`."""
        found: list[int] = []
        for _ in range(count):
            left = self._segment_bytes - end % self._segment_bytes
            if left < UNIT_BYTES + _FILLER.size:
                end += left
            found.append(end)
            end += UNIT_BYTES
        return found

    def write(self, places: Sequence[int], units: Sequence[bytes]) -> int:
        """Write units where `places` said; return the log's new end. OSError when the disk refuses."""
        begin = 0
        for i in range(1, len(places) + 1):
            if i < len(places) and places[i] == places[i - 1] + UNIT_BYTES:
                continue
            self._write(places[begin], b"".join(units[begin:i]))
            if i < len(places):
                behind = places[i - 1] + UNIT_BYTES
                self._write(behind, _FILLER.pack(places[i] - behind, 0, BLANK_MAGIC))
            begin = i
        return places[-1] + UNIT_BYTES

    def _write(self, position: int, data: bytes) -> None:
        start = position - position % self._segment_bytes
        fd = self._fds.get(start)
        if fd is None:
            fd = os.open(self._folder / file_name(start), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.ftruncate(fd, self._segment_bytes)
            self._close_fds()
            self._fds[start] = fd
        written = os.pwrite(fd, data, position - start)
        if written != len(data):
            raise OSError(28, "the disk is full", str(self._folder))

    def unit(self, position: int) -> TimerUnit | None:
        """The unit at a position; None when there is none (any more)."""
        start = position - position % self._segment_bytes
        try:
            view = self._views.get(start) or self._map(start)
        except FileNotFoundError:
            return None
        size, previous, magic, base_ms, delay_ms, physical_offset, record_size, _, _ = _UNIT.unpack_from(
            view, position - start
        )
        if size != UNIT_BYTES or not DEFAULT <= magic <= 15:
            return None
        return TimerUnit(previous, magic, base_ms + delay_ms, physical_offset, record_size)

    def chain(self, last: int) -> Iterator[TimerUnit]:
        """Yield a slot's units, newest first."""
        while last >= 0:
            unit = self.unit(last)
            if unit is None or unit.previous >= last:
                return
            yield unit
            last = unit.previous

    def _map(self, start: int) -> memoryview:
        path = self._folder / file_name(start)
        view = MappedFile(path, start, self._segment_bytes, writable=False, read_ahead=False).view
        self._views[start] = view
        return view

    def drop_before(self, second: int, end: int) -> None:
        """Unlink the oldest segments as long as all their units were due, or looked at, before that second.

        `end` is the log's end; the segment it lies in stays.
        """
        for start in file_starts(self._folder):
            if start + self._segment_bytes > end or self._last_ms(start) >= second * 1000:
                return
            (self._folder / file_name(start)).unlink()
            self._views.pop(start, None)

    def _last_ms(self, start: int) -> int:
        """The latest moment in a full segment."""
        count = (self._segment_bytes - _FILLER.size) // UNIT_BYTES
        units = np.frombuffer(self._views.get(start) or self._map(start), _UNIT_DTYPE, count)
        return int((units["base"] + units["delay"]).max())

    def _close_fds(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def close(self) -> None:
        """Close the files; twice is harmless."""
        self._close_fds()
        self._views.clear()
