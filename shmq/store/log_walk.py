"""The walk of recovery: through the log from a trusted position to its end, rebuilding every queue on the
way.

A record is accepted when it is sound in itself (`log_scan.py`) and its queue offset is its queue's next. What
happens to one that is not depends on where it lies. At or above `known_flushed` it is a torn tail: the log
ends there. Below it is damage, never a reason to drop what follows: `mend` puts something readable there,
or the walk goes on behind it; `damaged` tells. With `mend`, pieces that do not sum up (`checksums.py`) are
damage as well. A queue offset that is not the next one may just as well mean that units in front of the
walk's start are missing: the caller then starts again from the log's first byte, where the log alone decides,
and gaps below `known_flushed` are taken as they are.

Runs in recovery, alone on the store. About a million records a second.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from shmq.model.damaged_record import DAMAGED_MARK, DAMAGED_TAGS_CODE
from shmq.model.record import PREPARED_TRANSACTION_OFFSET_AT
from shmq.model.sys_flag import TRANSACTION_COMMIT, TRANSACTION_MASK
from shmq.store.checksum_check import SegmentChecksums
from shmq.store.copied_segment import map_segment
from shmq.store.damage_search import Damage, behind_damage, find_damage
from shmq.store.log_scan import BATCH_BYTES, IntArray, Scan, ScanEnd, overlapping, scan
from shmq.store.mapped_file import MappedFile
from shmq.store.names import StoreLayout
from shmq.store.queue_set import QueueSet, UnitsMissing
from shmq.store.record_text import tags_codes

UNITS_HELD_MAX = 1 << 20
"""Units collected before they are compared with the files.

