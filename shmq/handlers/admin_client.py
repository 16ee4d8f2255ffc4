"""Connected clients for operators: 203 consumers, 204 and 328 producers; 307, 309 asked of one consumer.

Coordinator's handlers; they answer from the live members, so only when the coordinator is settled. 307 and
309 are passed on to the client's own connection and its answer is passed back.
"""

from __future__ import annotations

from shmq.base.errors import BrokerError, ClientFault, ConsumerNotOnline, QueryNotFound
from shmq.broker.client_key import Client
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Place, Route
from shmq.model.message_id import parse_offset_message_id
from shmq.protocol.bodies.groups import (
    ClientConnection,
    ConsumerConnections,
    encode_all_producers,
    encode_consumer_connections,
    encode_producer_connections,
)
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.client import (
    ConsumeMessageDirectlyHeader,
    ConsumerGroupHeader,
    GetConsumerRunningInfoHeader,
    ProducerGroupHeader,
)

RELAY_LIMIT_MS = 10_000
"""How long a client may take to answer a passed-on request."""
VERSION_ANSWERS_MANAGEMENT = 62
"""RocketMQ V3_1_8_SNAPSHOT: older clients do not know 307 and 309."""


async def consumer_connections(
    ctx: CoordinatorContext, _call: Call, command: Command, header: ConsumerGroupHeader
) -> Command:
    """203: a group's live members, how they consume and what they subscribe to; 206 without any."""
    await ctx.settled()
    members = ctx.clients.consumer_group(header.consumer_group)
    if members is None:
        raise ConsumerNotOnline(f"no consumer of group [{header.consumer_group}] is connected")
    found = ConsumerConnections(
        [_connection(client) for client in members.clients],
        dict(sorted(members.subscriptions.items())),
        members.consumption.consume_type,
        members.consumption.message_model,
        members.consumption.consume_from_where,
    )
    return command.response(ResponseCode.SUCCESS, body=encode_consumer_connections(found))


async def producer_connections(
    ctx: CoordinatorContext, _call: Call, command: Command, header: ProducerGroupHeader
) -> Command:
    """204: a producer group's live clients; 1 without any."""
    await ctx.settled()
    members = ctx.clients.producer_groups().get(header.producer_group)
    if not members:
        raise ClientFault(f"no producer of group [{header.producer_group}] is connected")
    body = encode_producer_connections(_connection(member.client) for member in members)
    return command.response(ResponseCode.SUCCESS, body=body)


async def all_producers(ctx: CoordinatorContext, _call: Call, command: Command, _header: None) -> Command:
    """328: every live producer by group, with the time of its last heartbeat."""
    await ctx.settled()
    to_wall_ms = ctx.clock.now_ms() - ctx.clock.monotonic_ms()
    table = {
        group: [(_connection(member.client), member.beat_ms + to_wall_ms) for member in members]
        for group, members in ctx.clients.producer_groups().items()
    }
    return command.response(ResponseCode.SUCCESS, body=encode_all_producers(table))


async def running_info(
    ctx: CoordinatorContext, _call: Call, command: Command, header: GetConsumerRunningInfoHeader
) -> Command:
    """307: what a consumer is doing, as it says itself."""
    client = await _member(ctx, header.consumer_group, header.client_id)
    request = Command.request(RequestCode.GET_CONSUMER_RUNNING_INFO, header)
    return await _relay(ctx, client, request, command)


async def consume_directly(
    ctx: CoordinatorContext, _call: Call, command: Command, header: ConsumeMessageDirectlyHeader
) -> Command:
    """309: one consumer takes one message now; the message is found by the offset id and sent along."""
    client = await _member(ctx, header.consumer_group, header.client_id)
    body = None
    if header.msg_id:
        _, physical_offset = parse_offset_message_id(header.msg_id)
        body = ctx.store.record_at(physical_offset)
        if body is None:
            raise QueryNotFound(f"no message has the id {header.msg_id}")
    header.topic_sys_flag = header.topic_sys_flag or 0
    header.group_sys_flag = header.group_sys_flag or 0
    request = Command.request(RequestCode.CONSUME_MESSAGE_DIRECTLY, header, body)
    return await _relay(ctx, client, request, command)


async def _member(ctx: CoordinatorContext, group: str, client_id: str | None) -> Client:
    """The live member an operator means; 1 when it is not connected or too old."""
    await ctx.settled()
    members = ctx.clients.consumer_group(group)
    client = members.find(client_id or "") if members is not None else None
    if client is None:
        raise ClientFault(f"consumer [{group}] [{client_id}] is not connected")
    if client.version < VERSION_ANSWERS_MANAGEMENT:
        raise ClientFault(f"consumer [{client_id}] is too old to answer: RocketMQ 3.1.8 or later is needed")
    return client


async def _relay(ctx: CoordinatorContext, client: Client, request: Command, command: Command) -> Command:
    try:
        answer = await ctx.calls.call(client.key, request, RELAY_LIMIT_MS)
    except TimeoutError:
        raise BrokerError(
            ResponseCode.CONSUME_MSG_TIMEOUT,
            f"consumer [{client.client_id}] did not answer within {RELAY_LIMIT_MS // 1000} s",
        ) from None
    return command.response(answer.code, answer.remark, body=answer.body_bytes(), ext=answer.ext)


def _connection(client: Client) -> ClientConnection:
    return ClientConnection(client.client_id, client.peer, client.language, client.version)


ROUTES: dict[int, Route] = {
    RequestCode.GET_CONSUMER_CONNECTION_LIST: Route(
        ConsumerGroupHeader, consumer_connections, Place.COORDINATOR
    ),
    RequestCode.GET_PRODUCER_CONNECTION_LIST: Route(
        ProducerGroupHeader, producer_connections, Place.COORDINATOR
    ),
    RequestCode.GET_ALL_PRODUCER_INFO: Route(None, all_producers, Place.COORDINATOR),
    RequestCode.GET_CONSUMER_RUNNING_INFO: Route(
        GetConsumerRunningInfoHeader, running_info, Place.COORDINATOR
    ),
    RequestCode.CONSUME_MESSAGE_DIRECTLY: Route(
        ConsumeMessageDirectlyHeader, consume_directly, Place.COORDINATOR
    ),
}
"""Served by the coordinator."""
