"""The timer wheel: for every second of a fortnight, where the chain of its timers begins in the timer log.

    timerwheel   1,209,600 slots of 32 bytes, big-endian; second s has slot s mod 1,209,600
      +0  i64  the second
      +8  i64  timer log position of its first unit
      +16 i64  of its last one: the chain is walked backwards from there
      +24 i32  how many units
      +28 i32  0

A slot belongs to a second only if it says so. Layout of Apache RocketMQ 5.3 (TimerWheel.java, Slot.java) with
its precision of 1000 ms; the millisecond comes from the units. The coordinator alone reads and writes; by
`pwrite`, so that a full disk is an error and no SIGBUS. The file can always be made again from the log
(`coordinator/timer_service.py`), so it is never synced.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shmq.store.mapped_file import MappedFile

SLOTS = 1_209_600
PRECISION_MS = 1000

_SLOT = struct.Struct(">qqqii")
WHEEL_BYTES = SLOTS * _SLOT.size
_SCAN_SLOTS = 86_400

assert _SLOT.size == 32


class Slot(NamedTuple):
    """One second's chain."""

    second: int
    first: int
    last: int
    units: int
    unused: int


_make_slot = Slot._make


class TimerWheel:
    """The slots of one store."""

    def __init__(self, path: Path, *, make: bool) -> None:
        """Open the file; `make` it anew and empty first. FileNotFoundError, StoreDamaged, OSError."""
        if make:
            path.unlink(missing_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o644)
        if make:
            os.ftruncate(self._fd, WHEEL_BYTES)
        self._view = MappedFile(path, 0, WHEEL_BYTES, writable=False, read_ahead=False).view

    def occupant(self, second: int) -> Slot:
        """What the slot of that second holds, whichever second it belongs to."""
        return _make_slot(_SLOT.unpack_from(self._view, second % SLOTS * _SLOT.size))

    def read(self, second: int) -> Slot | None:
        """The chain of a second, None when it has none."""
        slot = self.occupant(second)
        return slot if slot.second == second and slot.units else None

    def write(self, second: int, first: int, last: int, count: int) -> None:
        """Store a second's chain. It is one call, within one page: a death leaves the old or the new slot."""
        os.pwrite(self._fd, _SLOT.pack(second, first, last, count, 0), second % SLOTS * _SLOT.size)

    def next_after(self, second: int) -> int | None:
        """The first second at or behind `second` that has a chain; None without one."""
        seconds = np.frombuffer(self._view, ">i8")[::4]
        found: int | None = None
        for begin in range(0, SLOTS, _SCAN_SLOTS):
            piece = seconds[begin : begin + _SCAN_SLOTS]
            later = piece[piece >= second]
            if len(later):
                lowest = int(later.min())
                found = lowest if found is None else min(found, lowest)
        return found

    def close(self) -> None:
        """Close the file; twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
