"""Consumer progress for operators: 208, 317 how far groups are; 222 reset; 314 clone.

Coordinator's handlers. A reset is stored at once and handed to the workers: the next pull of the queue is
answered with 21 and the new offset, and commits are ignored until then, so a running consumer cannot
overwrite it. shmq's own consumers are told as well (220): one that has much in hand would not pull for long.
"""

from __future__ import annotations

from collections.abc import Iterable

from shmq.base.errors import InvalidParameter, TopicNotExist
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Place, Route
from shmq.model.message_queue import MessageQueue
from shmq.protocol.bodies.offsets import (
    ConsumeOffset,
    ConsumeStats,
    encode_broker_consume_stats,
    encode_consume_stats,
    encode_reset_offsets,
)
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.admin import (
    BrokerConsumeStatsHeader,
    CloneGroupOffsetHeader,
    GetConsumeStatsHeader,
    ResetOffsetHeader,
)
from shmq.protocol.headers.client import ResetConsumerClientOffsetHeader
from shmq.shm.queue_table import QueueRef

ALL_QUEUES = -1
TO_MAX = -1


async def consume_stats(
    ctx: CoordinatorContext, _call: Call, command: Command, header: GetConsumeStatsHeader
) -> Command:
    """208: the group's place in each queue of one topic, of several, or of all it knows; never an error."""
    await ctx.settled()
    if header.topic:
        topics: Iterable[str] = [header.topic]
    elif header.topic_list:
        topics = filter(None, header.topic_list.split(";"))
    else:
        topics = ctx.offsets.topics_of(header.consumer_group)
    found = ConsumeStats()
    for topic in topics:
        _add_topic(ctx, found, header.consumer_group, topic)
    return command.response(ResponseCode.SUCCESS, body=encode_consume_stats(found))


async def broker_consume_stats(
    ctx: CoordinatorContext, _call: Call, command: Command, header: BrokerConsumeStatsHeader
) -> Command:
    """317: the same for every group, with the sum of what is not consumed and what is not pulled yet."""
    await ctx.settled()
    by_group: dict[str, list[ConsumeStats]] = {}
    behind = in_flight = 0
    for group, topic in ctx.offsets.pairs():
        config = ctx.topics.get(topic)
        if config is None or (header.is_order and not config.order):
            continue
        found = ConsumeStats()
        _add_topic(ctx, found, group, topic)
        if found.offset_table:
            by_group.setdefault(group, []).append(found)
        for row in found.offset_table.values():
            behind += max(0, row.broker_offset - row.consumer_offset)
            in_flight += max(0, row.pull_offset - row.consumer_offset)
    stats = [{group: tables} for group, tables in by_group.items()]
    body = encode_broker_consume_stats(ctx.broker_addr, stats, behind, in_flight)
    return command.response(ResponseCode.SUCCESS, body=body)


def _add_topic(ctx: CoordinatorContext, found: ConsumeStats, group: str, topic: str) -> None:
    """Add the group's place in each readable queue of a topic, if the group has anything to do with it."""
    config = ctx.topics.get(topic)
    members = ctx.clients.consumer_group(group)
    progress = {row.queue_id: row for row in ctx.offsets.progress(group, topic)}
    subscribed = members is not None and topic in members.subscriptions
    if config is None or not (progress or subscribed):
        return
    for ref in ctx.queues.refs(topic)[: config.read_queue_nums]:
        high = ctx.store.max(ref)
        row = progress.get(ref.queue_id)
        consumed = max(0, row.committed) if row is not None else 0
        pulled = max(0, row.pulled) if row is not None else 0
        stored_ms = ctx.store.store_time_at(ref, consumed - 1) if consumed > 0 else None
        queue = MessageQueue(topic, ctx.settings.now.broker_name, ref.queue_id)
        found.offset_table[queue] = ConsumeOffset(high, consumed, max(pulled, consumed), stored_ms or 0)
    found.consume_tps += ctx.stats.group_get_tps(topic, group, ctx.clock.now_ms())


