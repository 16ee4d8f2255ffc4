"""The store check: everything that must hold, proved on a stopped, a dead or a running broker's store.

    log       segments of one size without a gap; from the first byte to the end sound records, each at its
    own
              physical offset, store times that never go back, a BLANK at every segment's end; zeros behind
              the end
    queues    each record's queue offset is its queue's next, and the unit there says where it lies, its size
    and
              its tags code; no units behind the maximum
    page      min_offset <= flushed_position <= write_position <= zeroed_position, visible, confirm and
    indexed
              position <= write_position; queue minima <= maxima, maxima one behind the last record's number
    sums      every piece of log has the sum its side file says (`checksums.py`), the side files are whole and
              without a gap
    tables    config files, checkpoint and identity are what was written last (`changed_files.py`)
    files     checkpoint not ahead of the log, index headers that make sense, no foreign files among segments

With a page the check is bounded by the write position it had at the beginning, so a broker may go on
appending; what can change meanwhile (bytes behind the end, maxima) is then compared only as far as it must
hold. Nothing is written and no lock is taken. Used by `shmq-admin storeCheck` and at the end of every store
test. Numpy.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from shmq.base.file_sums import FileState
from shmq.model.delay import delay_levels
from shmq.shm.append_journal import AppendJournal
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView
from shmq.shm.page_layout import (
    CONFIRM_OFFSET,
    FLUSHED_POSITION,
    INDEXED_POSITION,
    MIN_OFFSET,
    WRITE_POSITION,
    ZEROED_POSITION,
)
from shmq.shm.queue_table import QueueTable
from shmq.store.changed_files import changed_files
from shmq.store.checkpoint import FILE_BYTES, Checkpoint
from shmq.store.checksum_check import SegmentChecksums
from shmq.store.config_tables import load_topics
from shmq.store.damage_search import find_damage
from shmq.store.index_file import HEADER, IndexHeader, index_names
from shmq.store.index_sums import changed_index_files, gone_index_files
from shmq.store.log_bounds import flushed_end
from shmq.store.log_walk import LogWalk
from shmq.store.mapped_file import MappedFile
from shmq.store.names import StoreLayout, parse_file_name
from shmq.store.queue_repair import QueueRepair
from shmq.store.queue_set import QueueSet
from shmq.store.run_marks import LastRun, read_marks
from shmq.store.sparse_files import first_written
from shmq.store.store_view import layout_of

DEFAULT_DELAY_LEVELS = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold: which rule, where, and what was found."""

    rule: str
    where: str
    text: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.rule}: {self.where}: {self.text}"


def check_store(
    root: Path, page: ControlPage | None = None, *, levels: str = DEFAULT_DELAY_LEVELS
) -> Iterator[Finding]:
    """Check the store at `root`; yields nothing when all is well.

    `page` is the broker's control page (attached for reading) when there is one; `levels` its
    messageDelayLevel.
    """
    yield from _StoreCheck(root, page, levels).run()


