"""Waiting messages on request: list them, take one back, put one off.

    cancel       a record with TIMER_DEL_UNIQKEY for the same moment, in the timers' queue, as RocketMQ has it
    reschedule   that, and a copy for another moment behind it; or, when that moment has come, the message
                 itself in its topic: in one claim

A message is found by its unique key: in the key index, and in what is not indexed yet. Whether it still waits
is known for sure, as this process alone delivers: between the answer "taken back" and a delivery there is
nothing. Coordinator's loop only. Facts: Apache RocketMQ 5.3, RecallMessageProcessor.java; rescheduling and
listing are shmq's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from shmq.base import faults
from shmq.base.clock import Clock
from shmq.base.errors import IllegalOperation, InvalidParameter, QueryNotFound, SystemBusy, Unavailable
from shmq.broker.delayed_message import delivery_of
from shmq.broker.queues import Queues
from shmq.broker.timer_cursors import TimerCursors
from shmq.broker.waiting_message import WaitingMessage, waiting_message
from shmq.coordinator.timer_service import TimerService
from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.message_id import parse_offset_message_id
from shmq.model.names import TIMER_TOPIC
from shmq.model.properties import (
    REAL_QUEUE_ID,
    REAL_TOPIC,
    TAGS,
    TIMER_DEL_UNIQKEY,
    TIMER_DELIVER_MS,
    TIMER_OUT_MS,
    UNIQ_KEY,
    encode_properties,
)
from shmq.model.record import encode_record
from shmq.model.setting import FlushDiskType
from shmq.model.settings import BrokerSettings
from shmq.model.subscription import tags_code_of
from shmq.model.timer import TIMER_PROPERTIES, cancel_key
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import FLUSH_RINGS, INDEXED_POSITION, WRITE_POSITION
from shmq.shm.queue_table import QueueRef
from shmq.shm.rings import park, unpark
from shmq.shm.worker_slots import COORDINATOR_SLOT, FLUSHER_SLOT
from shmq.store.append_request import AppendOutcome, AppendRequest
from shmq.store.consume_queue import FILLER_SIZE
from shmq.store.index_lookup import FOUND_MAX
from shmq.store.message_store import MessageStore

LIST_ENTRIES_MAX = 1000
"""Entries of the timers' queue looked at per request: some milliseconds."""
FLUSH_LOOK_S = 0.001
"""Pause between two looks whether the disk has a change."""
MOVE_MAX = 64
"""Messages appended once more per call."""
CANCEL_BODY = b"0"
"""A message has at least one byte; RocketMQ's has this one."""
MOVED_BODY = b"1"
"""Of what cancels a message because there is a copy for another moment, or because it was delivered."""
_ALWAYS_MS = 2**62

faults.declare(
    {
        "timer.moving": "a waiting message is to leave a segment that goes, its copy not appended",
        "timer.moved": "the copy is appended and the cursor moved",
    }
)


