"""Clients and their groups: 34 heartbeat, 35 unregister, 38 members of a group, 46 check of a subscription.

A heartbeat registers the client's groups, makes the retry topic of each consumer group, and tells all
members (40, before its own answer) when members or subscribed topics changed. Coordinator's handlers; what
a connection is registered for is kept as a note at its worker, for the next coordinator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from shmq.base.errors import ClientFault, GroupNotExist, InvalidParameter
from shmq.broker.client_key import Client
from shmq.broker.consumer_members import Consumption
from shmq.filters.sql92 import compile_sql
from shmq.handlers.client_note import CLIENT_NOTE, client_note
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Place, Route
from shmq.handlers.sql_allowed import check_sql_allowed
from shmq.model import names
from shmq.model.subscription import FUNCTION_EXPRESSION, MessageSelector, build_subscription
from shmq.model.topic_config import SYS_FLAG_UNIT_SUB, TopicConfig
from shmq.protocol.bodies.groups import encode_consumer_list
from shmq.protocol.bodies.heartbeat import ConsumerData, decode_client_config_check, decode_heartbeat
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.client import ConsumerGroupHeader, UnregisterClientHeader


async def heartbeat(ctx: CoordinatorContext, call: Call, command: Command, _header: None) -> Command | None:
    """34: a client says which groups it is in; as V2 heartbeats are not asked for, each says all."""
    data = decode_heartbeat(command.body_bytes())
    await ctx.settled()
    groups = await asyncio.gather(*(_make_group(ctx, c) for c in data.consumers), return_exceptions=True)
    now_ms = ctx.clock.monotonic_ms()
    client = Client(call.key, data.client_id, command.language, command.version, call.peer)
    announcements: list[Coroutine[Any, Any, None]] = []
    refusal: InvalidParameter | None = None
    if not ctx.clients.connected(call.key):  # it left while this request waited
        for consumer, group in zip(data.consumers, groups, strict=True):
            if isinstance(group, _Made):
                announcements += group.announcements(ctx, consumer.group_name)
        await asyncio.gather(*announcements)
        return None
    for name in data.producer_groups:
        ctx.clients.beat_producer(client, name, now_ms)
    try:
        for consumer, group in zip(data.consumers, groups, strict=True):
            if isinstance(group, BaseException):
                raise group
            if group is not None:
                try:
                    _beat_consumer(ctx, client, consumer, group, now_ms, announcements)
                except InvalidParameter as fault:  # one group's mistake; the others are registered
                    refusal = InvalidParameter(f"group {consumer.group_name}: {fault}")
    finally:  # a page without room for a retry topic refuses the rest, but what happened is told
        call.keep(CLIENT_NOTE, client_note(ctx.clients, call.key))
        await asyncio.gather(*announcements)
    if refusal is not None:
        raise refusal
    return command.response(ResponseCode.SUCCESS, ext={})


@dataclass(frozen=True, slots=True)
class _Made:
    """What a heartbeat brought into being: the group, and its retry topic."""

    group: bool
    retry: TopicConfig | None

    def announcements(self, ctx: CoordinatorContext, group: str) -> list[Coroutine[Any, Any, None]]:
        """What is told of it when nobody joined."""
        told = [ctx.announce.topic_changed(self.retry)] if self.retry is not None else []
        return [*told, ctx.announce.group_changed(group)] if self.group else told


async def _make_group(ctx: CoordinatorContext, data: ConsumerData) -> _Made | None:
    """Make a consumer group and its retry topic where they are missing.

    None: there is no such group, and it may not be made. As RocketMQ does: its pulls get 26.
    """
    name, made = data.group_name, False
    known = ctx.groups.get(name)
    if known is None:
        try:
            found = await ctx.group_changes.make(lambda: ctx.groups.find_or_create(name))
            known, made = found
        except (GroupNotExist, InvalidParameter):
            return None
    topic, queues = names.retry_topic(name), known.retry_queue_nums
    if ctx.topics.get(topic) is not None or queues <= 0:
        return _Made(made, None)
    flag = SYS_FLAG_UNIT_SUB if data.unit_mode else 0
    create = ctx.topics.create_retry_topic
    return _Made(made, await ctx.topic_changes.make(lambda: create(topic, queues, flag)))


def _beat_consumer(
    ctx: CoordinatorContext,
    client: Client,
    data: ConsumerData,
    group: _Made,
    now_ms: int,
    announcements: list[Coroutine[Any, Any, None]],
) -> None:
    """Register one consumer group of a heartbeat; adds what has to be announced before the answer."""
    if group.retry is not None:
        announcements.append(ctx.announce.topic_changed(group.retry))
    known = ctx.clients.consumer_group(data.group_name)
    before = dict(known.subscriptions) if known is not None else {}
    consumption = Consumption(data.consume_type, data.message_model, data.consume_from_where)
    changed = ctx.clients.beat_consumer(client, data.group_name, consumption, data.subscriptions, now_ms)
    members = ctx.clients.consumer_group(data.group_name)
    if changed:
        announcements.append(ctx.announce.membership_changed(data.group_name, members_only=not group.group))
    elif group.group or (members is not None and members.subscriptions != before):
        announcements.append(ctx.announce.group_changed(data.group_name, members_only=not group.group))


async def unregister(
    ctx: CoordinatorContext, call: Call, command: Command, header: UnregisterClientHeader
) -> Command:
    """35: a client leaves a producer group, a consumer group, or both."""
    await ctx.settled()
    if header.producer_group:
        ctx.clients.leave_producer(call.key, header.producer_group)
    left = header.consumer_group is not None and ctx.clients.leave_consumer(call.key, header.consumer_group)
    call.keep(CLIENT_NOTE, client_note(ctx.clients, call.key))
    if left and header.consumer_group is not None:
        await ctx.announce.membership_changed(header.consumer_group)
    return command.response(ResponseCode.SUCCESS, ext={})


async def consumer_list(
    ctx: CoordinatorContext, _call: Call, command: Command, header: ConsumerGroupHeader
) -> Command:
    """38: the client ids of a group's live members. Workers answer it themselves when they know."""
    await ctx.settled()
    members = ctx.clients.consumer_group(header.consumer_group)
    if members is None:
        raise ClientFault(f"no consumer of group [{header.consumer_group}] is connected")
    return command.response(ResponseCode.SUCCESS, body=encode_consumer_list(members.client_ids), ext={})


