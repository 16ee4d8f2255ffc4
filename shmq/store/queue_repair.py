"""ConsumeQueue files as recovery sees them: found on the disk, compared with the log, made right.

Nobody else has the store: recovery runs under the store lock, before any appender and after the last one.
Files are read and written with `pread` and `pwrite`; a queue's maximum is not stored anywhere, it is where
its units end. Numpy.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.unit import UNIT_BYTES, UNIT_STRUCT
from shmq.model.unit_array import UNIT_DTYPE
from shmq.store.consume_queue import FILLER_SIZE, make_room
from shmq.store.log_scan import IntArray
from shmq.store.names import StoreLayout, file_name, file_starts
from shmq.store.sparse_files import first_written, written_end, zero_written

UNITS_AT_ONCE = 3_200
"""Units read together rather than searched one by one: less than 64 KiB."""

GAP_MAX = 1 << 20
"""A queue that lost more units in a row than this is no known gap."""


@dataclass(slots=True)
class QueueRepair:
    """One queue's files. `touched`: recovery read or changed units that may not be on the disk."""

    layout: StoreLayout
    topic: str
    queue_id: int
    starts: list[int] = field(default_factory=list)
    units_written: int = 0
    touched: bool = False
    folder: str = ""

    def __post_init__(self) -> None:
        """Name the folder once: a start with many queues does little else."""
        self.folder = self.layout.queue_folder_text(self.topic, self.queue_id)

    def load(self) -> bool:
        """Find the files; False when one has a wrong length, or is missing between others.

        An empty last one counts as absent. Of a running broker's files the first ones may go meanwhile.
        """
        self.starts, sizes = [], []
        for start in file_starts(self.folder):
            with contextlib.suppress(FileNotFoundError):  # retention was quicker
                sizes.append(os.stat(self._path(start)).st_size)
                self.starts.append(start)
        while sizes and not sizes[-1]:
            sizes.pop()
            self.starts.pop()
        length = self.layout.queue_file_bytes
        if any(size != length for size in sizes):
            return False
        return not sizes or self.starts[-1] - self.starts[0] == (len(sizes) - 1) * length

    def lacks_its_begin(self, log_begin: int, lowest: int) -> bool:
        """Whether files are missing in front of the first one, though the log still has their messages.

        `lowest` is the queue offset at which the queue began. Retention leaves the file in which the first
        unit is that points into the log: so in front of that unit are others, but for one queue in as many
        as a file has units, which is then made anew for nothing. Asked where nothing surer is known.
        """
        if not self.starts or self._first_unit <= lowest:
            return False
        physical, size, _ = UNIT_STRUCT.unpack(self.read(self._first_unit, 1))
        return bool(0 < size != FILLER_SIZE and physical >= log_begin)

    def remove(self) -> None:
        """Unlink all files: the log has everything."""
        for start in file_starts(self.folder):
            os.unlink(self._path(start))
        self.starts = []

    def _path(self, start: int) -> str:
        return f"{self.folder}/{file_name(start)}"

    def _files(self, *, writable: bool = False) -> _Files:
        return _Files(self.folder, self.layout.queue_file_bytes, writable=writable)

    @property
    def _first_unit(self) -> int:
        return self.starts[0] // UNIT_BYTES

    @property
    def _end_unit(self) -> int:
        return (self.starts[-1] + self.layout.queue_file_bytes) // UNIT_BYTES

    def count_below(self, position: int) -> int:
        """One behind the last unit whose record begins below `position`; 0 when there is no file.

        Right as long as the units below `position` are whole: then they are a prefix, and whatever a crash
        left behind them is zero or points at or above it.
        """
        if not self.starts:
            return 0
        with self._files() as files:
            low, high = self._first_unit, files.written_end(self.starts[-1]) // UNIT_BYTES
            while high - low > UNITS_AT_ONCE:
                middle = (low + high) // 2
                if _is_below(files.read(middle, 1), 0, position):
                    low = middle + 1
                else:
                    high = middle
            units = files.read(low, max(0, high - low))
        return low + bisect_left(
            range(len(units) // UNIT_BYTES), True, key=lambda n: not _is_below(units, n, position)
        )

    def first_from(self, position: int, end: int) -> int:
        """The first queue offset below `end` whose unit is no filler and points at or above `position`, else
        `end`.
        """
        if not self.starts:
            return max(0, end)
        with self._files() as files:
            low, high = self._first_unit, end
            if low < high:
                physical, size, _ = UNIT_STRUCT.unpack(files.read(low, 1))
                if size != FILLER_SIZE and physical >= position:
                    return low
            while low < high:
                middle = (low + high) // 2
                physical, size, _ = UNIT_STRUCT.unpack(files.read(middle, 1))
                if physical < position or (physical, size) == (0, FILLER_SIZE):
                    low = middle + 1
                else:
                    high = middle
        return low

    def last_unit(self, end: int) -> tuple[int, int] | None:
        """(physical offset, size) of unit `end` - 1, None when there is none or it is a filler."""
        if not self.has(end - 1, end):
            return None
        with self._files() as files:
            physical, size, _ = UNIT_STRUCT.unpack(files.read(end - 1, 1))
        return None if size == FILLER_SIZE else (physical, size)

    def has(self, first: int, end: int) -> bool:
        """Whether there are files for the units `[first, end)`, whatever stands in them."""
        size = self.layout.queue_file_bytes
        begin = first * UNIT_BYTES
        return begin >= 0 and all(
            start in self.starts for start in range(begin - begin % size, end * UNIT_BYTES, size)
        )

    def read(self, first: int, count: int) -> bytes:
        """The bytes of units `[first, first + count)`, which are there."""
        with self._files() as files:
            return files.read(first, count)

    def merge(self, first: int, units: bytes) -> None:
        """Make the units from `first` on what the log says; mark as lost what is missing before them."""
        count = len(units) // UNIT_BYTES
        self.touched = True
        room = first
        if self.starts and 0 < first - self._end_unit <= GAP_MAX:
            room = self._end_unit  # no file shall be missing in between
        make_room(self.layout, self.topic, self.queue_id, room, first + count)
        self.starts = file_starts(self.folder)
        with self._files(writable=True) as files:
            physical, size, _ = UNIT_STRUCT.unpack_from(units)
            files.fill_gap(first, self._first_unit, physical, size)
            found = files.read(first, count)
            if found != units:
                files.write(first, units)
                differ = np.frombuffer(found, np.uint8) != np.frombuffer(units, np.uint8)
                self.units_written += int(np.count_nonzero(differ.reshape(-1, UNIT_BYTES).any(axis=1)))

    def agrees(self, first: int, units: bytes) -> bool:
        """Whether the units from `first` on are these."""
        count = len(units) // UNIT_BYTES
        if not self.starts or first < self._first_unit or first + count > self._end_unit:
            return False
        with self._files() as files:
            return files.read(first, count) == units

    def first_difference(self, first: int, units: bytes) -> int:
        """The first queue offset from `first` on whose unit is not the one in `units`."""
        for n in range(len(units) // UNIT_BYTES):
            if not self.agrees(first + n, units[n * UNIT_BYTES : (n + 1) * UNIT_BYTES]):
                return first + n
        return first + len(units) // UNIT_BYTES

    def first_written_behind(self, end: int) -> int | None:
        """The first queue offset at or behind `end` whose unit is not zero; None when there is none."""
        for start in self.starts:
            if start + self.layout.queue_file_bytes > end * UNIT_BYTES:
                at = first_written(self._path(start), max(0, end * UNIT_BYTES - start))
                if at is not None:
                    return (start + at) // UNIT_BYTES
        return None

    def cut(self, end: int) -> None:
        """Leave nothing at or above queue offset `end`: later files go, the rest of its file becomes zero."""
        position = end * UNIT_BYTES
        for start in [start for start in self.starts if start >= position and start != self.starts[0]]:
            os.unlink(self._path(start))
            self.starts.remove(start)
            self.touched = True
        if self.starts and position < self.starts[-1] + self.layout.queue_file_bytes:
            start = self.starts[-1]
            self.touched |= zero_written(self._path(start), max(0, position - start)) > 0

    def unsynced(self) -> list[Path]:
        """Files and folders that may not be durable.

        Recovery met the queue, so a crash may have left it in memory: the names above it, too.
        """
        if not self.touched:
            return []
        folder = Path(self.folder)
        files = (folder / file_name(start) for start in self.starts)
        return [*files, folder, folder.parent, folder.parent.parent]


def pack(physical_offsets: IntArray, sizes: IntArray, tags_codes: IntArray) -> bytes:
    """The units of records that may lie anywhere."""
    units = np.empty(len(sizes), UNIT_DTYPE)
    units["physical_offset"], units["size"], units["tags_code"] = physical_offsets, sizes, tags_codes
    return units.tobytes()


class _Files:
    """Descriptors of a queue's files for a few reads and writes by unit number."""

    def __init__(self, folder: str, file_bytes: int, *, writable: bool = False) -> None:
        self._flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
        self._folder = folder
        self._file_bytes = file_bytes
        self._fds: dict[int, int] = {}

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds.values():
            os.close(fd)

    def _fd(self, start: int) -> int:
        if start not in self._fds:
            self._fds[start] = os.open(f"{self._folder}/{file_name(start)}", self._flags)
        return self._fds[start]

    def written_end(self, start: int) -> int:
        """A byte of the queue's stream behind which nothing was ever written in the file at `start`."""
        return start + written_end(self._fd(start))

    def _pieces(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(descriptor, file position, bytes) for a range of units, file by file."""
        size = self._file_bytes
        position, end = first * UNIT_BYTES, (first + count) * UNIT_BYTES
        while position < end:
            start = position - position % size
            length = min(end, start + size) - position
            yield self._fd(start), position - start, length
            position += length

    def read(self, first: int, count: int) -> bytes:
        """The bytes of units `[first, first + count)`."""
        return b"".join([os.pread(fd, length, at) for fd, at, length in self._pieces(first, count)])

    def write(self, first: int, units: bytes) -> None:
        """Store units from `first` on."""
        done = 0
        for fd, at, length in self._pieces(first, len(units) // UNIT_BYTES):
            os.pwrite(fd, units[done : done + length], at)
            done += length

    def fill_gap(self, first: int, lowest: int, physical: int, size: int) -> None:
        """Write units over the zero ones directly in front of `first`: their records are lost.

        They point to the record of `first`, at `physical`, as nobody's: our readers pass over them by their
        tags code, and an Apache broker, which trusts a unit's size, meets a whole record.
        """
        gap = first
        while gap > lowest and self.read(gap - 1, 1) == bytes(UNIT_BYTES):
            gap -= 1
        if gap < first:
            self.write(gap, UNIT_STRUCT.pack(physical, size, DAMAGED_TAGS_CODE) * (first - gap))


def _is_below(units: bytes, n: int, position: int) -> bool:
    """Whether unit `n` is a filler without a place, or its record begins below `position`."""
    physical, size, _ = UNIT_STRUCT.unpack_from(units, n * UNIT_BYTES)
    return size > 0 and (physical < position or (physical, size) == (0, FILLER_SIZE))


def find_queues(layout: StoreLayout) -> list[tuple[str, int]]:
    """All (topic, queue id) that have a folder. Folders that are no number are no queues."""
    found: list[tuple[str, int]] = []
    if layout.consume_queue.is_dir():
        for topic in sorted(layout.consume_queue.iterdir()):
            if topic.is_dir():
                ids = (entry.name for entry in topic.iterdir())
                found += sorted(
                    (topic.name, int(name)) for name in ids if name.isascii() and name.isdecimal()
                )
    return found
