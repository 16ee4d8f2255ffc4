"""SEND_REPLY_MESSAGE (324, 325): an answer to a request travels to the client that asked, by 326.

Coordinator's handler, as the requester may be connected to any worker. Nothing is stored: a reply has one
reader, who waits for it now; when that client is gone, the responder is told so. Facts: Apache RocketMQ 5.3,
ReplyMessageProcessor.java.
"""

from __future__ import annotations

from shmq.base.errors import BrokerError, MessageIllegal
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Place, Route
from shmq.model.properties import CORRELATION_ID, PUSH_REPLY_TIME, REPLY_TO_CLIENT, decode_properties
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import PushReplyMessageHeader, SendMessageHeader, SendMessageResponseHeader

PUSH_LIMIT_MS = 10_000
"""How long the requester may take to say that it has the reply."""


async def send_reply(
    ctx: CoordinatorContext, call: Call, command: Command, header: SendMessageHeader
) -> Command:
    """Push the reply to the producer it names and answer when that has it; code 1 when it is not there."""
    properties = decode_properties(header.properties or "")
    asked_by, correlation = properties.get(REPLY_TO_CLIENT), properties.get(CORRELATION_ID)
    if not asked_by or not correlation:
        raise MessageIllegal(f"a reply names its request: {REPLY_TO_CLIENT} and {CORRELATION_ID} are needed")
    body = command.body_bytes()
    limit = ctx.settings.now.max_message_size
    if not body or len(body) > limit:
        raise MessageIllegal(f"the reply's body has {len(body)} bytes; 1 to {limit} are allowed")
    await ctx.settled()
    client = ctx.clients.producer_of(asked_by)
    if client is None:
        raise BrokerError(
            ResponseCode.SYSTEM_ERROR, f"the client {asked_by} that asked is not connected (any more)"
        )
    now_ms = ctx.clock.now_ms()
    pushed = PushReplyMessageHeader(
        producer_group=header.producer_group,
        topic=header.topic,
        default_topic=header.default_topic,
        default_topic_queue_nums=header.default_topic_queue_nums,
        queue_id=header.queue_id,
        sys_flag=header.sys_flag,
        born_timestamp=header.born_timestamp,
        flag=header.flag,
        born_host=call.peer,
        store_host=ctx.broker_addr,
        store_timestamp=now_ms,
        properties=f"{header.properties}{PUSH_REPLY_TIME}\x01{now_ms}\x02",
        reconsume_times=header.reconsume_times or 0,
        unit_mode=bool(header.unit_mode),
    )
    request = Command.request(RequestCode.PUSH_REPLY_MESSAGE_TO_CLIENT, pushed, body)
    try:
        answer = await ctx.calls.call(client.key, request, PUSH_LIMIT_MS)
    except TimeoutError:
        raise BrokerError(
            ResponseCode.SYSTEM_ERROR,
            f"the client {asked_by} did not take the reply within {PUSH_LIMIT_MS // 1000} s",
        ) from None
    if answer.code != ResponseCode.SUCCESS:
        raise BrokerError(answer.code, answer.remark or f"the client {asked_by} refused the reply")
    return command.response(ResponseCode.SUCCESS, None, SendMessageResponseHeader("0", header.queue_id, 0))


ROUTES: dict[int, Route] = {
    RequestCode.SEND_REPLY_MESSAGE: Route(SendMessageHeader, send_reply, Place.COORDINATOR),
    RequestCode.SEND_REPLY_MESSAGE_V2: Route(SendMessageHeader, send_reply, Place.COORDINATOR),
}
"""Served by the coordinator."""