class _StoreCheck:
    """One check."""

    def __init__(self, root: Path, page: ControlPage | None, levels: str) -> None:
        self._layout = layout_of(root)
        self._page = page
        self._levels = levels
        self._is_clean = False
        self._differences: list[Finding] = []
        self._queues = QueueSet(
            self._layout,
            load_topics(self._layout),
            delay_levels(levels),
            own=True,
            on_difference=self._note_difference,
        )

    def run(self) -> Iterator[Finding]:
        """All rules, cheap ones first."""
        write_position = self._end_as_noted()
        files = list(_files(self._layout))
        yield from files
        for path, state in changed_files(self._layout).items():
            yield Finding("table", str(path), state.value)
        starts = self._layout.segments()
        if self._page is not None:
            yield from _positions(self._page)
        if not starts or any(finding.rule == "segment" for finding in files):
            return  # a log with a piece missing cannot be followed
        low = starts[0]
        if self._page is not None:
            low = max(low, int(self._page.words[MIN_OFFSET]))
        walk = LogWalk(
            self._layout,
            self._queues,
            starts[-1] + self._layout.segment_bytes if write_position is None else write_position,
            rebuilding=True,
            stop=write_position,
            check_all=True,
        )
        if not self._queues.load(low):
            yield Finding(
                "queue files", str(self._layout.consume_queue), "a file has a wrong length or is missing"
            )
        if write_position is None:
            walk.known_flushed = low
        end = walk.run(low)
        yield from self._walk_findings(walk, end, write_position)
        yield from self._sum_findings(walk, low, end)
        yield from self._differences
        quiet = self._page is None or self._is_quiet(self._page, end)
        if quiet:
            yield from _behind_end(self._layout, end)
        yield from self._maxima(quiet)
        yield from _side_files(self._layout, end)

    def _end_as_noted(self) -> int | None:
        """Where the log ends, by the page or the note of a clean stop; None after a crash without page."""
        if self._page is not None:
            return int(self._page.words[WRITE_POSITION])
        marks = read_marks(self._layout)
        if marks.last_run is LastRun.CLEAN and marks.identity is not None:
            self._is_clean = True
            return marks.identity.write_position
        return None

    def _walk_findings(self, walk: LogWalk, end: int, write_position: int | None) -> Iterator[Finding]:
        for position, size in walk.damaged:
            yield Finding("record", f"physical offset {position}", f"{size} bytes hold no sound record")
        for position in walk.misnumbered:
            yield Finding("queue offset", f"physical offset {position}", "is not its queue's next")
        for position in walk.times_back:
            yield Finding("store time", f"physical offset {position}", "is older than the record before it")
        if write_position is not None and end != write_position:
            yield Finding("log end", f"physical offset {end}", f"write_position is {write_position}")

    def _sum_findings(self, walk: LogWalk, low: int, end: int) -> Iterator[Finding]:
        """What the side files say of the log below `end`, and whether they are whole themselves."""
        known = {position for position, _ in walk.damaged}
        reached: int | None = None
        starts = self._layout.segments()
        for start in starts:
            sums = SegmentChecksums.load(self._layout, start)
            where = str(self._layout.checksum_path(start))
            for at in sums.broken:
                yield Finding("checksums", f"{where} byte {at}", "holds no entry")
            is_last = not any(self._layout.checksum_path(later).exists() for later in starts if later > start)
            if sums.is_empty_file and not (is_last and self._page is not None):
                yield Finding("checksums", where, "has no entry")
            for first, last in zip(sums.starts.tolist(), sums.ends.tolist(), strict=True):
                if reached is not None and first != reached:
                    yield Finding("checksums", where, f"nothing is said of {reached} to {first}")
                reached = last
            stop = min(end, start + self._layout.segment_bytes)
            if stop <= max(start, low) or not len(sums):
                continue
            segment = MappedFile(
                self._layout.segment_path(start), start, self._layout.segment_bytes, writable=False
            )
            failing = sums.failing(segment.map, start, max(low, start), stop)
            if failing:
                for damage in find_damage(self._layout, segment, max(low, start), stop, failing):
                    if damage.position not in known:
                        yield Finding("record", f"physical offset {damage.position}", damage.reason)
        if self._page is None and self._is_clean and reached is not None and reached != end:
            yield Finding("checksums", str(self._layout.checksums), f"end at {reached}, the log at {end}")

    def _note_difference(self, queue: QueueRepair, number: int, units: bytes) -> None:
        """The units of a queue are not those of its records; say which is the first."""
        name = f"{queue.topic} queue {queue.queue_id}"
        offset = queue.first_difference(number, units)
        self._differences.append(Finding("unit", f"{name} offset {offset}", "does not describe its record"))

    @staticmethod
    def _is_quiet(page: ControlPage, end: int) -> bool:
        """Whether nothing was appended during the walk and nobody is in a claim."""
        return page.words[WRITE_POSITION] == end and AppendJournal(page).empty()

    def _maxima(self, quiet: bool) -> Iterator[Finding]:
        """Maxima of the page against the log, and nothing behind them."""
        table = directory = None
        if self._page is not None:
            table, directory = QueueTable(self._page), DirectoryView(self._page)
        for index, queue in enumerate(self._queues.queues):
            name = f"{queue.topic} queue {queue.queue_id}"
            counted = self._queues.maximum(index)
            if table is not None and directory is not None:
                ref = directory.queue(queue.topic, queue.queue_id)
                if ref is None:
                    continue
                low, high = table.min(ref.slot), table.max(ref.slot)
                if low > high or (counted != high if quiet else counted > high):
                    yield Finding("maximum", name, f"is {high} (minimum {low}), the log has {counted}")
            if quiet and (behind := queue.first_written_behind(counted)) is not None:
                yield Finding("unit", f"{name} offset {behind}", f"is there though the maximum is {counted}")


