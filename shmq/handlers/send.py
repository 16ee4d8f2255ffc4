"""SEND_MESSAGE (10) and SEND_MESSAGE_V2 (310): one message, checked, encoded, and appended with its turn.

Runs in the worker's event loop. The path: ``check_send`` -> ``prepare`` properties -> ``encode_record``
(the one encoding, the one copy before the log) -> ``ctx.appends.add``; the reply is ``SendReply``.
"""

from __future__ import annotations

from functools import lru_cache

from shmq.handlers.context import WorkerContext
from shmq.handlers.delayed import delayed
from shmq.handlers.message_properties import broker_properties, prepare
from shmq.handlers.routes import Place, Route
from shmq.handlers.send_checks import check_body_size, check_send, choose_queue, received_body
from shmq.handlers.send_reply import SendReply
from shmq.model.record import encode_record
from shmq.model.sys_flag import LOG_READY_FORBIDDEN
from shmq.net.connection import Connection
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import SendMessageHeader
from shmq.store.append_request import AppendRequest


@lru_cache(maxsize=4096)
def topic_bytes(topic: str) -> bytes:
    """Encode a topic's name; the same few come all the time."""
    return topic.encode()


@lru_cache(maxsize=4)
def _added(cluster: str) -> bytes:
    return broker_properties(cluster)


def send_message(
    ctx: WorkerContext, connection: Connection, command: Command, header: SendMessageHeader
) -> None:
    """Append one message and answer when it is stored as durably as it asked for."""
    topic = check_send(ctx, header)
    queue = choose_queue(ctx, topic, header.queue_id)
    body = received_body(command)
    check_body_size(len(body), ctx.settings.max_message_size)
    properties = prepare(header.properties or "", _added(ctx.settings.broker_cluster_name))
    stored, delay = properties.stored, 0
    if properties.delay_level:
        queue, stored, delay = delayed(ctx, queue, stored, properties.delay_level)
    record = encode_record(
        topic=topic_bytes(queue.topic),
        body=body,
        properties=stored,
        queue_id=queue.queue_id,
        flag=header.flag,
        sys_flag=header.sys_flag & ~LOG_READY_FORBIDDEN,
        born_timestamp=header.born_timestamp,
        born_host=connection.peer.born_host,
        store_host=ctx.store_host,
        reconsume_times=header.reconsume_times or 0,
    )
    size = len(record)
    ctx.appends.add(
        AppendRequest(queue, record, (size,), (properties.tags_code,), delay),
        SendReply(
            ctx,
            connection,
            command,
            topic=header.topic,
            queue_id=queue.queue_id,
            unique_key=properties.unique_key,
            wait=properties.wait,
            count=1,
            size=size,
        ),
    )


ROUTES: dict[int, Route] = {
    RequestCode.SEND_MESSAGE: Route(SendMessageHeader, send_message, Place.WORKER),
    RequestCode.SEND_MESSAGE_V2: Route(SendMessageHeader, send_message, Place.WORKER),
}
