"""The append claim: how a turn's sends become records, units and published positions, in one critical
section.

    before the lock   requests checked; disk blocks and maps made, when the last claim found them missing
    AppendLock        plan       where each request goes: pure arithmetic, nothing stored
                      PREPARED   the journal says what is about to be overwritten
                      fill       stamps, record bytes, BLANK at a segment's end, units
                      COMMITTED  from here on a death is carried out by repair, before it is undone
                      publish    write_position, then queue maxima
                      EMPTY
    after it          ring who is parked on the queues and on the log's end

Run by every process with an appender slot, one thread each. No file is made and no disk waited for inside the
lock. Nothing may fail inside: an exception there is SIGKILL to oneself, and the supervisor repairs by the
journal (`supervisor/crash_repair.py`). The fault points below and those of the journal name each window;
every one has a test that dies in it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Sequence

from shmq.base import faults
from shmq.base.clock import now_ms
from shmq.base.errors import MessageIllegal, QueueGone, ServiceNotAvailable, ShmqError
from shmq.model.record import BLANK_BYTES_MIN
from shmq.shm.append_journal import AppendJournal, Entry, Pair
from shmq.shm.append_lock import AppendLock, die
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.counters import SlotCounters
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import (
    APPEND_RINGS,
    DISK_FULL,
    JOURNAL_ENTRIES_MAX,
    JOURNAL_PAIRS_MAX,
    LAST_STORE_TIME,
    SEGMENT_ERROR,
    SEGMENT_RINGS,
    STATE,
    WRITE_POSITION,
    ZEROED_POSITION,
)
from shmq.shm.queue_table import QueueTable, ring_block
from shmq.shm.rings import park, ring_parked, unpark
from shmq.shm.worker_slots import FLUSHER_SLOT
from shmq.store.append_maps import AppendMaps
from shmq.store.append_request import AppendOutcome, AppendRequest
from shmq.store.claim_plan import ClaimPlan, Placed, Stop, plan_claim
from shmq.store.commit_log import CommitLog, write_blank, write_bytes
from shmq.store.consume_queues import ConsumeQueues
from shmq.store.sent_before import SentBefore

CLAIM_BYTES_MAX = 4 << 20
"""Record bytes of one claim, unless a single request has more: bounds how long the lock is held."""

faults.declare(
    {
        "claim.planned": "lock held, journal EMPTY, nothing written",
        "claim.half_filled": "journal PREPARED, one request's records written, others perhaps not, no unit",
        "claim.blank_written": "journal PREPARED, records in both segments and the BLANK between, no unit",
        "claim.bytes_written": "journal PREPARED, all records and BLANKs written, no unit",
        "claim.unit_written": "journal PREPARED, all records and one request's units written",
        "claim.units_written": "journal PREPARED, records and units written",
    }
)

_OK = int(PageState.OK)

_WHY_NOT = {
    PageState.RECOVERING: "the store is being recovered: send again",
    PageState.FLUSH_FAILED: "the broker's disk failed in fdatasync: no message is taken any more, what the "
    "disk has can be read. Restart the broker: it writes again what is only in memory",
    PageState.READ_ONLY: "the broker's disk failed and cannot be written: what it has can be read, no "
    "message is taken. Mend or replace the disk, then restart the broker",
    PageState.RETIRED: "the broker is stopping or was started again: send again",
}
"""Why a page that is not OK takes no message."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


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
        self._words = page.words
        self._slot = slot
        self._lock = lock
        self._journal = AppendJournal(page)
        self._table = QueueTable(page)
        self._segment_bytes = log.segment_bytes
        self._maps = AppendMaps(page, self._table, log, queues)
        self._sent_before = SentBefore(page, log)
        self._bells = bells
        self._clock_ms = clock_ms
        self._counters = SlotCounters(page, slot)
        self._append_claims = self._counters.word("append_claims")
        self._sends = self._counters.word("sends")
        self._send_bytes = self._counters.word("send_bytes")
        self._parked = False
        self._unrung: int | None = None

    def append(
        self, requests: Sequence[AppendRequest], *, rings_flusher: bool = True
    ) -> list[AppendOutcome | None]:
        """Append in order, in as many claims as it takes. Never waits for a disk.

        None for the requests that found no segment ready: this slot is then parked on SEGMENT_RINGS, call
        again with them when the bell rings. Requests of one queue are never appended in another order than
        given. Requests tied by `with_next` have one fate: where one is refused, all are. What an idempotent
        producer has sent before is not appended again: its outcome is the first one's.

        Without `rings_flusher` the caller sees to it that the log is flushed, whatever comes of this.
        """
        self._unrung = None if rings_flusher else FLUSHER_SLOT
        outcomes: list[AppendOutcome | None] = []
        waiting: list[int] = []
        tied = False
        for place, request in enumerate(requests):
            refusal = self._refusal(request)
            outcomes.append(refusal)
            if refusal is None:
                waiting.append(place)
            tied = tied or request.with_next
        if tied:
            _share_refusals(requests, outcomes)
            waiting = _open_places(waiting, outcomes)
        claims = 0
        tried_parked = False
        while waiting:
            turn = waiting if len(waiting) == 1 else self._next_turn(requests, waiting)
            done, stop = self._claim(_chosen(requests, turn))
            claims += bool(done)
            for i, outcome in zip(turn, done, strict=False):
                outcomes[i] = outcome
            if stop is Stop.NOT_READY:
                self._make_ready(requests, turn, outcomes)
            elif stop is Stop.END_OF_LOG:
                if tried_parked:
                    break
                self._await_segment(waiting, outcomes)
                tried_parked = True
            if tied:
                _share_refusals(requests, outcomes)
            waiting = _open_places(waiting, outcomes)
        if self._parked and not waiting:
            self._parked = False
            unpark(self._page, SEGMENT_RINGS, self._slot)
        if claims > 1:
            self._counters.add("append_turn_splits")
        return outcomes

    def forget_segments(self) -> None:
        """Let go of the log's maps, as some files were deleted. The next claim has its own made again."""
        self._maps.segments.clear()

    def _refusal(self, request: AppendRequest) -> AppendOutcome | None:
        """Why this request can never be appended, or not now; None when it may be tried."""
        if self._words[STATE] != _OK:
            return AppendOutcome(ServiceNotAvailable(_WHY_NOT[self._page.state]))
        if percent := self._words[DISK_FULL]:
            self._counters.add("sends_disk_full")
            return AppendOutcome(
                ServiceNotAvailable(
                    f"the broker's disk is {percent} % full, above diskSpaceWarningLevelRatio: no message is "
                    "taken until there is room; free some, then send again"
                )
            )
        if len(request.data) + BLANK_BYTES_MIN > self._segment_bytes:
            return AppendOutcome(
                MessageIllegal(
                    f"{len(request.data)} bytes do not fit a CommitLog segment of {self._segment_bytes}; "
                    "send less at once, or set a larger mappedFileSizeCommitLog"
                )
            )
        return None

    # ---- before the lock

    @staticmethod
    def _next_turn(requests: Sequence[AppendRequest], waiting: list[int]) -> list[int]:
        """The longest prefix of `waiting` that fits one claim's journal and size."""
        slots: set[int] = set()
        words: set[int] = set()
        size_sum = sequences = 0
        for n, i in enumerate(waiting):
            request = requests[i]
            slots.add(request.queue.slot)
            size_sum += len(request.data)
            words.update(pair[0] for pair in (request.word, request.second_word) if pair is not None)
            sequences += request.sequence is not None
            full = len(slots) > JOURNAL_ENTRIES_MAX or len(words) + sequences > JOURNAL_PAIRS_MAX
            if n and (full or size_sum > CLAIM_BYTES_MAX):
                while n and requests[waiting[n - 1]].with_next:
                    n -= 1
                if n:
                    return waiting[:n]
        return waiting

    def _make_ready(
        self, requests: Sequence[AppendRequest], turn: list[int], outcomes: list[AppendOutcome | None]
    ) -> None:
        """Get the maps and disk blocks that the rest of a turn needs.

        Fail the requests that can have none.
        """
        rest = [i for i in turn if outcomes[i] is None]
        failed = self._maps.make_ready([requests[i] for i in rest])
        for i in rest:
            error = failed.get(requests[i].queue)
            if error is not None:
                outcomes[i] = AppendOutcome(error)

    def _await_segment(self, waiting: list[int], outcomes: list[AppendOutcome | None]) -> None:
        """The log has no room: fail the rest when the disk refuses, else park and wake the allocator.

        The caller tries once more: the segment may have come between the claim and the park.
        """
        number = self._words[SEGMENT_ERROR]
        if number:
            what = "no disk space for a CommitLog segment" if number in _NO_SPACE else "no CommitLog segment"
            advice = (
                "free some, then send again" if number in _NO_SPACE else "see the broker's log and its disk"
            )
            error: ShmqError = ServiceNotAvailable(f"{what}: {os.strerror(number)}; {advice}")
            for i in waiting:
                if outcomes[i] is None:
                    outcomes[i] = AppendOutcome(error)
            return
        self._counters.add("append_waits_segment")
        self._parked = True
        park(self._page, SEGMENT_RINGS, self._slot)
        self._bells[FLUSHER_SLOT].ring()

    # ---- under the lock

    def _claim(self, requests: Sequence[AppendRequest]) -> tuple[list[AppendOutcome | None], Stop]:
        """Append as many of `requests` as can be, from the front; say what stopped it.

        A turn of one request runs this once per message, and most of it only here: so a loop over one
        element must cost little, and what is rare has functions of its own.
        """
        words = self._words
        has_sequences = False
        for request in requests:
            if request.sequence is not None:
                has_sequences = True
        self._lock.acquire()
        try:
            store_time = max(words[LAST_STORE_TIME], self._clock_ms())
            known = self._sent_before.judge(requests) if has_sequences else {}
            plan = plan_claim(
                _without(requests, known) if known else requests,
                words[WRITE_POSITION],
                words[ZEROED_POSITION],
                self._segment_bytes,
                self._table,
                self._maps,
            )
            faults.reach("claim.planned")
            gone = self._carry_out(plan, store_time, has_sequences) if plan.end > plan.start else ()
            if gone:
                self._lock.release()
            else:
                self._lock.release(lambda: self._ring(plan))
        except BaseException as error:
            die(f"{type(error).__name__}: {error}")
        if gone:
            self._counters.add("queues_gone", len(gone))
            return _refuse_gone(requests, gone), Stop.DONE
        done: list[AppendOutcome | None] = []
        messages = size_sum = 0
        for request, queue_offset, physical_offset, _ in plan.placed:
            size = len(request.data)
            done.append(
                AppendOutcome(None, queue_offset, physical_offset, physical_offset + size, store_time)
            )
            messages += len(request.sizes)
            size_sum += size
        if done:  # a BLANK alone carries no messages
            words[self._append_claims] += 1
            words[self._sends] += messages
            words[self._send_bytes] += size_sum
        if known:
            done = self._with_known(requests, known, done)
        return done, plan.stop

    def _with_known(
        self,
        requests: Sequence[AppendRequest],
        known: dict[int, int],
        done: list[AppendOutcome | None],
    ) -> list[AppendOutcome | None]:
        """Complete a claim's outcomes by those of the requests that were sent before."""
        self._counters.add("sends_known", len(known))
        appended = iter(done)
        return [
            self._sent_before.outcome(request, known[i]) if i in known else next(appended, None)
            for i, request in enumerate(requests)
        ]

    def _carry_out(self, plan: ClaimPlan, store_time: int, has_sequences: bool) -> Sequence[int]:
        """Journal, bytes, publish. Returns the slots of queues that were deleted meanwhile.

        Nothing is written then.
        """
        entries: list[Entry] = []
        for slot, (queue, old, new) in plan.maxima.items():
            entries.append((slot, queue.generation, old, new))
        placed = plan.placed
        try:
            self._journal.prepare(plan.start, plan.end, store_time, entries, self._words_of(placed))
        except QueueGone as error:
            return error.slots
        units: list[bytes] = []
        for request, queue_offset, physical_offset, segment in placed:
            units.append(request.stamp(queue_offset, physical_offset, store_time))
            write_bytes(segment, physical_offset - segment.start, request.data)
            faults.reach("claim.half_filled")
        for segment, position in plan.blanks:
            write_blank(segment, position)
            faults.reach("claim.blank_written")
        faults.reach("claim.bytes_written")
        for place, packed in enumerate(units):
            request, queue_offset, _, _ = placed[place]
            self._maps.store_units(request.queue, queue_offset, packed)
            faults.reach("claim.unit_written")
        faults.reach("claim.units_written")
        self._journal.committed()
        self._journal.publish()
        if has_sequences:
            self._sent_before.note(placed, store_time)
        return ()

    def _words_of(self, placed: Sequence[Placed]) -> Sequence[Pair]:
        """The words that the placed requests move along with their queues; the last value of each counts."""
        for p in placed:
            request = p.request
            if request.word or request.second_word or request.sequence is not None:
                break
        else:
            return ()
        pairs = dict(p.request.word for p in placed if p.request.word)
        pairs.update(p.request.second_word for p in placed if p.request.second_word)
        pairs.update(pair for p in placed if (pair := self._sent_before.pair(p)))
        return list(pairs.items())

    def _ring(self, plan: ClaimPlan) -> None:
        """Wake who is parked on the queues of a published claim or on the log's end."""
        for slot in plan.maxima:
            ring_parked(self._page, ring_block(slot), self._bells)
        ring_parked(self._page, APPEND_RINGS, self._bells, self._unrung)


