"""The scrub: reads the whole log again, slowly, and looks for what changed since it was flushed.

A step takes the records of a bounded piece, from a record's start to a record's end: their bodies must have
their CRCs, and the pieces their sums (`checksums.py`). It then pauses for as long as the rate asks. One pass
goes from the log's first byte to the flushed position; the next begins when `scrubPassInterval` is over. How
far it is, is written to `checksums/scrub.json` now and then, and counted in the page.

What it finds, while everybody goes on working:

    one byte changed        it is put back (one store of one byte; the damaged record is kept aside)
    anything else           the message's unit gets DAMAGED_TAGS_CODE, so that readers pass over it, and a row
                            of the damage table tells the next start to replace the record
    a sector not readable   reported; the rest of that segment is left out
    a damaged unit          it is written anew (`unit_check.py`)

Where a reader met something that is not what it should be (`doubts.py`), it looks at once, whatever the rate,
also above the flushed position, where nothing has a sum yet. What is not mended then is marked.

Bytes are read from the disk where nobody has them mapped, and not left in memory. A thread of the
coordinator, the only one that scrubs; no lock. If it dies, it goes on from the last note.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict

from shmq.base import faults, log
from shmq.base.clock import SYSTEM_CLOCK, Clock, monotonic_ms
from shmq.base.files import write_durably
from shmq.model.broker_settings import BrokerSettings
from shmq.model.delay import delay_levels
from shmq.model.record import BLANK_BYTES_MIN
from shmq.shm.control_page import ControlPage
from shmq.shm.page_layout import FLUSHED_POSITION, MIN_OFFSET, WRITE_POSITION
from shmq.shm.queue_table import QueueRef
from shmq.store.checksum_check import Piece, SegmentChecksums
from shmq.store.damage_search import Damage, behind_damage, find_damage
from shmq.store.damage_table import MARKED, DamageRow, DamageTable
from shmq.store.doubtful_range import Stranger, doubtful_range, queue_of_slot, stranger
from shmq.store.doubts import take_doubt
from shmq.store.log_scan import ScanEnd, scan
from shmq.store.mapped_file import MappedFile
from shmq.store.names import StoreLayout
from shmq.store.quarantine import Quarantine
from shmq.store.scrub_progress import ScrubProgress
from shmq.store.unit_check import UnitCheck
from shmq.store.unit_finder import UnitFinder, mark_unit

STEP_RECORDS = 4096
"""Records of one step: some 10 ms."""

PAUSE_MS_MIN = 1000
"""An idle coordinator does not wake up more often for this."""

NOTE_MS = 10_000
"""How often the progress is written."""

IDLE_MS = 60_000
"""Pause between two looks whether there is something to do, at most."""

READ_BYTES = 1 << 20

_logger = log.get(__name__)

faults.declare(
    {
        "doubt.taken": "a reader's doubt is taken from the page, nothing was looked at",
        "doubt.noted": "the table says that a message is given up, its unit does not",
    }
)


class Scrub:
    """Scrubs one store."""

    def __init__(
        self,
        layout: StoreLayout,
        page: ControlPage,
        settings: BrokerSettings,
        count: Callable[[str, int], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Go on where the last note says. `count` adds to a counter of the calling thread's own."""
        self._layout = layout
        self._page = page
        self._rate = settings.scrub_bytes_per_second
        self._interval_ms = settings.scrub_pass_interval
        self._count = count
        self._clock = clock
        self._sums: SegmentChecksums | None = None
        self._sums_of = -1
        self._levels = delay_levels(settings.message_delay_level)
        self._units: UnitCheck | None = None
        self._units_of = -1
        self.progress = ScrubProgress.load(layout)
        self._note_at = 0

    def step(self) -> int:
        """Look at what readers doubt, then scrub a second's worth, a piece at least; return the pause in ms.

        Never raises: damage in the store must not end a process.
        """
        done = 0
        try:
            while (doubt := take_doubt(self._page)) is not None:
                self._look_at(*doubt)
            while done * 1000 < self._rate * PAUSE_MS_MIN and (piece := self._piece()):
                done += piece
        except Exception:
            log.event(_logger, logging.ERROR, "scrub_failed", exc_info=True, position=self.progress.position)
            return IDLE_MS
        if not done:
            return max(PAUSE_MS_MIN, min(IDLE_MS, self._interval_ms))
        self._count("scrub_bytes", done)
        return max(PAUSE_MS_MIN, done * 1000 // self._rate)

    def _look_at(self, slot: int, queue_offset: int) -> None:
        """Check log and units around a message, and mend them."""
        queue = queue_of_slot(self._page, slot)
        if queue is None:
            return
        faults.reach("doubt.taken")
        begin, end = doubtful_range(self._layout, self._page, queue, queue_offset)
        log.event(
            _logger, logging.INFO, "doubt", queue=queue, queue_offset=queue_offset, begin=begin, end=end
        )
        self._units = self._sums = None  # topics may be new, and sums are loaded from a position on
        while begin < end:
            begin = self._records(begin, int(self._page.words[WRITE_POSITION]))
        self._sums = None
        if (found := stranger(self._layout, self._page, queue, queue_offset)) is not None:
            self._give_up(queue, queue_offset, found)

    def _give_up(self, queue: QueueRef, queue_offset: int, found: Stranger) -> None:
        """Mark a message whose unit leads to a record that is not its own, so that nobody is given it."""
        row = DamageRow(
            found.position,
            found.size,
            "it and its ConsumeQueue unit differ",
            MARKED,
            queue.topic,
            queue.queue_id,
            queue_offset,
            found.store_time,
            found_by="scrub",
        )
        self.progress.found += 1
        self._count("scrub_damage", 1)
        if not found.is_anothers:  # else its record cannot be found: nothing is to be replaced
            DamageTable(self._layout).put([row])
        faults.reach("doubt.noted")
        mark_unit(self._layout, row.topic, row.queue_id, row.queue_offset, row.position)
        _tell_of(row)

    def _piece(self) -> int:
        """Scrub from where we are; return how many bytes were looked at, 0 when a pass is over."""
        progress, words = self.progress, self._page.words
        now = self._clock.now_ms()
        if progress.began <= progress.finished:
            if now < progress.finished + self._interval_ms and progress.passes:
                return 0
            progress.position, progress.found, progress.bytes, progress.began = 0, 0, 0, now
            self._sums = None
        begin = max(progress.position, int(words[MIN_OFFSET]))
        flushed = int(words[FLUSHED_POSITION])
        if begin >= flushed:
            progress.finished, progress.passes = max(now, progress.began), progress.passes + 1
            self._note()
            log.event(_logger, logging.INFO, "scrub_pass_finished", **asdict(progress))
            return 0
        try:
            end = self._records(begin, flushed)
        except OSError as error:
            end = self._layout.segment_start(begin) + self._layout.segment_bytes
            if not isinstance(error, FileNotFoundError):  # that is retention, which was faster
                progress.found += 1
                self._count("scrub_damage", 1)
                log.event(_logger, logging.ERROR, "scrub_unreadable", error=error, first=begin, end=end)
        progress.position = end
        progress.bytes += end - begin
        if monotonic_ms() >= self._note_at:
            self._note()
        return end - begin

    def _note(self) -> None:
        self._note_at = monotonic_ms() + NOTE_MS
        write_durably(self._layout.scrub_progress, json.dumps(asdict(self.progress)).encode(), backup=False)

    def _records(self, begin: int, flushed: int) -> int:
        """Check the records from `begin` on; return where they end."""
        start, size = self._layout.segment_start(begin), self._layout.segment_bytes
        stop = min(flushed, start + size)
        self._read_through(start, begin, min(stop, begin + (STEP_RECORDS << 10)))
        segment = MappedFile(self._layout.segment_path(start), start, size, writable=False)
        end, is_whole = _follow(segment, begin, stop, STEP_RECORDS)
        failing = self._failing(segment, begin, end, stop)
        while failing and failing[-1].end > end:  # whoever is in a bad piece is judged together
            end, also_whole = _follow(segment, end, stop, 1)
            is_whole &= also_whole
            failing = self._failing(segment, begin, end, stop)
        damaged: list[tuple[int, int]] = []
        if failing or not is_whole:
            spoiled = find_damage(self._layout, segment, begin, end, failing)
            self._deal_with(segment, spoiled)
            damaged = [(one.position, one.end) for one in spoiled]
            damaged += [(one.start, one.end) for one in self._failing(segment, begin, end, stop)]
        self._check_units(segment, begin, end, damaged)
        return end

    def _check_units(self, segment: MappedFile, begin: int, end: int, damaged: list[tuple[int, int]]) -> None:
        """Compare the units of these records; the topics are looked up anew for each segment."""
        if self._units is None or self._units_of != segment.start:
            self._units = UnitCheck(self._layout, self._page, self._levels, self._count)
            self._units_of = segment.start
        sums = self._sums
        summed = (int(sums.starts[0]), int(sums.ends[-1])) if sums is not None and len(sums) else (0, 0)
        self._units.run(segment, begin, end, damaged, summed)

    def _failing(self, segment: MappedFile, begin: int, end: int, stop: int) -> list[Piece]:
        """The pieces that reach into `[begin, end)` and do not sum up.

        Those that begin before were dealt with by the step before.
        """
        sums = self._sums
        if sums is None or self._sums_of != segment.start or not len(sums) or sums.ends[-1] < min(end, stop):
            sums = self._sums = SegmentChecksums.load(self._layout, segment.start, begin)
            self._sums_of = segment.start
        failing = sums.failing(segment.map, segment.start, begin, end, stop)
        return [piece for piece in failing if piece.start >= begin]

    def _read_through(self, start: int, begin: int, end: int) -> None:
        """Bring what will be looked at into memory from the disk. OSError where a sector cannot be read."""
        fd = os.open(self._layout.segment_path(start), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, begin - start, end - begin, os.POSIX_FADV_DONTNEED)
            for position in range(begin - start, end - start, READ_BYTES):
                os.pread(fd, min(READ_BYTES, end - start - position), position)
        finally:
            os.close(fd)

    # ---- findings

    def _deal_with(self, segment: MappedFile, spoiled: list[Damage]) -> None:
        """Mend what can be mended, mark the rest, and tell."""
        quarantine = Quarantine(self._layout, "scrub")
        finder: UnitFinder | None = None
        for damage in spoiled:
            known = quarantine.table.overlapping(damage.position, damage.end)
            if any(row.state == MARKED for row in known):
                continue
            self.progress.found += 1
            self._count("scrub_damage", 1)
            if quarantine.mend(segment, damage):
                continue
            finder = finder or UnitFinder(self._layout)
            units = finder.between(damage.position, damage.end)
            row = DamageRow(
                damage.position,
                damage.size,
                damage.reason,
                MARKED,
                store_time=damage.store_time,
                found_by="scrub",
            )
            if units:
                row.topic, row.queue_id, row.queue_offset = units[0][:3]
            quarantine.table.put([row])
            for unit in units:
                mark_unit(self._layout, unit.topic, unit.queue_id, unit.queue_offset, unit.position)
            _tell_of(row)


def _tell_of(row: DamageRow) -> None:
    """One line for what was marked."""
    told = {name: value for name, value in asdict(row).items() if name not in ("found", "aside")}
    log.event(_logger, logging.ERROR, "damage_found", **told)


def _follow(segment: MappedFile, begin: int, stop: int, records: int) -> tuple[int, bool]:
    """Where at most `records` records from `begin` on end, below `stop`, and whether all were sound.

    Behind an unsound one it ends at once.
    """
    start = segment.start
    found = scan(segment.map, begin - start, stop - start, start, records_max=records)
    end = start + found.stop
    if found.end is ScanEnd.BROKEN:
        return behind_damage(segment, end, found.broken_size, stop), False
    if found.end is ScanEnd.BLANK or start + segment.size - end < BLANK_BYTES_MIN:
        end = min(stop, start + segment.size)
    return end, True
