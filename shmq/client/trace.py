"""Message traces: who sent a message and who consumed it, told in messages of a trace topic.

Hooks write a record for each send attempt, for each outcome of a transaction, and before and after each call
of a listener; a thread sends them, up to `BATCH_MAX` in one message, at the latest `FLUSH_S` after the first.
Nothing here slows a send down: when more records come than go, they are dropped, counted and logged. Format
and numbers: Apache RocketMQ 5.3, AsyncTraceDispatcher.java, SendMessageTraceHookImpl.java,
ConsumeMessageTraceHookImpl.java, EndTransactionTraceHookImpl.java.

The records are sent by a producer of their own, which is not traced. In a forked child the thread is started
again by the first record.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from shmq.base import log
from shmq.base.clock import now_ms
from shmq.base.errors import ShmqError
from shmq.client.config import DEFAULT_INSTANCE, ClientConfig
from shmq.client.consume_hooks import ConsumeContext
from shmq.client.end_transaction_hooks import EndTransactionContext
from shmq.client.producer import Producer
from shmq.client.producer_config import ProducerConfig
from shmq.client.send_hooks import SendContext
from shmq.client.send_result import SendStatus
from shmq.model import properties as names
from shmq.model.message import Message
from shmq.model.message_ext import MessageExt
from shmq.model.message_id import unique_key
from shmq.model.names import GROUP_LENGTH_MAX, TRACE_TOPIC, without_namespace
from shmq.model.trace_record import (
    TracedReturn,
    TracedType,
    encode_after,
    encode_before,
    encode_ended,
    encode_sent,
)

BUFFER_MAX = 2048
"""Records that wait; more are dropped."""
BATCH_MAX = 10
"""Records of one trace message."""
FLUSH_S = 5.0
BODY_BYTES_MAX = 128_000
SEND_TIMEOUT_MS = 5000
GROUP_PREFIX = "_INNER_TRACE_PRODUCER"
DEFAULT_REGION = "DefaultRegion"
DRAIN_S = 3.0

_LOG = log.get(__name__)

_DELAYS = frozenset({names.DELAY, names.TIMER_DELAY_SEC, names.TIMER_DELAY_MS, names.TIMER_DELIVER_MS})


class _Record(NamedTuple):
    """One record and the keys it is to be found by."""

    body: bytes
    keys: tuple[str, ...]


class Tracer:
    """The records of one producer or consumer, on their way."""

    def __init__(self, config: ClientConfig, group: str, role: str) -> None:
        """`role` is PRODUCE or CONSUME. Nothing is sent before `start`."""
        self.topic = config.customized_trace_topic or TRACE_TOPIC
        self._namespace = config.namespace
        self.dropped = 0
        """Records that were not sent."""
        named = f"{GROUP_PREFIX}-{group}"[: GROUP_LENGTH_MAX - len(role) - 3]
        self._producer = Producer(f"{named}-{role}-1", _producer_config(config))
        self._changed = threading.Condition()
        self._waiting: deque[_Record] = deque()
        self._since_s = 0.0
        self._closing = False
        self._thread: threading.Thread | None = None
        self._pid = 0

    def start(self) -> None:
        """Start the producer."""
        self._producer.start()

    def known_as(self, name: str) -> str:
        """Return a topic or group as it is told: without the namespace, as RocketMQ does."""
        return without_namespace(self._namespace, name)

    def traces_itself(self, topic: str) -> bool:
        """Tell whether a message is one of traces, of which nothing is told."""
        return self.known_as(topic) == self.topic

    def put(self, records: Iterable[_Record]) -> None:
        """Take records over; never waits for a broker."""
        if self._pid != os.getpid():  # the first record, or a forked child's
            self._begin()
        with self._changed:
            before = len(self._waiting)
            for record in records:
                if len(self._waiting) >= BUFFER_MAX:
                    self.dropped += 1
                    if self.dropped % BUFFER_MAX == 1:
                        log.event(_LOG, logging.WARNING, "trace_records_dropped", so_far=self.dropped)
                    continue
                self._waiting.append(record)
            if not before:
                self._since_s = time.monotonic()
            if not before or len(self._waiting) >= BATCH_MAX > before:
                self._changed.notify()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._waiting = deque()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="shmq-trace", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what waits, for a few seconds at most, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(DRAIN_S)
        self._producer.shutdown()

    def _run(self) -> None:
        while batch := self._next_batch():
            keys = dict.fromkeys(key for record in batch for key in record.keys)
            message = Message(self.topic, b"".join(record.body for record in batch), keys=list(keys))
            try:
                self._producer.send(message, timeout_ms=SEND_TIMEOUT_MS)
            except ShmqError as error:
                self.dropped += len(batch)
                log.event(_LOG, logging.WARNING, "trace_not_sent", records=len(batch), reason=error)

    def _next_batch(self) -> list[_Record]:
        """Wait until a message is full, or old enough; empty when all is sent and the tracer closes."""
        with self._changed:
            while len(self._waiting) < BATCH_MAX and not self._closing:
                left_s = self._since_s + FLUSH_S - time.monotonic() if self._waiting else None
                if left_s is not None and left_s <= 0:
                    break
                self._changed.wait(left_s)
            batch: list[_Record] = []
            size = 0
            while self._waiting and len(batch) < BATCH_MAX:
                size += len(self._waiting[0].body)
                if batch and size > BODY_BYTES_MAX:
                    break
                batch.append(self._waiting.popleft())
            self._since_s = time.monotonic()
            return batch


def _producer_config(config: ClientConfig) -> ProducerConfig:
    """The same cluster and connections' settings, as a client of its own that is not traced."""
    shared = {one.name: getattr(config, one.name) for one in dataclasses.fields(ClientConfig)}
    return ProducerConfig(**{**shared, "enable_msg_trace": False, "instance_name": DEFAULT_INSTANCE})


