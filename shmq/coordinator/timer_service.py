"""Delivers messages for any moment when it has come (Apache RocketMQ 5.3, TimerMessageStore.java).

    take in   rmq_sys_wheel_timer, record by record, into the wheel (`broker/waiting_timers.py`); what is
              overdue by then, behind what was delivered last, goes to its topic at once
    fire      the earliest timers, in the order in which they are due: to their own topics, in the claim that
              moves the cursor (`broker/timer_cursors.py`): each is in the log once, whoever dies.
              After power loss the cursors are some seconds old: what may be delivered is looked up by key
    rest      cursors to their file; the kept cursor past what is over; old timer log segments away

An append to the timers' queue rings this process's bell. Nothing is delivered before everything that was in
the queue at the start is in the wheel, so a cancellation cannot come after its message. What is not
deliverable (topic deleted, record gone) is passed over, counted and logged. Times are the wall clock's: set
forward, timers are due at once; set back, they wait for their moment, and those delivered stay delivered.

Runs in the coordinator's duty cycle; waits for the disk only to export the cursors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from shmq.base import faults, log
from shmq.base.clock import Clock
from shmq.base.errors import MessageIllegal, SystemBusy, Unavailable
from shmq.broker.queues import Queues
from shmq.broker.timer_cursors import TimerCursors
from shmq.broker.waiting_timers import Timer, WaitingTimers
from shmq.coordinator.timer_delivery import REFUSED_MS, RETRY_MS, TimerDelivery, Words
from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.names import TIMER_TOPIC
from shmq.model.properties import TIMER_DEL_UNIQKEY, decode_properties
from shmq.model.record import properties_of
from shmq.model.settings import BrokerSettings
from shmq.model.timer import WaitingTimer, waiting_timer
from shmq.shm.queue_table import QueueRef, ring_block
from shmq.shm.rings import park, unpark
from shmq.shm.worker_slots import COORDINATOR_SLOT
from shmq.store.consume_queue import FILLER_SIZE
from shmq.store.message_store import MessageStore

LOOK_MS = 1000
"""Pause while no timer is near."""
TAKE_MS = 4
"""Pause while timers keep coming: they are taken in together, and nobody has to ring."""
BUSY_MS = 1
"""Pause when there is more to do than one step does."""
REST_MS = 1000
"""Cursors are exported, and kept ones passed, so often."""
TAKE_MAX = 256
"""Timers taken in per step: a few milliseconds."""
CLAIM_MAX = 64
"""Timers delivered in one claim."""
FIRE_MAX = 256
"""Timers delivered per step: then the coordinator's other work gets its turn."""
PASS_MAX = 2048
"""Timers passed by the kept cursor at a time."""

faults.declare({"timer.taken": "timers are in the wheel, the cursor does not say so"})

_logger = log.get(__name__)
_Entry = tuple[Timer, WaitingTimer, int]