A queue's files are opened once for many of them.
"""

Progress = Callable[[int, int, int], None]
"""Called after each piece with (records so far, position, end of the log's files)."""


Mend = Callable[[MappedFile, Damage], object]
"""Makes a stretch of damage readable, in place."""


@dataclass(slots=True)
class LogWalk:
    """One walk.

    `rebuilding`: it begins at the log's first byte. `own`: shmq wrote the tail, so what it never writes (NULs
    in names, store times that go back) means a torn record. `stop`: a position to end at, if not the log's
    end. `check_all`: bodies and texts are checked everywhere, not only where a tail may be torn.
    """

    layout: StoreLayout
    queues: QueueSet
    known_flushed: int
    rebuilding: bool
    check_bodies: bool = True
    own: bool = True
    progress: Progress | None = None
    records: int = 0
    stop: int | None = None
    check_all: bool = False
    mend: Mend | None = None
    last_store_time: int = 0
    damaged: list[tuple[int, int]] = field(default_factory=list)
    misnumbered: list[int] = field(default_factory=list)
    times_back: list[int] = field(default_factory=list)
    _held: list[tuple[IntArray, IntArray, IntArray, IntArray, IntArray]] = field(default_factory=list)
    _held_count: int = 0
    _files_end: int = 0

    def run(self, position: int) -> int:
        """Walk from `position`; return where the log ends.

        UnitsMissing asks for a walk from the first byte.
        """
        size = self.layout.segment_bytes
        starts = self.layout.segments()
        self._files_end = starts[-1] + size if starts else 0
        while self.stop is None or position < self.stop:
            start = self.layout.segment_start(position)
            try:
                segment = map_segment(self.layout.segment_path(start), start, size)
            except FileNotFoundError:
                break
            position, goes_on = self._segment(segment, position)
            if not goes_on:
                break
        self._merge()
        return position

    def _segment(self, segment: MappedFile, position: int) -> tuple[int, bool]:
        """Walk one segment from `position`; return where the walk is then and whether it goes on there."""
        end = segment.start + segment.size
        stop = end if self.stop is None else min(end, self.stop)
        self._mend_sums(segment, position, min(stop, self.known_flushed))
        while position < stop:
            may_be_torn = self.check_all or position + BATCH_BYTES > self.known_flushed
            found = scan(
                segment.map,
                position - segment.start,
                stop - segment.start,
                segment.start,
                check_bodies=self.check_bodies and may_be_torn,
                check_text=self.own and may_be_torn,
            )
            accepted = self._accept(found, segment.map)
            self._report(segment.start + found.stop)
            if accepted < len(found):
                position = segment.start + int(found.starts[accepted])
                if not self.rebuilding and found.store_times[accepted] >= self.last_store_time:
                    raise UnitsMissing
                if position >= self.known_flushed:
                    return position, False
                if not self._renumber(found, accepted, segment.map):
                    position += int(found.sizes[accepted])
                continue
            position = segment.start + found.stop
            if found.end is ScanEnd.BLANK:
                return end, True
            if found.end is ScanEnd.BROKEN:
                if position >= self.known_flushed:
                    return position, False
                behind = behind_damage(segment, position, found.broken_size, stop)
                if behind == stop > self.known_flushed:
                    behind = self.known_flushed  # nothing sound follows: the rest is no damage but the tail
                if not self._mend(segment, position, behind, found.broken_size):
                    position = behind
        return position, True

    # ---- damage

    def _mend_sums(self, segment: MappedFile, begin: int, stop: int) -> None:
        """Mend what the side file tells of `[begin, stop)`, before any of it is taken for good."""
        if self.mend is None or begin >= stop:
            return
        sums = SegmentChecksums.load(self.layout, segment.start, begin)
        failing = sums.failing(segment.map, segment.start, begin, stop)
        for damage in (
            find_damage(self.layout, segment, begin, stop, failing, own=self.own) if failing else ()
        ):
            self.damaged.append((damage.position, damage.size))
            damage.store_time = max(damage.store_time, self.last_store_time)
            self.mend(segment, damage)

    def _mend(self, segment: MappedFile, position: int, behind: int, size: int) -> bool:
        """Mend an unsound record; False when that was not asked for or did not help."""
        if (position, behind - position) in self.damaged:
            return False
        self.damaged.append((position, behind - position))
        if self.mend is None:
            return False
        has_shape = behind == position + size
        reason = "its body does not have its CRC" if has_shape else "no record can be read here"
        damage = Damage(position, behind - position, reason, None, has_shape, max(1, self.last_store_time))
        self.mend(segment, damage)
        segment.changed(position - segment.start, behind - position)
        return True

    # ---- numbering

    def _accept(self, found: Scan, data: mmap.mmap) -> int:
        """Give the records their queues, in front of the first whose number or time is wrong.

        Return how many.
        """
        count = len(found)
        if not count:
            return 0
        indices = self.queues.indices(found, data)
        transaction = found.sys_flags & TRANSACTION_MASK
        indices[(transaction != 0) & (transaction != TRANSACTION_COMMIT)] = -1
        counted = np.flatnonzero(indices >= 0)
        numbers = found.queue_offsets[counted]
        expected = self.queues.expected(indices[counted])
        wrong = np.flatnonzero(numbers != expected)
        times = found.store_times
        back = np.flatnonzero(np.diff(times, prepend=self.last_store_time) < 0)
        if len(wrong):
            count = int(counted[wrong[0]])
        self.times_back += found.physical_offsets[back].tolist()
        if len(back) and self.own:
            late = back[found.physical_offsets[back] >= self.known_flushed]
            count = min([count, *late.tolist()])
        counted = counted[counted < count]
        self._take(found, data, counted, indices[counted])
        self.records += count
        if count:
            self.last_store_time = max(self.last_store_time, int(times[:count].max()))
        return count

    def _take(self, found: Scan, data: mmap.mmap, counted: IntArray, indices: IntArray) -> None:
        """Note the units of accepted records; compare them with the files when enough are held."""
        if not len(counted):
            return
        self.queues.advance(indices)
        codes = tags_codes(data, found.property_starts[counted], found.ends[counted])
        self.queues.correct_delayed(indices, codes, found, counted, data)
        marks = overlapping(data, ">i8")[found.starts[counted] + PREPARED_TRANSACTION_OFFSET_AT]
        codes[marks == DAMAGED_MARK] = DAMAGED_TAGS_CODE
        self._held.append(
            (
                indices,
                found.queue_offsets[counted],
                found.physical_offsets[counted],
                found.sizes[counted],
                codes,
            )
        )
        self._held_count += len(counted)
        if self._held_count >= UNITS_HELD_MAX:
            self._merge()

    def _renumber(self, found: Scan, i: int, data: mmap.mmap) -> bool:
        """Deal with a record below `known_flushed` whose number is not its queue's next; False.

        Leave it out.
        """
        self._merge()
        if not self.queues.is_known_gap(found, i, data):
            self.misnumbered.append(int(found.physical_offsets[i]))
        return self.queues.jump(found, i, data)

    def _merge(self) -> None:
        """Bring the held units into the files, queue by queue."""
        if self._held:
            columns = [np.concatenate(column) for column in zip(*self._held, strict=True)]
            self._held, self._held_count = [], 0
            self.queues.merge(*columns)

    def _report(self, position: int) -> None:
        if self.progress is not None:
            self.progress(self.records, position, self._files_end)
