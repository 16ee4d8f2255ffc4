"""SEND_MESSAGE (10) and SEND_MESSAGE_V2 (310): one message, checked, encoded, and appended with its turn.

Runs in the worker's event loop. The path: ``check_send`` -> ``prepare`` properties -> ``encode_record``
(the one encoding, the one copy before the log) -> ``ctx.appends.add``; the reply is ``SendReply``.
"""

from __future__ import annotations

from functools import lru_cache

from shmq.base.errors import ServiceNotAvailable
from shmq.handlers.context import WorkerContext
from shmq.handlers.message_properties import broker_properties, check_stored, prepare
from shmq.handlers.routes import Place, Route
from shmq.handlers.send_checks import check_body_size, check_send, choose_queue, received_body
from shmq.handlers.send_reply import SendReply
from shmq.model.delay import clamp_level, delay_levels, delay_ms
from shmq.model.names import SCHEDULE_TOPIC
from shmq.model.properties import REAL_QUEUE_ID, REAL_TOPIC, encode_properties
from shmq.model.record import encode_record
from shmq.model.sys_flag import LOG_READY_FORBIDDEN
from shmq.net.connection import Connection
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import SendMessageHeader
from shmq.shm.queue_table import QueueRef
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
        queue, stored, delay = _delayed(ctx, queue, stored, properties.delay_level)
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


def _delayed(ctx: WorkerContext, queue: QueueRef, stored: bytes, level: int) -> tuple[QueueRef, bytes, int]:
    """Where a delayed message waits: the queue of its level, its properties with its own topic and queue, and
    the delay in ms (Apache RocketMQ 5.3, HookUtils.java). The coordinator delivers it from there."""
    levels = _levels(ctx.settings.message_delay_level)
    waiting = ctx.directory.queue(SCHEDULE_TOPIC, clamp_level(level, levels) - 1)
    if waiting is None:
        raise ServiceNotAvailable(f"topic {SCHEDULE_TOPIC} has no queue for delay level {level}: send later")
    real = encode_properties({REAL_TOPIC: queue.topic, REAL_QUEUE_ID: str(queue.queue_id)})
    check_stored(stored + real)
    return waiting, stored + real, delay_ms(level, levels)


@lru_cache(maxsize=4)
def _levels(text: str) -> list[int]:
    return delay_levels(text)


ROUTES: dict[int, Route] = {
    RequestCode.SEND_MESSAGE: Route(SendMessageHeader, send_message, Place.WORKER),
    RequestCode.SEND_MESSAGE_V2: Route(SendMessageHeader, send_message, Place.WORKER),
}