class TimerService:
    """All messages for a moment of this broker."""

    def __init__(
        self,
        store: MessageStore,
        queues: Queues,
        cursors: TimerCursors,
        settings: BrokerSettings,
        clock: Clock,
        count: Callable[[str, int], None],
    ) -> None:
        """Nothing is read before the first step."""
        self._store = store
        self._queues = queues
        self._cursors = cursors
        self._clock = clock
        self._waiting = WaitingTimers(
            store.layout.timer_wheel,
            store.layout.timer_log,
            settings.mapped_file_size_timer_log,
            settings.timer_roll_window_slot,
            cursors,
            self._describe,
        )
        self._delivery = TimerDelivery(store, queues, self._waiting, count)
        self._has_index = settings.message_index_enable
        self._is_open = False
        self._next = 0
        self._placed = 0
        self._fill_end = 0
        self._fire_from = 0
        self._ahead = 0
        self._is_stalled = False
        """The clock was set back twice: what comes next has to wait."""
        self._kept_at = 0
        self._taken_at = 0
        self._rest_at = 0

    # -- the duty cycle --

    def step(self, now_ms: int) -> int:
        """Take in what came, deliver what is due."""
        queue = self._queues.ref(TIMER_TOPIC, 0)
        if queue is None:
            return now_ms + LOOK_MS
        if not self._is_open:
            self._open(queue)
        wall_ms = self._clock.now_ms()
        self._waiting.follow_clock(wall_ms)
        before = self._next
        try:
            free = self._take_in(queue, wall_ms)
            is_filled = self._next >= self._fire_from and self._delivery.is_sure()
            left_ms = self._fire(wall_ms) if free and is_filled else RETRY_MS
        except OSError as error:
            log.event(_logger, logging.WARNING, "timers_wait", reason=error)
            return now_ms + REFUSED_MS
        if not free:
            return now_ms + self._delivery.retry_ms
        if now_ms >= self._rest_at:
            self._rest_at = now_ms + REST_MS
            self._rest(queue)
        return now_ms + min(left_ms, self._listen(queue, self._next != before))

    def _listen(self, queue: QueueRef, busy: bool) -> int:
        """How long until the next look at the queue. Without news this process is rung by the next append."""
        block = ring_block(queue.slot)
        if busy:
            unpark(self._store.page, block, COORDINATOR_SLOT)
        else:
            park(self._store.page, block, COORDINATOR_SLOT)
        if busy:
            return BUSY_MS if self._store.max(queue) - self._next > TAKE_MAX else TAKE_MS
        if self._store.max(queue) > self._next:
            return RETRY_MS if self._is_stalled else BUSY_MS
        return TAKE_MS if self._store.table.max(queue.slot) > self._next else LOOK_MS

    def _open(self, queue: QueueRef) -> None:
        """Find out where to go on: the wheel is used as it is, or made again from the kept cursor on."""
        cursors = self._cursors
        is_new_page = cursors.open()
        if is_new_page and self._has_index:
            self._delivery.doubt()
        low, high = self._store.min(queue), self._store.max(queue)
        cursors.taken = min(max(cursors.taken, low), high)
        cursors.kept = min(max(cursors.kept, low), cursors.taken)
        self._fill_end = cursors.taken
        self._fire_from = high
        self._next = cursors.taken
        if cursors.kept < cursors.taken and (is_new_page or not self._waiting.open_kept()):
            self._next = cursors.kept
            self._waiting.is_filling = True
            log.event(
                _logger,
                logging.INFO,
                "timer_wheel_is_made_again",
                first=cursors.kept,
                timers=high - cursors.kept,
            )
        self._kept_at = self._behind(queue, cursors.kept)
        self._taken_at = self._behind(queue, self._next)
        self._is_open = True

    def _rest(self, queue: QueueRef) -> None:
        if self._next >= self._fire_from:
            self._pass_kept(queue)
            self._waiting.drop_read()
            self._waiting.forget_cancels(self._taken_at)
        self._cursors.export()

    # -- for those who change what waits --

    def is_pending(self, due_ms: int, physical_offset: int) -> bool:
        """Whether a timer that is not cancelled will still be delivered, and not at this moment."""
        if not self._is_open:
            raise SystemBusy("the timers are not read yet: try again")
        if due_ms <= self._clock.now_ms() or physical_offset < self._kept_at:
            return False
        return physical_offset >= self._taken_at or not self._cursors.is_over((due_ms, physical_offset))

    def cancel(self, due_ms: int, key: str, physical_offset: int) -> None:
        """A cancellation was appended there."""
        self._waiting.cancel(due_ms, key, physical_offset)

    def kept(self, queue: QueueRef) -> int:
        """The first queue offset that may still be waited for."""
        return max(self._cursors.kept, self._store.min(queue))

    @property
    def taken(self) -> int:
        """What is below this queue offset was taken in."""
        return self._cursors.taken if self._is_open else 0

    def behind_ms(self) -> int:
        """By how much the earliest timer is late."""
        due_ms, now_ms = self._waiting.frontier[0], self._clock.now_ms()
        return now_ms - due_ms if 0 < due_ms < now_ms else 0

    def is_over(self, due_ms: int, physical_offset: int) -> bool:
        """Whether a timer that was taken in has been delivered, or passed over."""
        due = (due_ms, physical_offset)
        return due < self._waiting.frontier or self._cursors.is_over(due)

    # -- reading --

    def _describe(self, physical_offset: int) -> tuple[WaitingTimer, str] | None:
        """What the record of a timer says; and the key of what it cancels."""
        record = self._store.record_at(physical_offset)
        return None if record is None else self._describe_record(record)

    @staticmethod
    def _describe_record(record: memoryview) -> tuple[WaitingTimer, str] | None:
        try:
            properties = bytes(properties_of(record))
        except MessageIllegal:
            return None
        described = waiting_timer(properties)
        if described is None:
            return None
        key = decode_properties(properties).get(TIMER_DEL_UNIQKEY, "") if described.cancels else ""
        return described, key

    def _read(self, queue: QueueRef, queue_offset: int) -> _Entry | None:
        """One entry of the timers' queue; None when it is gone, or makes no sense. Unavailable: not yet."""
        try:
            unit = self._store.queues.unit(queue, queue_offset)
        except FileNotFoundError:
            return None
        is_gone = unit.size == FILLER_SIZE or unit.tags_code == DAMAGED_TAGS_CODE
        record = None if is_gone else self._store.message_at(queue, queue_offset, unit.physical_offset)
        described = None if record is None else self._describe_record(record)
        if described is None:
            return None
        timer = described[0]
        return Timer((timer.due_ms, unit.physical_offset), timer.cancels), timer, unit.size

    def _behind(self, queue: QueueRef, queue_offset: int) -> int:
        """A physical offset behind every entry below a queue offset, as far as they are there."""
        if queue_offset <= self._store.min(queue):
            return 0
        try:
            unit = self._store.queues.unit(queue, queue_offset - 1)
        except FileNotFoundError:
            return 0
        return 0 if unit.size == FILLER_SIZE else unit.physical_offset + unit.size

    # -- taking in --

    def _take_in(self, queue: QueueRef, wall_ms: int) -> bool:
        """Take in a turn's timers; False when the log or the disk has no room."""
        cursors = self._cursors
        high = self._store.max(queue)
        end = min(high, self._next + TAKE_MAX)
        self._is_stalled = False
        rows: list[_Entry] = []
        late: list[tuple[Timer, Words]] = []
        offset = self._next
        while offset < end and len(late) < CLAIM_MAX:
            try:
                entry = self._read(queue, offset)
            except Unavailable:
                self._is_stalled = True
                break
            if entry is not None and offset < self._fill_end:
                if not cursors.is_over(entry[0].due):
                    rows.append(entry)
            elif entry is not None and entry[0].due > cursors.fired:
                rows.append(entry)
            elif entry is not None and entry[0].ms <= wall_ms:
                if not entry[0].cancels:
                    late.append((entry[0], (cursors.takes(offset + 1),)))
            elif entry is not None:  # not due yet, and before what was delivered: the clock was set back
                if not cursors.can_set_back():
                    self._is_stalled = True
                    break
                cursors.set_back(wall_ms, entry[0].physical_offset)
                rows.append(entry)
            if entry is not None:
                self._taken_at = entry[0].physical_offset + entry[2]
            offset += 1
        if offset > self._placed:
            self._waiting.add(rows, wall_ms)
            self._placed = offset
        if rows:
            faults.reach("timer.taken")
        if late and not (self._delivery.is_sure() and self._see_cancels(queue, high)):
            return False
        if self._delivery.deliver(late) < len(late):
            return False
        self._next = offset
        if offset > cursors.taken:
            cursors.taken = offset
        return True

    def _see_cancels(self, queue: QueueRef, high: int) -> bool:
        """Look ahead for cancellations before anything overdue is delivered; False while there is more."""
        offset = max(self._next, self._ahead)
        self._ahead = min(high, offset + PASS_MAX)
        for ahead in range(offset, self._ahead):
            try:
                entry = self._read(queue, ahead)
            except Unavailable:
                self._ahead = ahead
                return False
            if entry is not None and entry[0].cancels:
                described = self._describe(entry[0].physical_offset)
                if described is not None:
                    self._waiting.cancel(entry[0].ms, described[1], entry[0].physical_offset)
        return self._ahead == high

    # -- delivering --

    def _fire(self, wall_ms: int) -> int:
        """Deliver what is due, a step's worth; return in how many ms to look again."""
        waiting, cursors = self._waiting, self._cursors
        for _ in range(0, FIRE_MAX, CLAIM_MAX):
            batch: list[tuple[Timer, Words]] = []
            head = waiting.peek(wall_ms)
            while head is not None and head.ms <= wall_ms and len(batch) < CLAIM_MAX:
                waiting.pop()
                is_twice = bool(batch) and batch[-1][0].due == head.due
                if not (head.physical_offset < self._kept_at or is_twice or cursors.is_over(head.due)):
                    batch.append((head, cursors.fires(head.due)))
                head = waiting.peek(wall_ms)
            done = self._delivery.deliver(batch)
            if done < len(batch):
                waiting.push_back([timer for timer, _ in batch[done:]])
                return self._delivery.retry_ms
            if head is None or head.ms > wall_ms:
                if waiting.is_reading:
                    return BUSY_MS
                return LOOK_MS if head is None else head.ms - wall_ms
        return BUSY_MS

    # -- what is over --

    def _pass_kept(self, queue: QueueRef) -> None:
        """Move the kept cursor past timers that are over."""
        cursors, frontier = self._cursors, self._waiting.frontier
        offset = cursors.kept
        end = min(cursors.taken, offset + PASS_MAX)
        while offset < end:
            try:
                entry = self._read(queue, offset)
            except Unavailable:  # it is mended, or marked, before the next look
                break
            if entry is not None and entry[0].due >= frontier and not cursors.is_over(entry[0].due):
                break
            offset += 1
        self.pass_to(queue, offset)

    def pass_to(self, queue: QueueRef, queue_offset: int) -> None:
        """Nothing below a queue offset is waited for any more."""
        if queue_offset > self._cursors.kept:
            self._cursors.kept = queue_offset
        self._kept_at = max(self._kept_at, self._behind(queue, queue_offset))

    def export(self) -> bool:
        """Write the cursors; True when the file says what the page says."""
        return not self._is_open or self._cursors.export()

    def close(self) -> None:
        """Close the wheel's files."""
        self._waiting.close()
