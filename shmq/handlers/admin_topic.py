"""Topics for operators: 17, 18 update; 215 delete; 21, 351 settings; 202 offsets; 300, 305.

Coordinator's handlers. A change is answered when topics.json is durable, the page has the queues, and
workers (for a new or changed topic name servers too) know it.
"""

from __future__ import annotations

import asyncio

from shmq.base.errors import InvalidParameter, ShmqError
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Place, Route
from shmq.model.message_queue import MessageQueue
from shmq.model.topic_config import MULTI_TAG, SINGLE_TAG, TopicConfig
from shmq.protocol.bodies.groups import encode_group_list
from shmq.protocol.bodies.topics import (
    TopicOffset,
    TopicStats,
    TopicTable,
    decode_topic_config_list,
    encode_topic_config,
    encode_topic_list,
    encode_topic_stats,
    encode_topic_table,
)
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.admin import (
    CreateTopicHeader,
    GetAllTopicConfigHeader,
    GetAllTopicConfigResponseHeader,
    GetTopicConfigHeader,
    TopicHeader,
)


async def update_topic(
    ctx: CoordinatorContext, _call: Call, command: Command, header: CreateTopicHeader
) -> Command:
    """17: create a topic or change its settings."""
    wanted = TopicConfig(
        header.topic,
        header.read_queue_nums,
        header.write_queue_nums,
        header.perm,
        header.topic_filter_type,
        header.topic_sys_flag or 0,
        header.order,
    )
    _check_filter_type(wanted)
    changed = await ctx.topic_changes.make(lambda: ctx.topics.update(wanted, header.attributes or ""))
    if changed is not None:
        await ctx.announce.topic_changed(changed)
    return command.response(ResponseCode.SUCCESS)


def _check_filter_type(config: TopicConfig) -> None:
    if config.topic_filter_type not in (SINGLE_TAG, MULTI_TAG):
        raise InvalidParameter(
            f"topicFilterType {config.topic_filter_type!r} is unknown: {SINGLE_TAG} and {MULTI_TAG} exist"
        )


async def update_topics(ctx: CoordinatorContext, _call: Call, command: Command, _header: None) -> Command:
    """18: the same for several topics; the first that is refused ends it."""
    wanted = decode_topic_config_list(command.body_bytes())

    def update_all() -> tuple[list[TopicConfig], ShmqError | None]:
        changed = []
        for config in wanted:
            try:
                _check_filter_type(config)
                if (update := ctx.topics.update(config)) is not None:
                    changed.append(update)
            except ShmqError as error:
                return changed, error
        return changed, None

    changed, refusal = await ctx.topic_changes.make(update_all)
    await asyncio.gather(*map(ctx.announce.topic_changed, changed))
    if refusal is not None:
        raise refusal
    return command.response(ResponseCode.SUCCESS)


async def delete_topic(
    ctx: CoordinatorContext, _call: Call, command: Command, header: TopicHeader
) -> Command:
    """215: delete a topic with its queues and everybody's offsets in it; an unknown one is fine."""
    if ctx.topics.delete(header.topic):
        ctx.offsets.drop_topic(header.topic)
        ctx.resets.drop_topic(header.topic)
        ctx.stats.items.drop_topic(header.topic)
        await ctx.announce.topic_deleted(header.topic)
    return command.response(ResponseCode.SUCCESS)


async def all_topics(
    ctx: CoordinatorContext, _call: Call, command: Command, header: GetAllTopicConfigHeader
) -> Command:
    """21: all topics, or `maxTopicNum` of them from the `topicSeq`th on."""
    configs = list(ctx.topics)
    first = header.topic_seq or 0
    count = header.max_topic_num if header.max_topic_num and header.max_topic_num > 0 else len(configs)
    table = {config.topic_name: config for config in configs[first : first + count]}
    return command.response(
        ResponseCode.SUCCESS,
        header=GetAllTopicConfigResponseHeader(len(configs)),
        body=encode_topic_table(TopicTable(table, ctx.topics.data_version)),
    )


async def one_topic(
    ctx: CoordinatorContext, _call: Call, command: Command, header: GetTopicConfigHeader
) -> Command:
    """351: one topic's settings; 17 when it is unknown."""
    return command.response(ResponseCode.SUCCESS, body=encode_topic_config(ctx.topics.must_get(header.topic)))


async def topic_stats(ctx: CoordinatorContext, _call: Call, command: Command, header: TopicHeader) -> Command:
    """202: first and next offset of each queue, and when its last message was stored."""
    config = ctx.topics.must_get(header.topic)
    table = {}
    for ref in ctx.queues.refs(header.topic)[: config.queue_nums]:
        low, high = ctx.store.min(ref), ctx.store.max(ref)
        stored_ms = ctx.store.store_time_at(ref, high - 1) if high > low else None
        queue = MessageQueue(header.topic, ctx.settings.now.broker_name, ref.queue_id)
        table[queue] = TopicOffset(low, high, stored_ms or 0)
    tps = ctx.stats.topic_put_tps(header.topic, ctx.clock.now_ms())
    return command.response(ResponseCode.SUCCESS, body=encode_topic_stats(TopicStats(table, tps)))


async def who_consumes(
    ctx: CoordinatorContext, _call: Call, command: Command, header: TopicHeader
) -> Command:
    """300: groups with stored offsets in the topic or live members that subscribe to it."""
    await ctx.settled()
    groups = {*ctx.offsets.groups_of(header.topic), *ctx.clients.groups_subscribed_to(header.topic)}
    return command.response(ResponseCode.SUCCESS, body=encode_group_list(sorted(groups)))


async def system_topics(ctx: CoordinatorContext, _call: Call, command: Command, _header: None) -> Command:
    """305: the topics this broker registered by itself."""
    body = encode_topic_list(ctx.topics.system_topic_names, ctx.broker_addr)
    return command.response(ResponseCode.SUCCESS, body=body)


ROUTES: dict[int, Route] = {
    RequestCode.UPDATE_AND_CREATE_TOPIC: Route(CreateTopicHeader, update_topic, Place.COORDINATOR),
    RequestCode.UPDATE_AND_CREATE_TOPIC_LIST: Route(None, update_topics, Place.COORDINATOR),
    RequestCode.DELETE_TOPIC_IN_BROKER: Route(TopicHeader, delete_topic, Place.COORDINATOR),
    RequestCode.GET_ALL_TOPIC_CONFIG: Route(GetAllTopicConfigHeader, all_topics, Place.COORDINATOR),
    RequestCode.GET_TOPIC_CONFIG: Route(GetTopicConfigHeader, one_topic, Place.COORDINATOR),
    RequestCode.GET_TOPIC_STATS_INFO: Route(TopicHeader, topic_stats, Place.COORDINATOR),
    RequestCode.QUERY_TOPIC_CONSUME_BY_WHO: Route(TopicHeader, who_consumes, Place.COORDINATOR),
    RequestCode.GET_SYSTEM_TOPIC_LIST_FROM_BROKER: Route(None, system_topics, Place.COORDINATOR),
}
"""Served by the coordinator."""
