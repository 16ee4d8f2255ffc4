"""The last step of a timer: from its record in the timers' queue to the record of its own topic.

Some are appended in one claim with the words that say so; where one of them is refused, one by one. What was
cancelled is left out; what is not deliverable (topic deleted, record gone) is passed over, counted, logged.
Called by `timer_service.py`, in the coordinator's loop.
"""

from __future__ import annotations

import contextlib
import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence

from shmq.base import faults, log
from shmq.base.errors import MessageIllegal, QueueGone, Unavailable
from shmq.broker.delayed_message import delivery_of
from shmq.broker.queues import Queues
from shmq.broker.waiting_timers import Timer, WaitingTimers
from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.names import TIMER_TOPIC
from shmq.model.properties import REAL_TOPIC, TIMER_OUT_MS, UNIQ_KEY, decode_properties
from shmq.model.record import parse_record, properties_of
from shmq.model.timer import cancel_key, waiting_timer
from shmq.shm.page_layout import INDEXED_POSITION, LAST_STORE_TIME, WRITE_POSITION
from shmq.store.append_request import AppendRequest
from shmq.store.index_lookup import FOUND_MAX
from shmq.store.message_store import MessageStore
from shmq.store.promised import is_promised

RETRY_MS = 50
"""Pause while there is no segment to append to."""
REFUSED_MS = 1000
"""Pause after the store or the disk refused."""
CLAIM_BYTES = 256 << 10
"""About so many bytes go into one claim, so that they fit a segment."""
ALWAYS_MS = 2**62
"""Behind every store time."""

Words = tuple[tuple[int, int], ...]
"""One or two words of the page, with the values they get in the claim that delivers."""

faults.declare(
    {
        "timer.due": "due timers were read, nothing of them appended",
        "timer.fired": "due timers are appended, nobody was told",
    }
)

_logger = log.get(__name__)