class TimerChanges:
    """Looks at and changes what the timer service will deliver."""

    def __init__(
        self,
        store: MessageStore,
        queues: Queues,
        service: TimerService,
        settings: BrokerSettings,
        bells: Sequence[Doorbell],
        clock: Clock,
    ) -> None:
        """`service` is told of cancellations at once."""
        self._store = store
        self._queues = queues
        self._service = service
        self._settings = settings
        self._flusher = bells[FLUSHER_SLOT]
        self._clock = clock

    # -- finding --

    def find(self, message_id: str, topic: str = "") -> WaitingMessage:
        """The waiting message with a unique key or offset id. QueryNotFound when none waits."""
        self._check_index()
        key = message_id
        found = self._of_key(key)
        if not found:
            key = self._key_of_offset_id(message_id)
            found = self._of_key(key) if key else []
        for message in reversed(found):
            if not message.cancels and topic in ("", message.topic) and self._waits(message, found):
                return message
        raise QueryNotFound(f"no message {message_id} waits here: delivered, taken back, or never sent")

    def _key_of_offset_id(self, message_id: str) -> str:
        try:
            _, physical_offset = parse_offset_message_id(message_id)
        except InvalidParameter:
            return ""
        message = self._message_at(physical_offset)
        return message.unique_key if message is not None else ""

    def _check_index(self) -> None:
        """IllegalOperation when a message cannot be found by its key."""
        if not self._settings.message_index_enable:
            raise IllegalOperation(
                "waiting messages are found by the key index, and this broker makes none "
                "(messageIndexEnable=false): nothing was changed"
            )

    def _of_key(self, key: str) -> list[WaitingMessage]:
        """All records with a unique key in the timers' queue, oldest first."""
        places = set(self._store.lookup_key(TIMER_TOPIC, key, FOUND_MAX, 0, _ALWAYS_MS))
        places.update(self._not_indexed())
        found = [self._message_at(place) for place in sorted(places)]
        return [one for one in found if one is not None and one.unique_key == key]

    def _not_indexed(self) -> Iterator[int]:
        """Physical offsets of the timers' queue that the key index does not know yet."""
        queue = self._queue()
        indexed = self._store.page.words[INDEXED_POSITION]
        low = self._store.min(queue)
        for offset in range(self._store.max(queue) - 1, low - 1, -1):
            physical_offset = self._store.queues.unit(queue, offset).physical_offset
            if physical_offset < indexed:
                return
            yield physical_offset

    def _message_at(self, physical_offset: int) -> WaitingMessage | None:
        record = self._store.record_at(physical_offset)
        return None if record is None else waiting_message(record)

    def _waits(self, message: WaitingMessage, of_key: list[WaitingMessage]) -> bool:
        """Whether it will be delivered, given all records with its key."""
        if not self._service.is_pending(message.due_ms, message.physical_offset):
            return False
        return self._cancellation(message, of_key) is None

    @staticmethod
    def _cancellation(message: WaitingMessage, of_key: list[WaitingMessage]) -> WaitingMessage | None:
        """What cancels a message, of all records with its key."""
        keys = (cancel_key(message.topic, message.unique_key), message.unique_key)
        for one in of_key:
            is_later = one.physical_offset > message.physical_offset
            if one.cancels in keys and one.due_ms == message.due_ms and is_later:
                return one
        return None

    def waiting(self, first: int, count: int, topic: str = "") -> tuple[list[WaitingMessage], int]:
        """Messages that wait, in the order in which they came, from a queue offset on; and the offset to go
        on with, -1 at the end. A call looks at a bounded number: it may find none and still go on."""
        queue = self._queue()
        offset = max(first, self._service.kept(queue))
        high = self._store.max(queue)
        end = min(high, offset + LIST_ENTRIES_MAX)
        found: list[WaitingMessage] = []
        while offset < end and len(found) < count:
            message = self._message_at(self._store.queues.unit(queue, offset).physical_offset)
            offset += 1
            if message is None or message.cancels or topic not in ("", message.topic):
                continue
            if self._service.is_pending(message.due_ms, message.physical_offset) and self._waits(
                message, self._of_key(message.unique_key)
            ):
                found.append(message)
        return found, offset if offset < high else -1

    # -- changing --

    def cancel(self, topic: str, key: str, due_ms: int) -> int:
        """Take a message back; again does no harm. Returns the log position that must be durable for it.

        IllegalOperation when it does not wait any more, or never did.
        """
        found = self._changeable(topic, key, due_ms)
        if not found:
            return self._store.page.words[WRITE_POSITION]
        return self._append([self._cancelling(message) for message in found], found)

    def reschedule(self, topic: str, key: str, due_ms: int, new_ms: int) -> int:
        """Put a message off to another moment, later or earlier; one that has come delivers it at once.

        Returns and raises as `cancel`; IllegalOperation also when it was taken back.
        """
        found = self._changeable(topic, key, due_ms)
        if not found:
            raise IllegalOperation(f"message {key} was taken back: it cannot be put off")
        message = found[0]
        cancelling = [self._cancelling(one, MOVED_BODY) for one in found]
        if new_ms <= self._clock.now_ms():
            return self._append([*cancelling, self._delivering(message)], found)
        moved = {name: text for name, text in message.properties.items() if name not in TIMER_PROPERTIES}
        moved |= {TIMER_DELIVER_MS: str(new_ms), TIMER_OUT_MS: str(new_ms)}
        record = self._record(message, moved, message.body)
        code = tags_code_of(moved.get(TAGS))
        copy = AppendRequest(self._queue(), record, (len(record),), (code,))
        return self._append([*cancelling, copy], found)

    def _changeable(self, topic: str, key: str, due_ms: int) -> list[WaitingMessage]:
        """The message that waits for that moment, and what is the same message for another: a send that was
        tried again, with a delay, is there twice. Empty when it was taken back already."""
        self._check_index()
        of_key = self._of_key(key)
        for message in reversed(of_key):
            if message.cancels or message.topic != topic or message.due_ms != due_ms:
                continue
            if not self._service.is_pending(due_ms, message.physical_offset):
                break
            cancellation = self._cancellation(message, of_key)
            if cancellation is None:
                return [message, *self._twins(message, of_key)]
            if cancellation.body == MOVED_BODY:
                raise IllegalOperation(f"message {key} was put off: it is known by its newer handle only")
            return []
        raise IllegalOperation(f"message {key} does not wait any more, or never did: nothing was changed")

    def _twins(self, message: WaitingMessage, of_key: list[WaitingMessage]) -> list[WaitingMessage]:
        """What else waits under a message's key, for other moments; one for each moment."""
        found = {
            one.due_ms: one
            for one in of_key
            if not one.cancels and one.topic == message.topic and self._waits(one, of_key)
        }
        found.pop(message.due_ms, None)
        return list(found.values())

    def _cancelling(self, message: WaitingMessage, body: bytes = CANCEL_BODY) -> AppendRequest:
        """What cancels a message; tied to what comes behind it: another one, or what takes its place."""
        properties = {
            UNIQ_KEY: message.unique_key,
            TIMER_DELIVER_MS: str(message.due_ms),
            TIMER_DEL_UNIQKEY: cancel_key(message.topic, message.unique_key),
            TIMER_OUT_MS: str(message.due_ms),
            REAL_TOPIC: message.topic,
            REAL_QUEUE_ID: str(message.queue_id),
        }
        record = self._record(message, properties, memoryview(body))
        return AppendRequest(self._queue(), record, (len(record),), (0,), with_next=True)

    def _record(self, message: WaitingMessage, properties: dict[str, str], body: memoryview) -> bytearray:
        fields = message.fields
        is_copy = TIMER_DEL_UNIQKEY not in properties
        return encode_record(
            topic=TIMER_TOPIC.encode(),
            body=body,
            properties=encode_properties(properties),
            queue_id=0,
            flag=fields.flag if is_copy else 0,
            sys_flag=fields.sys_flag if is_copy else 0,
            born_timestamp=fields.born_timestamp,
            born_host=fields.born_host,
            store_host=fields.store_host,
            reconsume_times=fields.reconsume_times,
        )

    def _delivering(self, message: WaitingMessage) -> AppendRequest:
        delivery = delivery_of(message.record)
        queue = self._queues.ref(delivery.topic, delivery.queue_id)
        if queue is None:
            raise IllegalOperation(f"queue {delivery.queue_id} of topic {delivery.topic} does not exist")
        return AppendRequest(queue, delivery.record, (len(delivery.record),), (delivery.tags_code,))

    def _append(self, requests: list[AppendRequest], cancelled: list[WaitingMessage]) -> int:
        """Append all as one, cancellations first; the service knows of those at once."""
        requests[-1].with_next = False
        stored: list[AppendOutcome] = []
        for outcome in self._store.append(requests):
            if outcome is None:
                raise SystemBusy("no log segment is ready: try again")
            if outcome.error is not None:
                raise outcome.error
            stored.append(outcome)
        for message, outcome in zip(cancelled, stored, strict=False):
            key = cancel_key(message.topic, message.unique_key)
            self._service.cancel(message.due_ms, key, outcome.physical_offset)
        return stored[-1].end

    # -- figures --

    def figures(self) -> dict[str, int]:
        """By RocketMQ's keys: by how many seconds the earliest timer is late, how many are not taken in, and
        how many wait at most (those that came before the oldest that waits are not counted)."""
        queue = self._queue()
        taken = self._service.taken
        return {
            "timerReadBehind": self._service.behind_ms() // 1000,
            "timerOffsetBehind": max(0, self._store.max(queue) - taken),
            "timerCongestNum": max(0, taken - self._service.kept(queue)),
        }

    # -- what retention wants --

    def lowest_needed(self) -> int | None:
        """The physical offset of the oldest message that may still wait; None without one."""
        queue = self._queue()
        offset = self._service.kept(queue)
        if offset >= self._store.max(queue):
            return None
        return self._store.queues.unit(queue, offset).physical_offset

    def move_out(self, end: int) -> bool:
        """Append what waits below a physical offset once more, some of it per call; True when nothing is left
        there. A copy and the cursor behind its original are one claim."""
        queue = self._queue()
        first = self._service.kept(queue)
        for offset in range(first, min(self._service.taken, first + MOVE_MAX)):
            try:
                message = self._whole_message(queue, offset)
            except Unavailable:  # it is being looked at: no copy shall make its damage good
                return False
            if message is not None and message.physical_offset >= end:
                return True
            if message is not None and self._is_needed(message):
                faults.reach("timer.moving")
                record = self._record(message, message.properties, message.body)
                code = tags_code_of(message.properties.get(TAGS))
                request = AppendRequest(
                    queue, record, (len(record),), (code,), word=TimerCursors.keeps(offset + 1)
                )
                (outcome,) = self._store.append([request])
                if outcome is None or outcome.error is not None:
                    return False
                faults.reach("timer.moved")
            self._service.pass_to(queue, offset + 1)
        return self._service.kept(queue) >= self._store.max(queue)

    def _whole_message(self, queue: QueueRef, queue_offset: int) -> WaitingMessage | None:
        """A message as its unit promises it; None: gone or damaged for good. Unavailable: not yet."""
        unit = self._store.queues.unit(queue, queue_offset)
        if unit.size == FILLER_SIZE or unit.tags_code == DAMAGED_TAGS_CODE:
            return None
        record = self._store.message_at(queue, queue_offset, unit.physical_offset)
        return None if record is None else waiting_message(record)

    def _is_needed(self, message: WaitingMessage) -> bool:
        """Whether a message still waits. What cancels is not: what it cancelled lies before it."""
        if message.cancels or self._service.is_over(message.due_ms, message.physical_offset):
            return False
        return self._cancellation(message, self._of_key(message.unique_key)) is None

    # -- the log --

    async def durable(self, end: int) -> None:
        """Return when the log is as durable up to `end` as the broker promises, or after syncFlushTimeout."""
        if self._settings.flush_disk_type is not FlushDiskType.SYNC_FLUSH:
            return
        deadline_ms = self._clock.monotonic_ms() + self._settings.sync_flush_timeout
        while not self._store.is_flushed(end) and self._clock.monotonic_ms() < deadline_ms:
            park(self._store.page, FLUSH_RINGS, COORDINATOR_SLOT)
            self._flusher.ring()
            await asyncio.sleep(FLUSH_LOOK_S)
        unpark(self._store.page, FLUSH_RINGS, COORDINATOR_SLOT)

    def _queue(self) -> QueueRef:
        queue = self._queues.ref(TIMER_TOPIC, 0)
        if queue is None:
            raise SystemBusy(f"topic {TIMER_TOPIC} has no queue yet")
        return queue
