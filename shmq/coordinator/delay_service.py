"""Delivers delayed messages when their time has come (Apache RocketMQ 5.3, ScheduleMessageService.java).

A level's queue is in order of delivery, so only its first message is looked at; the service sleeps until the
earliest of all levels, and looks at least twice a second, which is sooner than the shortest level. A message
is appended to its own topic in the claim that moves the level's cursor: it is in the log once, whoever dies.

What is not deliverable is passed over, counted and logged: a record that is gone or makes no sense, a topic
that was deleted. A full disk or a missing segment is waited for. Times are the wall clock's, as stored; when
that was set back, a level's first message waits its whole delay again, by the monotonic clock.

Runs in the coordinator's duty cycle; never waits but for the export of the cursors.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import NamedTuple

from shmq.base import faults, log
from shmq.base.clock import Clock
from shmq.base.errors import MessageIllegal, QueueGone, Unavailable
from shmq.broker.delay_cursors import DelayCursors
from shmq.broker.delayed_message import Delivery, delivery_of
from shmq.broker.queues import Queues
from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.names import SCHEDULE_TOPIC
from shmq.shm.append_journal import positions
from shmq.shm.queue_table import QueueRef
from shmq.store.append_request import AppendRequest
from shmq.store.consume_queue import FILLER_SIZE
from shmq.store.message_store import MessageStore

LOOK_MS = 1000
"""Pause while no message's time is near: the shortest delay."""
RETRY_MS = 50
"""Pause while there is no segment to append to."""
REFUSED_MS = 1000
"""Pause after the disk refused: it is full, or has failed."""
TURN_MAX = 64
"""Messages of one level per step: then the coordinator's other work gets its turn."""
BUSY_MS = 1
"""Pause when more is due than one step delivers."""

faults.declare({"delay.due": "a due message was read, nothing of it appended yet"})

_logger = log.get(__name__)


class _Due(NamedTuple):
    """One message to deliver, and where its level goes on behind it."""

    next_offset: int
    ref: QueueRef
    delivery: Delivery


