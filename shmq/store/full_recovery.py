"""Full recovery: from the files alone to positions and queue maxima that are true.

    1  begin   at a position below which log and ConsumeQueues are known to be whole: the end of a clean stop,
               the checkpoint's confirmPhyOffset after a crash, else the log's first byte (for another
               engine's store the segment that RocketMQ itself would begin with: 5.3, CommitLog.java)
    2  walk    `log_walk.py`: check every record from there, replace what is damaged (`quarantine.py`),
               rebuild every queue
    3  cut     bytes behind the end become zero, later segments go; units behind each maximum become zero
    4  sync    files and folders

A position is trusted only when a record, a segment's start or the end of the log is there and every queue's
last unit below it fits its record; otherwise the walk begins at the first byte. If it dies, the next start
does the same again. Runs in the recovery child, alone on the store. Numpy.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from shmq.base import faults, log
from shmq.base.files import fsync_folder
from shmq.model.delay import delay_levels
from shmq.model.record import BLANK_BYTES_MIN, QUEUE_OFFSET_AT, check_record
from shmq.model.settings import BrokerSettings
from shmq.store.checkpoint import Checkpoint
from shmq.store.checksum_check import SegmentChecksums
from shmq.store.commit_log import is_record
from shmq.store.config_tables import TopicTable
from shmq.store.copied_segment import map_segment
from shmq.store.log_bounds import check_segments, flushed_end, tell_of_lost_begin
from shmq.store.log_walk import LogWalk, Progress
from shmq.store.mapped_file import MappedFile
from shmq.store.names import StoreLayout
from shmq.store.quarantine import Quarantine
from shmq.store.queue_repair import QueueRepair
from shmq.store.queue_set import QueueSet, UnitsMissing
from shmq.store.queue_times import store_time_of
from shmq.store.run_marks import LastRun, Marks
from shmq.store.sparse_files import sync_path, sync_paths, zero_written

SEGMENTS_MAPPED = 64

_logger = log.get(__name__)

faults.declare(
    {
        "recovery.walked": "units that were missing are written, nothing is cut or synced",
        "recovery.segment_gone": "a segment behind the end is unlinked, others perhaps not",
        "recovery.log_zeroed": "the log's last segment ends with zeros that are not synced",
        "recovery.log_cut": "the log ends where its last record does, and is synced; the queues are not cut",
        "recovery.queue_cut": "one queue is cut, others perhaps not; none is synced",
    }
)


@dataclass(slots=True)
class RecoveredQueue:
    """One queue as recovery leaves it."""

    topic: str
    queue_id: int
    minimum: int
    maximum: int


@dataclass(slots=True)
class Recovered:
    """What full recovery found and did."""

    min_offset: int = 0
    write_position: int = 0
    walked_from: int = 0
    last_store_time: int = 0
    records: int = 0
    units_written: int = 0
    bytes_cut: int = 0
    rebuilt: bool = False
    damaged: list[tuple[int, int]] = field(default_factory=list)
    queues: list[RecoveredQueue] = field(default_factory=list)


class FullRecovery:
    """One recovery of one store."""

    def __init__(
        self,
        layout: StoreLayout,
        settings: BrokerSettings,
        topics: TopicTable,
        marks: Marks,
        *,
        known_flushed: int,
        known_begin: int | None,
        progress: Progress | None = None,
    ) -> None:
        """`known_flushed` and `known_begin`: between which positions a page that is still there knew the log
        to be on the disk; 0 and None without one. StoreDamaged when segments are missing or cut.
        """
        self._layout = layout
        self._settings = settings
        self._topics = topics
        self._marks = marks
        self._progress = progress
        self._own = marks.last_run is not LastRun.FOREIGN
        self._checkpoint = Checkpoint.load(layout.checkpoint)
        self._starts = check_segments(layout, max(flushed_end(layout, marks), known_flushed))
        self._low = self._starts[0] if self._starts else 0
        if marks.last_run is LastRun.CLEAN and marks.identity is not None:
            known_begin = marks.identity.min_offset if marks.identity.min_offset >= 0 else None
        if known_begin is not None:
            tell_of_lost_begin(self._low, known_begin)
        self._end = self._starts[-1] + layout.segment_bytes if self._starts else 0
        self._known_flushed = known_flushed
        self._mapped: dict[int, MappedFile] = {}
        self._quarantine = Quarantine(layout, "recovery")

    def run(self) -> Recovered:
        """Recover. Runs once."""
        begin = self._begin()
        if begin > self._low:
            try:
                return self._recover(begin)
            except UnitsMissing:
                log.event(_logger, logging.WARNING, "recovery_from_first_byte", instead_of=begin)
        return self._recover(self._low)

    def _recover(self, begin: int) -> Recovered:
        """Walk from `begin`, then cut."""
        rebuilding = begin == self._low
        levels = delay_levels(self._settings.message_delay_level)
        queues = QueueSet(self._layout, self._topics, levels, own=self._own)
        is_clean = self._is_clean_end(begin)
        whole = queues.load(begin, None if is_clean and not rebuilding else self._low)
        if not rebuilding and not (whole and self._fits(queues, begin)):
            raise UnitsMissing
        walk = LogWalk(
            self._layout,
            queues,
            max(begin, self._known_flushed),
            rebuilding,
            check_bodies=self._settings.check_crc_on_recover,
            own=self._own,
            progress=self._progress,
            last_store_time=self._time_before(begin),
            mend=self._quarantine.replace,
        )
        end = walk.run(begin)
        faults.reach("recovery.walked")
        cut = self._cut_log(begin, end)
        faults.reach("recovery.log_cut")
        last_time = walk.last_store_time or self._newest_time(queues)
        recovered = Recovered(
            self._low, end, begin, last_time, walk.records, 0, cut, rebuilding, walk.damaged
        )
        unsynced: dict[Path, None] = {}
        for index, queue in enumerate(queues.queues):
            maximum = queues.maximum(index)
            if walk.records or not is_clean:
                queue.cut(maximum)
                faults.reach("recovery.queue_cut")
            unsynced |= dict.fromkeys(queue.unsynced())
            low = max(queue.first_from(self._low, maximum), self._topics.low(queue.topic, queue.queue_id))
            recovered.queues.append(RecoveredQueue(queue.topic, queue.queue_id, min(low, maximum), maximum))
            recovered.units_written += queue.units_written
        if is_clean and not rebuilding and not self._minima_fit(recovered.queues):
            raise UnitsMissing
        sync_paths(unsynced, self._layout.root)
        return recovered

    # ---- where to begin

    def _begin(self) -> int:
        """The trusted position, or the log's first byte."""
        if not self._starts:
            return 0
        if self._marks.last_run is LastRun.FOREIGN:
            return self._foreign_begin()
        self._known_flushed = max(self._known_flushed, self._checkpoint.confirm_offset, self._summed())
        position = self._checkpoint.confirm_offset
        if self._marks.last_run is LastRun.CLEAN and self._marks.identity is not None:
            position = self._known_flushed = self._marks.identity.write_position
        self._known_flushed = min(self._known_flushed, self._end)
        return position if self._is_boundary(position) else self._low

    def _summed(self) -> int:
        """Up to where side files prove that the log was flushed: the last piece that still has its sum.

        What lies below it cannot be a torn tail, and one bad record in it no reason to cut.
        """
        for start in reversed(self._starts):
            if start + self._layout.segment_bytes <= self._checkpoint.confirm_offset:
                break
            sums = SegmentChecksums.load(self._layout, start, self._checkpoint.confirm_offset)
            segment = self._map(start)
            if (end := sums.last_right(segment.map, start, start + segment.size)) is not None:
                return end
        return 0

    def _is_boundary(self, position: int) -> bool:
        """Whether a record, a segment or nothing at all begins at `position`."""
        if not self._low < position <= self._end:
            return False
        if position % self._layout.segment_bytes == 0:
            return True
        segment = self._map(position)
        at = position - segment.start
        if segment.size - at < BLANK_BYTES_MIN:
            return False
        size = check_record(segment.view, at, segment.size)
        if size > 0:
            return is_record(segment.view[at : at + size], position)
        return size == 0 or not any(segment.view[at : at + BLANK_BYTES_MIN])

    def _foreign_begin(self) -> int:
        """The segment RocketMQ would begin with: the newest that its checkpoint says is dispatched.

        `abort` absent or not makes no difference here: its checkpoint is older than a clean end, which costs
        a longer walk at most, while the walk itself finds units that are missing.
        """
        for start in reversed(self._starts[1:]):
            segment = self._map(start)
            size = check_record(segment.view, 0, segment.size)
            if size > 0 and store_time_of(segment.view[:size]) <= self._checkpoint.trusted_timestamp:
                return start
        return self._low

    def _time_before(self, begin: int) -> int:
        """A store time that no record at or above `begin` can be older than; 0 when it is not known."""
        identity = self._marks.identity
        return identity.last_store_time if identity is not None and self._is_clean_end(begin) else 0

    def _is_clean_end(self, position: int) -> bool:
        """Whether the last run stopped cleanly right there: nothing can have been written behind it."""
        identity = self._marks.identity
        return (
            self._marks.last_run is LastRun.CLEAN
            and identity is not None
            and position == identity.write_position
        )

    def _fits(self, queues: QueueSet, begin: int) -> bool:
        """Whether the last unit below `begin` of every queue points to the record that has its number.

        And whether no queue is missing: after a clean stop their sum is known, else there must be one at
        least.
        """
        identity = self._marks.identity
        clean = self._marks.last_run is LastRun.CLEAN and identity is not None
        if (identity is not None and clean and identity.units != queues.units()) or not queues.queues:
            return False
        for index, queue in enumerate(queues.queues):
            end = queues.maximum(index)
            if end > self._topics.low(queue.topic, queue.queue_id) and not self._unit_fits(queue, end, begin):
                return False
        return True

    def _minima_fit(self, queues: list[RecoveredQueue]) -> bool:
        """Whether no queue has lost its first files since the clean stop, which noted the sum of all minima.

        Not asked when the log begins elsewhere than then.
        """
        identity = self._marks.identity
        if identity is None or identity.min_offset != self._low:
            return True
        used = (queue for queue in queues if queue.maximum > self._topics.low(queue.topic, queue.queue_id))
        return sum(queue.minimum for queue in used) == identity.minima

    def _unit_fits(self, queue: QueueRepair, end: int, begin: int) -> bool:
        unit = queue.last_unit(end)
        if unit is None or unit[0] < self._low:
            return True
        physical, size = unit
        if physical + size > begin:
            return False
        segment = self._map(physical)
        at = physical - segment.start
        if at + size > segment.size or check_record(segment.view, at, segment.size, check_crc=False) != size:
            return False
        number = int.from_bytes(segment.view[at + QUEUE_OFFSET_AT : at + QUEUE_OFFSET_AT + 8], "big")
        return number == end - 1

    def _newest_time(self, queues: QueueSet) -> int:
        """The store time of the newest record that a queue's last unit points to; 0 without any."""
        ends = ((queue, queues.maximum(index)) for index, queue in enumerate(queues.queues))
        units = [unit for queue, end in ends if (unit := queue.last_unit(end)) and unit[0] >= self._low]
        if not units:
            return 0
        physical, size = max(units)
        segment = self._map(physical)
        return store_time_of(segment.view[physical - segment.start :][:size])

    def _map(self, position: int) -> MappedFile:
        """The segment that holds `position`; the last few stay mapped, as many queues end in the same."""
        start = self._layout.segment_start(position)
        found = self._mapped.get(start)
        if found is None:
            if len(self._mapped) >= SEGMENTS_MAPPED:
                self._mapped.clear()
            path, size = self._layout.segment_path(start), self._layout.segment_bytes
            found = self._mapped[start] = map_segment(path, start, size)
        return found

    # ---- cutting

    def _cut_log(self, begin: int, end: int) -> int:
        """Leave nothing behind `end`: later segments go, the rest of its segment becomes zero. Then what was
        walked is made durable: a crash may have left it in the page cache only.
        """
        cut = 0
        for start in [start for start in reversed(self._starts) if start > end]:
            path = self._layout.segment_path(start)
            cut += zero_written(path, 0)
            path.unlink()
            fsync_folder(self._layout.commit_log)  # one after the other: a power cut must leave no gap
            self._starts.remove(start)
            faults.reach("recovery.segment_gone")
        start = self._layout.segment_start(end)
        if start in self._starts:
            cut += zero_written(self._layout.segment_path(start), end - start)
            faults.reach("recovery.log_zeroed")
        for start in self._starts:
            if start + self._layout.segment_bytes > begin:
                sync_path(self._layout.segment_path(start))
        fsync_folder(self._layout.commit_log)
        return cut
