"""Consumer groups for operators: 200, 225 update; 207 delete; 201, 352 settings; 343, 345 what they read.

Coordinator's handlers. A change is answered when subscriptionGroup.json is durable and the workers know it.
"""

from __future__ import annotations

import asyncio

from shmq.base.errors import ShmqError, SubscriptionNotExist
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Place, Route
from shmq.model import names
from shmq.protocol.bodies.groups import (
    GroupTable,
    decode_group_config,
    decode_group_config_list,
    encode_group_config,
    encode_group_table,
    encode_topic_subscription,
)
from shmq.protocol.bodies.topics import encode_topic_list
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.admin import (
    DeleteGroupHeader,
    GetAllGroupConfigHeader,
    GetAllGroupConfigResponseHeader,
    GroupHeader,
    TopicGroupHeader,
)


async def update_group(ctx: CoordinatorContext, _call: Call, command: Command, _header: None) -> Command:
    """200: create a group or change its settings."""
    config = decode_group_config(command.body_bytes())
    if await ctx.group_changes.make(lambda: ctx.groups.update(config)):
        await ctx.announce.group_changed(config.group_name)
    return command.response(ResponseCode.SUCCESS)


async def update_groups(ctx: CoordinatorContext, _call: Call, command: Command, _header: None) -> Command:
    """225: the same for several groups; the first that is refused ends it."""
    wanted = decode_group_config_list(command.body_bytes())

    def update_all() -> tuple[list[str], ShmqError | None]:
        changed = []
        for config in wanted:
            try:
                if ctx.groups.update(config):
                    changed.append(config.group_name)
            except ShmqError as error:
                return changed, error
        return changed, None

    changed, refusal = await ctx.group_changes.make(update_all)
    await asyncio.gather(*map(ctx.announce.group_changed, changed))
    if refusal is not None:
        raise refusal
    return command.response(ResponseCode.SUCCESS)


async def delete_group(
    ctx: CoordinatorContext, _call: Call, command: Command, header: DeleteGroupHeader
) -> Command:
    """207: delete a group, its offsets too when asked; an unknown one is fine."""
    await ctx.settled()
    group = header.group_name
    if ctx.groups.delete(group):
        ctx.clients.drop_consumer_group(group)
        ctx.locks.drop_group(group)
        ctx.resets.drop(group)
        ctx.stats.items.drop_group(group)
    if header.clean_offset:
        ctx.offsets.drop_group(group)
    await ctx.announce.group_changed(group)
    return command.response(ResponseCode.SUCCESS)


async def all_groups(
    ctx: CoordinatorContext, _call: Call, command: Command, header: GetAllGroupConfigHeader
) -> Command:
    """201: all groups, or `maxGroupNum` of them from the `groupSeq`th on."""
    configs = list(ctx.groups)
    first = header.group_seq or 0
    count = header.max_group_num if header.max_group_num and header.max_group_num > 0 else len(configs)
    table = {config.group_name: config for config in configs[first : first + count]}
    return command.response(
        ResponseCode.SUCCESS,
        header=GetAllGroupConfigResponseHeader(len(configs)),
        body=encode_group_table(GroupTable(table, ctx.groups.forbidden, ctx.groups.data_version)),
    )


async def one_group(ctx: CoordinatorContext, _call: Call, command: Command, header: GroupHeader) -> Command:
    """352: one group's settings; made if that is allowed, else 26."""
    config, made = await ctx.group_changes.make(lambda: ctx.groups.find_or_create(header.group))
    if made:
        await ctx.announce.group_changed(header.group)
    return command.response(ResponseCode.SUCCESS, body=encode_group_config(config))


async def topics_of_group(
    ctx: CoordinatorContext, _call: Call, command: Command, header: GroupHeader
) -> Command:
    """343: topics the group has stored offsets in or subscribes to; its retry topic is left out."""
    await ctx.settled()
    members = ctx.clients.consumer_group(header.group)
    topics = {*ctx.offsets.topics_of(header.group), *(members.subscriptions if members is not None else ())}
    found = sorted(topic for topic in topics if not names.is_retry_topic(topic))
    return command.response(ResponseCode.SUCCESS, body=encode_topic_list(found))


async def subscription_of_group(
    ctx: CoordinatorContext, _call: Call, command: Command, header: TopicGroupHeader
) -> Command:
    """345: the group's live subscription to a topic."""
    await ctx.settled()
    members = ctx.clients.consumer_group(header.group)
    found = members.subscriptions.get(header.topic) if members is not None else None
    if found is None:
        raise SubscriptionNotExist(f"no live member of [{header.group}] subscribes to [{header.topic}]")
    body = encode_topic_subscription(header.group, header.topic, found)
    return command.response(ResponseCode.SUCCESS, body=body)


ROUTES: dict[int, Route] = {
    RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: Route(None, update_group, Place.COORDINATOR),
    RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST: Route(None, update_groups, Place.COORDINATOR),
    RequestCode.DELETE_SUBSCRIPTIONGROUP: Route(DeleteGroupHeader, delete_group, Place.COORDINATOR),
    RequestCode.GET_ALL_SUBSCRIPTIONGROUP_CONFIG: Route(
        GetAllGroupConfigHeader, all_groups, Place.COORDINATOR
    ),
    RequestCode.GET_SUBSCRIPTIONGROUP_CONFIG: Route(GroupHeader, one_group, Place.COORDINATOR),
    RequestCode.QUERY_TOPICS_BY_CONSUMER: Route(GroupHeader, topics_of_group, Place.COORDINATOR),
    RequestCode.QUERY_SUBSCRIPTION_BY_CONSUMER: Route(
        TopicGroupHeader, subscription_of_group, Place.COORDINATOR
    ),
}
"""Served by the coordinator."""