class DelayService:
    """All delay levels of this broker."""

    def __init__(
        self,
        store: MessageStore,
        queues: Queues,
        cursors: DelayCursors,
        levels: list[int],
        export_ms: int,
        clock: Clock,
        count: Callable[[str, int], None],
    ) -> None:
        """`levels` are the delays in ms, level 1 first; the cursors are exported every `export_ms`."""
        self._store = store
        self._queues = queues
        self._cursors = cursors
        self._levels = levels
        self._export_ms = export_ms
        self._clock = clock
        self._count = count
        self._export_at = 0
        self._refusal = ""
        """Why the last delivery was refused, told once."""
        self._idle_at: tuple[int, int] | None = None
        """`positions` of the log before a look that found nothing waiting."""
        self._set_back: dict[int, tuple[int, int]] = {}
        """Level queues whose first message has a time too far ahead: (its offset, monotonic due time)."""

    def step(self, now_ms: int) -> int:
        """Deliver what is due in every level; nothing is, until the log moves, when none had a message."""
        due_ms = now_ms + LOOK_MS
        log_at = positions(self._store.page)
        if log_at is None or log_at != self._idle_at:
            refs = self._queues.refs(SCHEDULE_TOPIC)
            self._cursors.open(len(refs))
            due_ms = min([self._level(ref, now_ms) for ref in refs], default=due_ms)
            waits = any(self._cursors.at(ref.queue_id) < self._store.max(ref) for ref in refs)
            self._idle_at = None if waits else log_at
        if now_ms >= self._export_at:
            self._export_at = now_ms + self._export_ms
            self._cursors.export()
        return due_ms

    def lowest_needed(self) -> int | None:
        """The physical offset of the oldest message that still waits; None when none does."""
        lowest: int | None = None
        for ref in self._queues.refs(SCHEDULE_TOPIC):
            low, high = self._store.min(ref), self._store.max(ref)
            offset = max(low, self._cursors.at(ref.queue_id))
            with contextlib.suppress(FileNotFoundError):
                if offset < high:
                    physical = self._store.queues.unit(ref, offset).physical_offset
                    lowest = physical if lowest is None else min(lowest, physical)
        return lowest

    def _level(self, waiting: QueueRef, now_ms: int) -> int:
        """Deliver one level's due messages, at most a turn's worth; return when to look again."""
        queue_id = waiting.queue_id
        low, high = self._store.min(waiting), self._store.max(waiting)
        offset = self._cursors.at(queue_id)
        if not low <= offset <= high:
            offset = min(max(offset, low), high)
            self._cursors.skip_to(queue_id, offset)
        run: list[_Due] = []
        look_ms = now_ms + LOOK_MS
        end = min(high, offset + TURN_MAX)
        while offset < end:
            left_ms = self._left_ms(waiting, offset, now_ms)
            if left_ms > 0:
                look_ms = min(look_ms, now_ms + left_ms)
                break
            try:
                due = self._read(waiting, offset)
            except Unavailable:
                look_ms = now_ms + RETRY_MS
                break
            if due is not None and run and due.ref != run[0].ref:
                break  # a claim may fail for one queue: it must not be passed over by another's
            if due is not None:
                run.append(due)
            elif run:  # passed over with the message in front of it
                run[-1] = run[-1]._replace(next_offset=offset + 1)
            else:
                self._cursors.skip_to(queue_id, offset + 1)
            offset += 1
        if run:
            return self._deliver(queue_id, run, now_ms)
        return now_ms + BUSY_MS if offset == end < high else look_ms

    def _left_ms(self, waiting: QueueRef, offset: int, now_ms: int) -> int:
        """How long a message still has to wait."""
        try:
            unit = self._store.queues.unit(waiting, offset)
        except FileNotFoundError:
            return 0
        if unit.size == FILLER_SIZE or unit.tags_code == DAMAGED_TAGS_CODE:
            return 0
        left_ms = unit.tags_code - self._clock.now_ms()
        delay_ms = self._levels[min(waiting.queue_id, len(self._levels) - 1)]
        if left_ms <= delay_ms:
            return left_ms
        known = self._set_back.get(waiting.queue_id)
        if known is None or known[0] != offset:
            known = self._set_back[waiting.queue_id] = (offset, now_ms + delay_ms)
        return known[1] - now_ms

    def _read(self, waiting: QueueRef, offset: int) -> _Due | None:
        """Read one message and find its queue; None when it cannot be delivered. Unavailable: not yet."""
        why = "its record is gone or damaged"
        try:
            unit = self._store.queues.unit(waiting, offset)
            is_gone = unit.size == FILLER_SIZE or unit.tags_code == DAMAGED_TAGS_CODE
            record = None if is_gone else self._store.message_at(waiting, offset, unit.physical_offset)
            if record is not None:
                delivery = delivery_of(record)
                ref = self._queues.ref(delivery.topic, delivery.queue_id)
                if ref is not None:
                    return _Due(offset + 1, ref, delivery)
                why = f"queue {delivery.queue_id} of topic {delivery.topic} does not exist (any more)"
        except FileNotFoundError:
            pass
        except MessageIllegal as error:
            why = str(error)
        self._dropped(waiting.queue_id, offset, why)
        return None

    def _dropped(self, queue_id: int, offset: int, why: str) -> None:
        self._count("delayed_dropped", 1)
        log.event(
            _logger, logging.WARNING, "delayed_message_dropped", level=queue_id + 1, offset=offset, reason=why
        )

    def _deliver(self, queue_id: int, run: list[_Due], now_ms: int) -> int:
        """Append messages of one queue; the cursor moves with each. Return when to go on."""
        faults.reach("delay.due")
        word = self._cursors.word(queue_id)
        requests = [
            AppendRequest(
                due.ref,
                due.delivery.record,
                (len(due.delivery.record),),
                (due.delivery.tags_code,),
                word=(word, due.next_offset),
            )
            for due in run
        ]
        outcomes = self._store.append(requests)
        done = 0
        for due, outcome in zip(run, outcomes, strict=True):
            if outcome is None:
                break
            if isinstance(outcome.error, (QueueGone, MessageIllegal)):
                self._dropped(queue_id, due.next_offset - 1, str(outcome.error))
                self._cursors.skip_to(queue_id, due.next_offset)
            elif outcome.error is not None:
                if str(outcome.error) != self._refusal:
                    self._refusal = str(outcome.error)
                    log.event(_logger, logging.WARNING, "delayed_messages_wait", reason=outcome.error)
                self._count("delayed_delivered", done)
                return now_ms + REFUSED_MS
            done += 1
        self._refusal = ""
        self._count("delayed_delivered", done)
        return now_ms + (BUSY_MS if done == len(run) else RETRY_MS)