class SendTrace:
    """A SendMessageHook that tells of each attempt."""

    def __init__(self, tracer: Tracer) -> None:
        """Tell `tracer`."""
        self._tracer = tracer

    def send_message_before(self, context: SendContext) -> None:
        """Note when it began."""
        context.notes["trace"] = (now_ms(), time.monotonic())

    def send_message_after(self, context: SendContext) -> None:
        """Tell how it ended, unless the broker wants no trace of the message."""
        message, result = context.message, context.result
        if self._tracer.traces_itself(message.topic) or (result is not None and not result.trace_on):
            return
        began_ms, began_s = context.notes["trace"]
        msg_id = result.msg_id if result is not None else message.unique_key or ""
        record = encode_sent(
            time_ms=began_ms,
            region=result.region_id if result is not None else DEFAULT_REGION,
            group=self._tracer.known_as(context.group),
            topic=self._tracer.known_as(message.topic),
            msg_id=msg_id,
            tags=message.tags,
            keys=message.keys,
            store_host=context.broker_addr,
            body_bytes=len(message.body),
            cost_ms=round((time.monotonic() - began_s) * 1000),
            offset_msg_id=result.offset_msg_id if result is not None else "",
            success=result is not None and result.send_status is SendStatus.SEND_OK,
            kind=_kind(message),
        )
        self._tracer.put([_Record(record, (*msg_id.split(","), *message.key_list))])


def _kind(message: Message) -> TracedType:
    held = message.properties
    if names.TRANSACTION_PREPARED in held:
        return TracedType.HALF
    if not _DELAYS.isdisjoint(held):
        return TracedType.DELAY
    return TracedType.ORDER if names.SHARDING_KEY in held else TracedType.NORMAL


class EndTransactionTrace:
    """An EndTransactionHook that tells of each outcome."""

    def __init__(self, tracer: Tracer) -> None:
        """Tell `tracer`."""
        self._tracer = tracer

    def end_transaction(self, context: EndTransactionContext) -> None:
        """Tell of it, unless the broker wants no trace of the message."""
        message = context.message
        if self._tracer.traces_itself(message.topic) or not context.trace_on:
            return
        record = encode_ended(
            time_ms=now_ms(),
            region=context.region_id or DEFAULT_REGION,
            group=self._tracer.known_as(context.group),
            topic=self._tracer.known_as(message.topic),
            msg_id=context.msg_id,
            tags=message.tags,
            keys=message.keys,
            store_host=context.broker_addr,
            transaction_id=context.transaction_id,
            state=context.transaction_state.name,
            from_check=context.from_transaction_check,
        )
        self._tracer.put([_Record(record, (context.msg_id, *message.key_list))])


class ConsumeTrace:
    """A ConsumeMessageHook that tells of each call of a listener, message by message."""

    def __init__(self, tracer: Tracer) -> None:
        """Tell `tracer`."""
        self._tracer = tracer

    def consume_message_before(self, context: ConsumeContext) -> None:
        """Tell that the listener is called."""
        traced = self._traced(context.messages)
        context.notes["trace"] = request_id = unique_key()
        self._tracer.put(
            _Record(
                encode_before(
                    time_ms=now_ms(),
                    region=message.get_property(names.MSG_REGION) or DEFAULT_REGION,
                    group=self._tracer.known_as(context.group),
                    request_id=request_id,
                    msg_id=message.msg_id,
                    retry_times=message.reconsume_times,
                    keys=message.keys,
                ),
                (message.msg_id, *message.key_list),
            )
            for message in traced
        )

    def consume_message_after(self, context: ConsumeContext) -> None:
        """Tell how the call ended; its time is shared among its messages."""
        traced = self._traced(context.messages)
        cost_ms = context.cost_ms // max(1, len(traced))
        self._tracer.put(
            _Record(
                encode_after(
                    time_ms=now_ms(),
                    group=self._tracer.known_as(context.group),
                    request_id=context.notes["trace"],
                    msg_id=message.msg_id,
                    cost_ms=cost_ms,
                    success=context.success,
                    keys=message.keys,
                    returned=_returned(context),
                ),
                (message.msg_id, *message.key_list),
            )
            for message in traced
        )

    def _traced(self, messages: Sequence[MessageExt]) -> list[MessageExt]:
        return [
            message
            for message in messages
            if not self._tracer.traces_itself(message.topic)
            and message.get_property(names.TRACE_ON) != "false"
        ]


def _returned(context: ConsumeContext) -> TracedReturn:
    if context.success:
        return TracedReturn.SUCCESS
    if context.status:
        return TracedReturn.FAILED
    return TracedReturn.EXCEPTION if context.raised else TracedReturn.RETURNED_NOTHING