class TimerDelivery:
    """Appends timers to their topics."""

    def __init__(
        self,
        store: MessageStore,
        queues: Queues,
        waiting: WaitingTimers,
        count: Callable[[str, int], None],
    ) -> None:
        """`waiting` knows what is cancelled."""
        self._store = store
        self._queues = queues
        self._waiting = waiting
        self._count = count
        self._claim_bytes = min(CLAIM_BYTES, store.layout.segment_bytes // 4)
        self._doubtful_ms = 0
        self._index_from = 0
        self.retry_ms = RETRY_MS
        """When to try again what could not be delivered."""

    def deliver(self, batch: Sequence[tuple[Timer, Words]]) -> int:
        """Append timers to their topics; return how many from the front are done with."""
        prepared: list[tuple[Timer, AppendRequest | None]] = []
        try:
            for timer, words in batch:
                prepared.append((timer, self._request(timer, words)))
        except Unavailable:
            self.retry_ms = RETRY_MS
        done = 0
        while done < len(prepared):
            end, size = done, 0
            while end < len(prepared) and (end == done or size < self._claim_bytes):
                request = prepared[end][1]
                size += len(request.data) if request is not None else 0
                end += 1
            together = self._append(prepared[done:end])
            if together < end - done:
                return done + together
            done = end
        return done

    def _append(self, prepared: Sequence[tuple[Timer, AppendRequest | None]]) -> int:
        """Append some in one claim; return how many from the front are done with."""
        requests = [request for _, request in prepared if request is not None]
        if not requests:
            return len(prepared)
        faults.reach("timer.due")
        for request in requests[:-1]:
            request.with_next = True
        outcomes = self._store.append(requests)
        faults.reach("timer.fired")
        if outcomes[0] is None:
            self.retry_ms = RETRY_MS
            return 0
        if outcomes[0].error is None:
            self._count("timers_delivered", len(requests))
            return len(prepared)
        return self._append_each(prepared)

    def _append_each(self, prepared: Sequence[tuple[Timer, AppendRequest | None]]) -> int:
        """The same one by one: one of them is refused."""
        for done, (timer, request) in enumerate(prepared):
            if request is None:
                continue
            request.with_next = False
            (outcome,) = self._store.append([request])
            if outcome is None:
                self.retry_ms = RETRY_MS
                return done
            if isinstance(outcome.error, (QueueGone, MessageIllegal)):
                self._dropped(timer, str(outcome.error))
            elif outcome.error is not None:
                log.event(_logger, logging.WARNING, "timers_wait", reason=outcome.error)
                self.retry_ms = REFUSED_MS
                return done
            else:
                self._count("timers_delivered", 1)
        return len(prepared)

    def _is_timer(self, record: memoryview, physical_offset: int) -> bool:
        """Whether a record is the message of the timers' queue that it says it is."""
        queue = self._queues.ref(TIMER_TOPIC, 0)
        if queue is None:
            return False
        number = parse_record(record).queue_offset
        if not self._store.min(queue) <= number < self._store.max(queue):
            return False
        with contextlib.suppress(FileNotFoundError):
            unit = self._store.queues.unit(queue, number)
            is_its = unit.physical_offset == physical_offset and unit.tags_code != DAMAGED_TAGS_CODE
            return is_its and is_promised(record, physical_offset, queue.queue_id, number)
        return False

    def _doubtful(self, physical_offset: int) -> memoryview | None:
        """A timer's record that is not there, or damaged: looked for by its place in the timers' queue."""
        queue = self._queues.ref(TIMER_TOPIC, 0)
        if queue is None:
            return None
        unit, numbers = self._store.queues.unit, range(self._store.min(queue), self._store.max(queue))
        with contextlib.suppress(FileNotFoundError):
            at = bisect_left(numbers, physical_offset, key=lambda n: unit(queue, n).physical_offset)
            found = unit(queue, numbers[at]) if at < len(numbers) else None
            if found and found.physical_offset == physical_offset and found.tags_code != DAMAGED_TAGS_CODE:
                return self._store.message_at(queue, numbers[at], physical_offset)
        return None

    def _request(self, timer: Timer, words: Words) -> AppendRequest | None:
        """What appends one timer to its topic; None when it is cancelled, or cannot be delivered.

        Unavailable: not yet.
        """
        record = self._store.record_at(timer.physical_offset)
        if record is None or not self._is_timer(record, timer.physical_offset):
            record = self._doubtful(timer.physical_offset)
        if record is None:
            self._dropped(timer, "its record is gone or damaged")
            return None
        try:
            if self._waiting.has_cancels and self._is_cancelled(timer, record):
                self._count("timers_cancelled", 1)
                return None
            if timer.ms <= self._doubtful_ms and self._is_delivered(record):
                return None
            delivery = delivery_of(record)
        except MessageIllegal as error:
            self._dropped(timer, str(error))
            return None
        queue = self._queues.ref(delivery.topic, delivery.queue_id)
        if queue is None:
            self._dropped(
                timer, f"queue {delivery.queue_id} of topic {delivery.topic} does not exist (any more)"
            )
            return None
        return AppendRequest(
            queue,
            delivery.record,
            (len(delivery.record),),
            (delivery.tags_code,),
            word=words[0],
            second_word=words[1] if len(words) > 1 else None,
        )

    def _is_cancelled(self, timer: Timer, record: memoryview) -> bool:
        properties = bytes(properties_of(record))
        described = waiting_timer(properties)
        key = decode_properties(properties).get(UNIQ_KEY, "")
        topic = "" if described is None else described.real_topic
        return self._waiting.is_cancelled(timer, (cancel_key(topic, key), key))

    def doubt(self) -> None:
        """The page is new, so the cursors are behind: what was due by the last store time may be delivered
        already. The key index tells, when it knows the log up to here."""
        words = self._store.page.words
        self._doubtful_ms, self._index_from = words[LAST_STORE_TIME], words[WRITE_POSITION]

    def is_sure(self) -> bool:
        """Whether it can be told what is delivered: nothing is before."""
        return self._store.page.words[INDEXED_POSITION] >= self._index_from

    def _is_delivered(self, record: memoryview) -> bool:
        """Whether a message's own topic has it: with the same key, for the same moment."""
        wanted = decode_properties(properties_of(record))
        topic, key = wanted.get(REAL_TOPIC, ""), wanted.get(UNIQ_KEY, "")
        for place in self._store.lookup_key(topic, key, FOUND_MAX, 0, ALWAYS_MS):
            found = self._store.record_at(place)
            if found is not None:
                properties = decode_properties(properties_of(found))
                if properties.get(UNIQ_KEY) == key and properties.get(TIMER_OUT_MS) == wanted[TIMER_OUT_MS]:
                    return True
        return False

    def _dropped(self, timer: Timer, why: str) -> None:
        self._count("timers_dropped", 1)
        log.event(
            _logger,
            logging.WARNING,
            "timer_dropped",
            due_ms=timer.ms,
            physical_offset=timer.physical_offset,
            reason=why,
        )