def _files(layout: StoreLayout) -> Iterator[Finding]:
    """Names and sizes of segments."""
    before: int | None = None
    flushed = flushed_end(layout, read_marks(layout))
    for entry in sorted(layout.commit_log.iterdir()) if layout.commit_log.is_dir() else ():
        start = parse_file_name(entry.name)
        if start is None:
            yield Finding("file", str(entry), "is no segment")
        elif entry.stat().st_size != layout.segment_bytes:
            yield Finding("segment", str(entry), f"is no segment of {layout.segment_bytes} bytes")
        elif before is not None and start != before + layout.segment_bytes:
            yield Finding("segment", str(entry), "does not follow the one before it")
        before = start if start is not None else before
    end = 0 if before is None else before + layout.segment_bytes
    if end < flushed:
        text = f"ends at {end}, but was on the disk up to {flushed}"
        yield Finding("segment", str(layout.commit_log), text)


def _positions(page: ControlPage) -> Iterator[Finding]:
    """The order of positions. Loaded from the smaller to the larger, as they only grow."""
    words = page.words
    order = (
        ("min_offset", MIN_OFFSET),
        ("flushed_position", FLUSHED_POSITION),
        ("write_position", WRITE_POSITION),
    )
    pairs = list(itertools.pairwise(order))
    pairs += [
        ((name, word), order[2])
        for name, word in (("indexed_position", INDEXED_POSITION), ("confirm_offset", CONFIRM_OFFSET))
    ]
    pairs.append((order[2], ("zeroed_position", ZEROED_POSITION)))
    for (small_name, small), (large_name, large) in pairs:
        value = words[small]
        if value > words[large]:
            yield Finding("positions", small_name, f"{value} is beyond {large_name} {words[large]}")
    visible = page.visible_position()
    if visible > words[WRITE_POSITION]:
        yield Finding("positions", "visible_position", f"{visible} is beyond {words[WRITE_POSITION]}")


def _behind_end(layout: StoreLayout, end: int) -> Iterator[Finding]:
    """Everything behind the log's end is zero."""
    for start in layout.segments():
        if start + layout.segment_bytes > end:
            at = first_written(layout.segment_path(start), max(0, end - start))
            if at is not None:
                yield Finding(
                    "log end", f"physical offset {start + at}", f"is not zero, the log ends at {end}"
                )


def _side_files(layout: StoreLayout, end: int) -> Iterator[Finding]:
    """Checkpoint, index headers and index sums."""
    for path, state in changed_index_files(layout).items():
        yield Finding("index", path.name, state.value)
    for name in gone_index_files(layout):
        yield Finding("index", name, FileState.MISSING.value)
    yield from _checkpoint_shape(layout)
    confirm = Checkpoint.load(layout.checkpoint).confirm_offset
    if confirm > end:
        yield Finding("checkpoint", str(layout.checkpoint), f"claims {confirm}, the log ends at {end}")
    for name in index_names(layout.index):
        data = (layout.index / name).open("rb").read(HEADER.size)
        try:
            header = IndexHeader.decode(memoryview(data))
        except struct.error:
            yield Finding("index", name, "has no header")
            continue
        if header.end_physical_offset >= max(end, 1) or header.begin_timestamp > header.end_timestamp:
            yield Finding("index", name, f"its header makes no sense: {header}")


def _checkpoint_shape(layout: StoreLayout) -> Iterator[Finding]:
    """A checkpoint that is there is whole, and none of its values is negative.

    Without this a cut file passes for one that knows nothing.
    """
    where = str(layout.checkpoint)
    try:
        size = layout.checkpoint.stat().st_size
    except FileNotFoundError:
        return
    if size != FILE_BYTES:
        yield Finding("checkpoint", where, f"has {size} bytes instead of {FILE_BYTES}")
    for name, value in asdict(Checkpoint.load(layout.checkpoint)).items():
        if value < 0:
            yield Finding("checkpoint", where, f"{name} is {value}")