def _open_places(places: list[int], outcomes: list[AppendOutcome | None]) -> list[int]:
    """Return those of `places` that have no outcome yet."""
    return [i for i in places if outcomes[i] is None]


def _chosen(requests: Sequence[AppendRequest], places: list[int]) -> Sequence[AppendRequest]:
    """Return the requests at `places`, which rise."""
    return requests if len(places) == len(requests) else [requests[i] for i in places]


def _without(requests: Sequence[AppendRequest], places: Container[int]) -> list[AppendRequest]:
    """Return the requests but for those at `places`."""
    return [request for i, request in enumerate(requests) if i not in places]


def _refuse_gone(requests: Sequence[AppendRequest], slots: Sequence[int]) -> list[AppendOutcome | None]:
    """Refuse the requests whose queues were deleted; the others are tried again."""
    return [AppendOutcome(QueueGone([r.queue.slot])) if r.queue.slot in slots else None for r in requests]


def _share_refusals(requests: Sequence[AppendRequest], outcomes: list[AppendOutcome | None]) -> None:
    """Refuse what is tied to a refused request."""
    begin = 0
    for last, request in enumerate(requests):
        if request.with_next:
            continue
        group = range(begin, last + 1)
        begin = last + 1
        refusals = [found for i in group if (found := outcomes[i]) is not None and found.error is not None]
        for i in group if refusals else ():
            outcomes[i] = outcomes[i] or refusals[0]
