"""The append claim: how a turn's sends become records, units and published positions, in one critical
section.

    before the lock   every request checked; disk blocks and maps of its units and segments made
    AppendLock        plan     where each request goes: pure arithmetic, nothing stored
                      PREPARED the journal says what is about to be overwritten
                      fill     stamps, record bytes, BLANK at a segment's end, units
                      COMMITTED from here on a death is finished by repair, before it is undone
                      publish  write_position, then queue maxima
                      EMPTY
    after it          ring who is parked on the queues and on the log's end

Run by every process with an appender slot, one thread each. No file is made and no disk waited for inside the
lock. Nothing may fail inside: an exception there is SIGKILL to oneself, and the supervisor repairs by the
journal (`supervisor/crash_repair.py`). The fault points below and those of the journal name each window;
every one has a test that dies in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shmq.base import faults
from shmq.base.clock import now_ms
from shmq.base.errors import MessageIllegal, QueueGone, ServiceNotAvailable, ShmqError
from shmq.model.record import BLANK_BYTES_MIN
from shmq.model.unit import UNIT_BYTES
from shmq.shm.append_journal import AppendJournal
from shmq.shm.append_lock import AppendLock, die
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.counters import SlotCounters
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import (
    APPEND_RINGS,
    JOURNAL_ENTRIES_MAX,
    LAST_STORE_TIME,
    SEGMENT_ERROR,
    SEGMENT_RINGS,
    WRITE_POSITION,
    ZEROED_POSITION,
)
from shmq.shm.queue_table import QueueRef, QueueTable, ring_block
from shmq.shm.rings import park, ring_parked, unpark
from shmq.shm.worker_slots import FLUSHER_SLOT
from shmq.store.append_request import AppendOutcome, AppendRequest
from shmq.store.commit_log import CommitLog, write_blank, write_bytes
from shmq.store.consume_queue import make_room
from shmq.store.consume_queues import ConsumeQueues
from shmq.store.mapped_file import MappedFile

CLAIM_BYTES_MAX = 4 << 20
"""Record bytes of one claim, unless a single request has more: bounds how long the lock is held."""

faults.declare(
    {
        "append.planned": "lock held, journal EMPTY, nothing written",
        "append.half_filled": "journal PREPARED, the first request's records written, no unit",
        "append.bytes_written": "journal PREPARED, all records and BLANKs written, no unit",
        "append.units_written": "journal PREPARED, records and units written",
    }
)


@dataclass(slots=True)
class _Placed:
    """Where one request of a claim goes."""

    request: AppendRequest
    queue_offset: int
    physical_offset: int
    segment: MappedFile


@dataclass(slots=True)
class _Plan:
    """What one claim will do. `blanks` are (segment, file position)."""

    start: int
    end: int
    placed: list[_Placed] = field(default_factory=list)
    blanks: list[tuple[MappedFile, int]] = field(default_factory=list)
    maxima: dict[int, tuple[QueueRef, int, int]] = field(default_factory=dict)
    out_of_log: bool = False


class Appender:
    """Appends for one process."""

    def __init__(
        self,
        page: ControlPage,
        slot: int,
        lock: AppendLock,
        log: CommitLog,
        queues: ConsumeQueues,
        bells: Sequence[Doorbell],
        *,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        """`slot` is this process's appender slot, `lock` made for it; `log` and `queues` are writable."""
        self._page = page
        self._slot = slot
        self._lock = lock
        self._journal = AppendJournal(page)
        self._table = QueueTable(page)
        self._log = log
        self._queues = queues
        self._bells = bells
        self._clock_ms = clock_ms
        self._unit_files: dict[tuple[int, int], MappedFile] = {}
        self._segments: dict[int, MappedFile] = {}
        self._counters = SlotCounters(page, slot)
        self._parked = False

    def append(self, requests: Sequence[AppendRequest]) -> list[AppendOutcome | None]:
        """Append in order, in as many claims as it takes. Never waits for a disk.

        None for the requests that found no segment ready: this slot is then parked on SEGMENT_RINGS, call
        again with them when the bell rings. Requests of one queue are never appended in another order than
        given.
        """
        outcomes: list[AppendOutcome | None] = [None] * len(requests)
        waiting = [i for i, request in enumerate(requests) if self._admit(request, i, outcomes)]
        claims = 0
        was_parked, self._parked = self._parked, False
        while waiting:
            turn = self._make_ready(requests, waiting, outcomes)
            if not turn:
                break
            done, out_of_log = self._claim([requests[i] for i in turn])
            claims += 1
            for i, outcome in zip(turn, done, strict=False):
                outcomes[i] = outcome
            waiting = [i for i in waiting if outcomes[i] is None]
            if out_of_log and waiting:
                if self._parked:
                    break
                self._await_segment(waiting, outcomes)
                waiting = [i for i in waiting if outcomes[i] is None]
        if not waiting and (was_parked or self._parked):
            self._parked = False
            unpark(self._page, SEGMENT_RINGS, self._slot)
        if claims > 1:
            self._counters.add("append_turn_splits")
        return outcomes

    def _admit(self, request: AppendRequest, i: int, outcomes: list[AppendOutcome | None]) -> bool:
        """Refuse what can never be appended or not now; True when the request may go on."""
        error: ShmqError | None = None
        if self._page.state is not PageState.OK:
            error = ServiceNotAvailable(
                f"the store takes no messages: {self._page.state.name}; see the broker's log"
            )
        elif not self._table.alive(request.queue):
            error = QueueGone([request.queue.slot])
        elif len(request.data) + BLANK_BYTES_MIN > self._log.segment_bytes:
            error = MessageIllegal(
                f"{len(request.data)} bytes do not fit a CommitLog segment of {self._log.segment_bytes}; "
                "send less at once, or set a larger mappedFileSizeCommitLog"
            )
        if error is not None:
            outcomes[i] = AppendOutcome(error)
        return error is None

    # ---- before the lock

    def _make_ready(
        self, requests: Sequence[AppendRequest], waiting: list[int], outcomes: list[AppendOutcome | None]
    ) -> list[int]:
        """Choose the next claim's requests (a prefix of `waiting`) and make room and maps for them."""
        counts: dict[QueueRef, int] = {}
        turn: list[int] = []
        size_sum = 0
        for i in waiting:
            request = requests[i]
            size_sum += len(request.data)
            full = len(counts) == JOURNAL_ENTRIES_MAX and request.queue not in counts
            if turn and (full or size_sum > CLAIM_BYTES_MAX):
                break
            counts[request.queue] = counts.get(request.queue, 0) + request.count
            turn.append(i)
        self._unit_files.clear()
        failed: dict[QueueRef, ShmqError] = {}
        for queue, count in counts.items():
            try:
                self._make_queue_ready(queue, count)
            except ShmqError as error:
                failed[queue] = error
        if failed:
            for i in waiting:
                if requests[i].queue in failed:
                    outcomes[i] = AppendOutcome(failed[requests[i].queue])
            waiting[:] = [i for i in waiting if outcomes[i] is None]
            turn = [i for i in turn if outcomes[i] is None]
        self._map_segments(size_sum)
        return turn

    def _make_queue_ready(self, queue: QueueRef, count: int) -> None:
        """Allocate and map what the queue's next `count` units need. ServiceNotAvailable on a full disk."""
        first = self._table.max(queue.slot)
        end = first + count
        if self._table.allocated(queue.slot) < end:
            room = make_room(self._queues.layout, queue.topic, queue.queue_id, first, end)
            self._table.set_allocated(queue.slot, room)
        offset = first
        while offset < end:
            file = self._queues.file(queue, offset)
            self._unit_files[queue.slot, file.start] = file
            offset = self._queues.next_file(offset)

    def _map_segments(self, size_sum: int) -> None:
        """Map the segments a claim of `size_sum` bytes may reach, as far as they are ready."""
        words = self._page.words
        position, ready, step = words[WRITE_POSITION], words[ZEROED_POSITION], self._log.segment_bytes
        start = position - position % step
        self._segments = {
            s: self._log.segment(s) for s in range(start, min(ready, position + 2 * size_sum + step), step)
        }

    def _await_segment(self, waiting: list[int], outcomes: list[AppendOutcome | None]) -> None:
        """The log has no room: fail the rest when the disk refuses, else park and wake the allocator.

        The caller tries once more: the segment may have come between the claim and the park.
        """
        number = self._page.words[SEGMENT_ERROR]
        if number:
            error = ServiceNotAvailable(
                f"no disk space for a CommitLog segment: {os.strerror(number)}; free some, then send again"
            )
            for i in waiting:
                outcomes[i] = AppendOutcome(error)
            return
        self._counters.add("append_waits_segment")
        self._parked = True
        park(self._page, SEGMENT_RINGS, self._slot)
        self._bells[FLUSHER_SLOT].ring()

    # ---- under the lock

    def _claim(self, requests: list[AppendRequest]) -> tuple[list[AppendOutcome | None], bool]:
        """Append as many of `requests` as can be, from the front; say whether the log's end stopped it."""
        gone: list[int] = []
        self._lock.acquire()
        try:
            store_time = max(self._page.words[LAST_STORE_TIME], self._clock_ms())
            plan = self._plan(requests)
            faults.reach("append.planned")
            if plan.end > plan.start:
                gone = self._prepare(plan, store_time)
                if not gone:
                    self._fill(plan, store_time)
                    self._journal.committed()
                    self._journal.publish()
            self._lock.release(None if gone else lambda: self._ring(plan))
        except BaseException as error:
            die(f"{type(error).__name__}: {error}")
        if gone:
            self._counters.add("queues_gone", len(gone))
            return [
                AppendOutcome(QueueGone([r.queue.slot])) if r.queue.slot in gone else None for r in requests
            ], False
        self._count(plan)
        return [
            AppendOutcome(
                None, p.queue_offset, p.physical_offset, p.physical_offset + len(p.request.data), store_time
            )
            for p in plan.placed
        ], plan.out_of_log

    def _count(self, plan: _Plan) -> None:
        """Count a published claim; a BLANK alone carries no messages."""
        add = self._counters.add
        add("append_claims")
        add("sends", sum([len(p.request.sizes) for p in plan.placed]))
        add("send_bytes", sum([len(p.request.data) for p in plan.placed]))

    def _ring(self, plan: _Plan) -> None:
        """Wake who is parked on the queues of a published claim or on the log's end."""
        for slot in plan.maxima:
            ring_parked(self._page, ring_block(slot), self._bells)
        ring_parked(self._page, APPEND_RINGS, self._bells)

    def _plan(self, requests: list[AppendRequest]) -> _Plan:
        """Decide where each request goes, up to the first that has no room yet."""
        words, step = self._page.words, self._log.segment_bytes
        position, ready = words[WRITE_POSITION], words[ZEROED_POSITION]
        plan = _Plan(position, position)
        for request in requests:
            size = len(request.data)
            segment_end = position - position % step + step
            blank = position + size + BLANK_BYTES_MIN > segment_end
            if blank:
                if segment_end > ready or segment_end - step not in self._segments:
                    plan.out_of_log = segment_end > ready
                    break
                plan.blanks.append((self._segments[segment_end - step], position % step))
                position = plan.end = segment_end
            if position + size > ready:
                plan.out_of_log = True
                break
            segment = self._segments.get(position - position % step)
            if segment is None or not self._place(plan, request, position, segment):
                break
            position = plan.end = position + size
        return plan

    def _place(self, plan: _Plan, request: AppendRequest, position: int, segment: MappedFile) -> bool:
        """Give the request its queue offsets.

        False when its units have no room or map (somebody was faster).
        """
        slot = request.queue.slot
        _, old_max, first = plan.maxima.get(slot) or (request.queue, *(self._table.max(slot),) * 2)
        end = first + request.count
        if end > self._table.allocated(slot):
            return False
        offset = first
        while offset < end:
            position_in_stream = offset * UNIT_BYTES
            if (
                slot,
                position_in_stream - position_in_stream % self._queues.layout.queue_file_bytes,
            ) not in self._unit_files:
                return False
            offset = self._queues.next_file(offset)
        plan.maxima[slot] = (request.queue, old_max, end)
        plan.placed.append(_Placed(request, first, position, segment))
        return True

    def _prepare(self, plan: _Plan, store_time: int) -> list[int]:
        """Write the journal.

        Return the slots of queues that were deleted meanwhile, when nothing was prepared.
        """
        entries = [(slot, queue.generation, old, new) for slot, (queue, old, new) in plan.maxima.items()]
        try:
            self._journal.prepare(plan.start, plan.end, store_time, entries, [])
        except QueueGone as error:
            return error.slots
        return []

    def _fill(self, plan: _Plan, store_time: int) -> None:
        """Bring the bytes into the files: records, BLANKs, then units."""
        units: list[bytes] = []
        for p in plan.placed:
            units.append(p.request.stamp(p.queue_offset, p.physical_offset, store_time))
            write_bytes(p.segment, p.physical_offset - p.segment.start, p.request.data)
            faults.reach("append.half_filled")
        for segment, position in plan.blanks:
            write_blank(segment, position)
        faults.reach("append.bytes_written")
        for p, packed in zip(plan.placed, units, strict=True):
            self._write_units(p.request.queue.slot, p.queue_offset, packed)
        faults.reach("append.units_written")

    def _write_units(self, slot: int, first: int, packed: bytes) -> None:
        """Copy units into their file, or files where one ends in between."""
        size = self._queues.layout.queue_file_bytes
        position, done = first * UNIT_BYTES, 0
        while done < len(packed):
            file = self._unit_files[slot, position - position % size]
            at = position - file.start
            piece = packed[done : done + size - at]
            file.map[at : at + len(piece)] = piece
            position += len(piece)
            done += len(piece)
