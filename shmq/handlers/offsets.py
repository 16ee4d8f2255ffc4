"""Consumer offsets and queue positions: 14, 15, 29, 30, 31, 32. Served by any worker from the page and the
store.

Runs in the worker's event loop; answers at once, except that the first commit of a group to a topic asks the
coordinator for offset slots. Facts: Apache RocketMQ 5.3, ConsumerManageProcessor.java,
AdminBrokerProcessor.java.
"""

from __future__ import annotations

from shmq.base.errors import InvalidParameter, QueryNotFound
from shmq.handlers.context import Ask, NeedGroup, NeedTopic, WorkerContext
from shmq.handlers.offset_commits import commit_offset, offset_slot
from shmq.handlers.routes import Place, Route
from shmq.model.topic_config import TopicConfig
from shmq.net.connection import Connection
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.offset import (
    GetEarliestMsgStoretimeHeader,
    GetMaxOffsetHeader,
    GetMinOffsetHeader,
    OffsetResponseHeader,
    QueryConsumerOffsetHeader,
    SearchOffsetHeader,
    TimestampResponseHeader,
    UpdateConsumerOffsetHeader,
)
from shmq.shm.queue_table import QueueRef
from shmq.store.queue_times import Boundary

NO_MESSAGE_TIME = -1
"""The store time answered for an empty queue."""


def _topic(ctx: WorkerContext, topic: str) -> TopicConfig:
    config = ctx.view.topics.get(topic)
    if config is None:
        raise Ask(NeedTopic(topic))
    return config


def _queue(ctx: WorkerContext, topic: str, queue_id: int) -> QueueRef:
    """Return an existing queue; TopicNotExist (by way of the coordinator) or InvalidParameter otherwise."""
    config = _topic(ctx, topic)
    queue = ctx.directory.queue(topic, queue_id)
    if queue is None:
        ctx.directory.catch_up()
        queue = ctx.directory.queue(topic, queue_id)
    if queue is None:
        raise InvalidParameter(
            f"queue id {queue_id} is out of range: topic {topic} has queues 0..{config.queue_nums - 1}"
        )
    return queue


def query_consumer_offset(
    ctx: WorkerContext, connection: Connection, command: Command, header: QueryConsumerOffsetHeader
) -> Command:
    """14: where a group goes on. A young queue, all still in memory, counts from its start."""
    view = ctx.view.groups.get(header.consumer_group)
    reset = view.reset_of(header.topic, header.queue_id) if view is not None else None
    if reset is not None:
        return command.response(ResponseCode.SUCCESS, None, OffsetResponseHeader(reset))
    slot = offset_slot(ctx, header.consumer_group, header.topic, header.queue_id)
    stored = ctx.offsets.committed(slot) if slot is not None else -1
    if stored >= 0:
        return command.response(ResponseCode.SUCCESS, None, OffsetResponseHeader(stored))
    if header.set_zero_if_not_found is not False:
        queue = ctx.directory.queue(header.topic, header.queue_id)
        if queue is not None and ctx.store.min(queue) <= 0 and not ctx.memory.is_on_disk(queue, 0):
            return command.response(ResponseCode.SUCCESS, None, OffsetResponseHeader(0))
    raise QueryNotFound(
        f"group {header.consumer_group} has no offset for queue {header.queue_id} of topic {header.topic}"
    )


def update_consumer_offset(
    ctx: WorkerContext, connection: Connection, command: Command, header: UpdateConsumerOffsetHeader
) -> Command:
    """15: store where a group goes on, and count what it read directly. A negative offset stores nothing."""
    if header.consumer_group not in ctx.view.groups:
        raise Ask(NeedGroup(header.consumer_group))
    _queue(ctx, header.topic, header.queue_id)
    if header.commit_offset >= 0:
        commit_offset(
            *(ctx, header.consumer_group, header.topic, header.queue_id, header.commit_offset),
            only_forward=header.only_forward is True,
        )
    if header.read_count:
        ctx.count("direct_messages", header.read_count)
        ctx.stats.got(header.topic, header.consumer_group, header.read_count, header.read_bytes or 0)
    return command.response(ResponseCode.SUCCESS)


def search_offset(
    ctx: WorkerContext, connection: Connection, command: Command, header: SearchOffsetHeader
) -> Command:
    """29: the queue offset that belongs to a store time."""
    queue = _queue(ctx, header.topic, header.queue_id)
    try:
        boundary = Boundary(header.boundary_type.upper())
    except ValueError:
        raise InvalidParameter(f"boundaryType {header.boundary_type!r} is unknown: LOWER or UPPER") from None
    offset = ctx.store.offset_by_time(queue, header.timestamp, boundary)
    return command.response(ResponseCode.SUCCESS, None, OffsetResponseHeader(offset))


def get_max_offset(
    ctx: WorkerContext, connection: Connection, command: Command, header: GetMaxOffsetHeader
) -> Command:
    """30: one behind the last message that is visible (``committed``), or that was appended."""
    queue = _queue(ctx, header.topic, header.queue_id)
    offset = ctx.store.max(queue) if header.committed else ctx.store.table.max(queue.slot)
    return command.response(ResponseCode.SUCCESS, None, OffsetResponseHeader(offset))


def get_min_offset(
    ctx: WorkerContext, connection: Connection, command: Command, header: GetMinOffsetHeader
) -> Command:
    """31: the oldest queue offset still there."""
    queue = _queue(ctx, header.topic, header.queue_id)
    return command.response(ResponseCode.SUCCESS, None, OffsetResponseHeader(ctx.store.min(queue)))


def get_earliest_store_time(
    ctx: WorkerContext, connection: Connection, command: Command, header: GetEarliestMsgStoretimeHeader
) -> Command:
    """32: when the oldest message of a queue was stored, -1 for an empty queue."""
    queue = _queue(ctx, header.topic, header.queue_id)
    stored = ctx.store.store_time_at(queue, ctx.store.min(queue))
    header_out = TimestampResponseHeader(NO_MESSAGE_TIME if stored is None else stored)
    return command.response(ResponseCode.SUCCESS, None, header_out)


ROUTES: dict[int, Route] = {
    code: Route(header, function, Place.WORKER)
    for code, header, function in (
        (RequestCode.QUERY_CONSUMER_OFFSET, QueryConsumerOffsetHeader, query_consumer_offset),
        (RequestCode.UPDATE_CONSUMER_OFFSET, UpdateConsumerOffsetHeader, update_consumer_offset),
        (RequestCode.SEARCH_OFFSET_BY_TIMESTAMP, SearchOffsetHeader, search_offset),
        (RequestCode.GET_MAX_OFFSET, GetMaxOffsetHeader, get_max_offset),
        (RequestCode.GET_MIN_OFFSET, GetMinOffsetHeader, get_min_offset),
        (RequestCode.GET_EARLIEST_MSG_STORETIME, GetEarliestMsgStoretimeHeader, get_earliest_store_time),
    )
}