async def check_client_config(
    ctx: CoordinatorContext, _call: Call, command: Command, _header: None
) -> Command:
    """46: whether a subscription can be served, and in the mode the client wants; what is wrong otherwise."""
    check = decode_client_config_check(command.body_bytes())
    members = ctx.clients.consumer_group(check.group)
    if members is not None and check.message_model is not None:
        members.check_model(check.client_id, check.message_model)
    wanted = check.subscription
    build_subscription(wanted.topic, MessageSelector(wanted.sub_string, wanted.expression_type))
    if wanted.expression_type == FUNCTION_EXPRESSION:
        ctx.filters.check_installed(wanted.sub_string)
    elif not wanted.is_by_tags:
        check_sql_allowed(ctx.settings.now)
        compile_sql(wanted.sub_string)
    return command.response(ResponseCode.SUCCESS)


ROUTES: dict[int, Route] = {
    RequestCode.HEART_BEAT: Route(None, heartbeat, Place.COORDINATOR),
    RequestCode.UNREGISTER_CLIENT: Route(UnregisterClientHeader, unregister, Place.COORDINATOR),
    RequestCode.GET_CONSUMER_LIST_BY_GROUP: Route(ConsumerGroupHeader, consumer_list, Place.COORDINATOR),
    RequestCode.CHECK_CLIENT_CONFIG: Route(None, check_client_config, Place.COORDINATOR),
}
"""Served by the coordinator."""
