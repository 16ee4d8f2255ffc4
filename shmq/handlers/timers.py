"""Messages that wait for their moment: taken back (370), put off (30011), listed (30010).

Coordinator's handlers. Facts of 370: Apache RocketMQ 5.3, RecallMessageProcessor.java; there it is off, and
says nothing of whether the message was delivered. Here the answer is exact, and to ask again does no harm.
"""

from __future__ import annotations

from shmq.base.errors import IllegalOperation, MessageIllegal, NoPermission, TopicNotExist
from shmq.broker.waiting_message import WaitingMessage
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Place, Route
from shmq.model.message_id import offset_message_id
from shmq.model.names import is_dlq_topic, is_retry_topic
from shmq.model.properties import KEYS, TAGS
from shmq.model.setting import BrokerRole
from shmq.model.timer import RecallHandle
from shmq.protocol.bodies.timers import TimerList, TimerRow
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import RecallMessageHeader, RecallMessageResponseHeader
from shmq.protocol.headers.timer import (
    ListTimersHeader,
    RescheduleTimerHeader,
    RescheduleTimerResponseHeader,
)

LIST_COUNT_MAX = 64
"""Messages of one answer: each is looked up in the key index."""


def _refused_as_slave(ctx: CoordinatorContext, command: Command) -> Command | None:
    if ctx.settings.now.broker_role is not BrokerRole.SLAVE:
        return None
    return command.response(
        ResponseCode.SLAVE_NOT_AVAILABLE, "this broker is a slave: its master keeps the timers"
    )


def _handle_of(ctx: CoordinatorContext, topic: str, text: str) -> RecallHandle:
    """Read and check a recall handle, in RocketMQ's order."""
    settings = ctx.settings.now
    if not settings.recall_message_enable:
        raise NoPermission("this broker takes no message back (recallMessageEnable=false)")
    if is_retry_topic(topic) or is_dlq_topic(topic):
        raise IllegalOperation(f"messages of topic {topic} cannot be taken back")
    if ctx.topics.get(topic) is None:
        raise TopicNotExist(f"topic {topic} does not exist")
    handle = RecallHandle.decode(text)
    if handle.topic != topic:
        raise IllegalOperation(f"the recall handle is of topic {handle.topic}, not of {topic}")
    if handle.broker_name != settings.broker_name:
        raise IllegalOperation(f"the recall handle is of broker {handle.broker_name}: ask that one")
    left_ms = handle.due_ms - ctx.clock.now_ms()
    if left_ms <= 0:
        raise IllegalOperation("the message's moment has come: it cannot be taken back any more")
    if left_ms > settings.timer_max_delay_sec * 1000:
        raise IllegalOperation("the recall handle is for a moment beyond timerMaxDelaySec")
    return handle


async def recall_message(
    ctx: CoordinatorContext, _call: Call, command: Command, header: RecallMessageHeader
) -> Command:
    """370: take a waiting message back; answered when that is as durable as a send."""
    refused = _refused_as_slave(ctx, command)
    if refused is not None:
        return refused
    handle = _handle_of(ctx, header.topic, header.recall_handle)
    end = ctx.timers.cancel(handle.topic, handle.unique_key, handle.due_ms)
    await ctx.timers.durable(end)
    return command.response(ResponseCode.SUCCESS, None, RecallMessageResponseHeader(handle.unique_key))


async def reschedule_timer(
    ctx: CoordinatorContext, _call: Call, command: Command, header: RescheduleTimerHeader
) -> Command:
    """30011: put a waiting message off to another moment, sooner or later."""
    refused = _refused_as_slave(ctx, command)
    if refused is not None:
        return refused
    handle = _handle_of(ctx, header.topic, header.recall_handle)
    limit_s = ctx.settings.now.timer_max_delay_sec
    now_ms = ctx.clock.now_ms()
    if header.deliver_ms - now_ms > limit_s * 1000:
        raise MessageIllegal(f"at most {limit_s} s from now are allowed (timerMaxDelaySec)")
    end = ctx.timers.reschedule(handle.topic, handle.unique_key, handle.due_ms, header.deliver_ms)
    await ctx.timers.durable(end)
    moved = handle._replace(due_ms=header.deliver_ms).encode() if header.deliver_ms > now_ms else ""
    return command.response(
        ResponseCode.SUCCESS, None, RescheduleTimerResponseHeader(handle.unique_key, moved)
    )


async def list_timers(
    ctx: CoordinatorContext, _call: Call, command: Command, header: ListTimersHeader
) -> Command:
    """30010: one waiting message by its id, or a page of all."""
    topic = header.topic or ""
    if header.msg_id:
        found, next_offset = [ctx.timers.find(header.msg_id, topic)], -1
    else:
        count = max(1, min(header.count, LIST_COUNT_MAX))
        found, next_offset = ctx.timers.waiting(max(0, header.first), count, topic)
    rows = [_row(one, ctx.settings.now.broker_name) for one in found]
    return command.response(ResponseCode.SUCCESS, body=TimerList(rows, next_offset).encode())


def _row(message: WaitingMessage, broker_name: str) -> TimerRow:
    fields = message.fields
    return TimerRow(
        message.unique_key,
        offset_message_id(fields.store_host, fields.physical_offset),
        message.topic,
        message.queue_id,
        message.due_ms,
        fields.store_timestamp,
        fields.body_length,
        message.properties.get(TAGS, ""),
        message.properties.get(KEYS, ""),
        RecallHandle(message.topic, broker_name, message.due_ms, message.unique_key).encode(),
    )


ROUTES: dict[int, Route] = {
    RequestCode.RECALL_MESSAGE: Route(RecallMessageHeader, recall_message, Place.COORDINATOR),
    RequestCode.LIST_TIMERS: Route(ListTimersHeader, list_timers, Place.COORDINATOR),
    RequestCode.RESCHEDULE_TIMER: Route(RescheduleTimerHeader, reschedule_timer, Place.COORDINATOR),
}
"""Served by the coordinator."""