async def reset_offset(
    ctx: CoordinatorContext, _call: Call, command: Command, header: ResetOffsetHeader
) -> Command:
    """222: move a group in one queue or all: to a time, to an offset (one queue), or to the newest end."""
    config = ctx.topics.must_get(header.topic)
    ctx.groups.must_get(header.group)
    refs = ctx.queues.refs(header.topic)[: config.read_queue_nums]
    if header.queue_id != ALL_QUEUES:
        refs = [ref for ref in refs if ref.queue_id == header.queue_id]
    if not refs:
        raise TopicNotExist(f"topic [{header.topic}] has no readable queue {header.queue_id}")
    stored = ctx.offsets.committed(header.group, header.topic)
    targets: dict[int, int] = {}
    for ref in refs:
        target = _target(ctx, ref, header)
        known = stored.get(ref.queue_id)
        # without force a reset only goes back: RocketMQ's rule against losing messages by a wrong time
        targets[ref.queue_id] = target if header.is_force or known is None else min(target, known)
    ctx.offsets.commit(header.group, header.topic, targets)
    ctx.resets.add(header.group, header.topic, targets)
    await ctx.announce.group_changed(header.group)
    broker = ctx.settings.now.broker_name
    table = {MessageQueue(header.topic, broker, queue_id): offset for queue_id, offset in targets.items()}
    body = encode_reset_offsets(table)
    told = ResetConsumerClientOffsetHeader(header.topic, header.group, header.timestamp, header.is_force)
    for member in ctx.clients.members(header.group):
        if ctx.calls.is_ours(member.key):
            code = RequestCode.RESET_CONSUMER_CLIENT_OFFSET
            ctx.calls.push(member.key, Command.request(code, told, body, oneway=True))
    return command.response(ResponseCode.SUCCESS, body=body)


def _target(ctx: CoordinatorContext, ref: QueueRef, header: ResetOffsetHeader) -> int:
    """Where a queue is to be reset to."""
    low, high = ctx.store.min(ref), ctx.store.max(ref)
    if header.queue_id != ALL_QUEUES and header.offset >= 0:
        if not low <= header.offset <= high:
            raise InvalidParameter(f"offset {header.offset}: queue {ref.queue_id} has {low} to {high}")
        return header.offset
    if header.timestamp < 0:
        return high
    return ctx.store.offset_by_time(ref, header.timestamp)


async def clone_offset(
    ctx: CoordinatorContext, _call: Call, command: Command, header: CloneGroupOffsetHeader
) -> Command:
    """314: give one group the offsets of another, in one topic or in all of them."""
    ctx.groups.must_get(header.src_group)
    _, made = await ctx.group_changes.make(lambda: ctx.groups.find_or_create(header.dest_group))
    copied = ctx.offsets.clone(header.src_group, header.dest_group, header.topic or None)
    for topic in copied:
        targets = ctx.offsets.committed(header.src_group, topic)
        ctx.resets.add(header.dest_group, topic, targets)
    if made or copied:
        await ctx.announce.group_changed(header.dest_group)
    return command.response(ResponseCode.SUCCESS)


ROUTES: dict[int, Route] = {
    RequestCode.GET_CONSUME_STATS: Route(GetConsumeStatsHeader, consume_stats, Place.COORDINATOR),
    RequestCode.GET_BROKER_CONSUME_STATS: Route(
        BrokerConsumeStatsHeader, broker_consume_stats, Place.COORDINATOR
    ),
    RequestCode.INVOKE_BROKER_TO_RESET_OFFSET: Route(ResetOffsetHeader, reset_offset, Place.COORDINATOR),
    RequestCode.CLONE_GROUP_OFFSET: Route(CloneGroupOffsetHeader, clone_offset, Place.COORDINATOR),
}
"""Served by the coordinator."""
