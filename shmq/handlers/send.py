"""SEND_MESSAGE (10) and SEND_MESSAGE_V2 (310): one message, checked, encoded, and appended with its turn.

Runs in the worker's event loop. The path: ``check_send`` -> ``prepare`` properties -> ``encode_record``
(the one encoding, the one copy before the log) -> ``ctx.appends.add``; the reply is ``SendReply``.
"""

from __future__ import annotations

from functools import lru_cache

from shmq.handlers.context import Ask, NeedTopic, WorkerContext
from shmq.handlers.delayed import delayed
from shmq.handlers.message_properties import broker_properties, prepare
from shmq.handlers.prepared import prepared
from shmq.handlers.routes import Place, Route
from shmq.handlers.send_checks import check_body_size, check_send, choose_queue, received_body
from shmq.handlers.send_reply import SendReply
from shmq.handlers.sequences import sequence_in, sequence_ref
from shmq.handlers.timed import timed
from shmq.model.names import RETRY_PREFIX, dlq_topic, is_retry_topic
from shmq.model.record import encode_record
from shmq.model.sys_flag import LOG_READY_FORBIDDEN
from shmq.model.topic_config import TopicConfig
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
    dead = _dead_letters(ctx, header) if is_retry_topic(header.topic) else None
    queue = choose_queue(ctx, topic, header.queue_id) if dead is None else choose_queue(ctx, dead, 0)
    body = received_body(command)
    check_body_size(len(body), ctx.settings.max_message_size)
    properties = prepare(header.properties or "", _added(ctx.settings.broker_cluster_name))
    stored, delay, handle = properties.stored, 0, ""
    if properties.is_half and not (header.reconsume_times and properties.delay_level):
        queue, stored = prepared(ctx, queue, header, properties, body)
    elif properties.delay_level and dead is None:
        queue, stored, delay = delayed(ctx, queue, stored, properties.delay_level)
    elif properties.timer is not None and dead is None:
        waiting = timed(ctx, queue, properties, properties.timer)
        if waiting is not None:
            queue, stored, handle = waiting
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
    sequence = None if is_retry_topic(header.topic) else sequence_ref(ctx, sequence_in(stored))
    ctx.appends.add(
        AppendRequest(queue, record, (size,), (properties.tags_code,), delay, sequence=sequence),
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
            recall_handle=handle,
        ),
    )


def _dead_letters(ctx: WorkerContext, header: SendMessageHeader) -> TopicConfig | None:
    """A consumer that could not give a message back (36) sends it to its retry topic itself: after too many
    tries it goes to the group's dead letters instead, at once. None while it may be tried again."""
    group = header.topic[len(RETRY_PREFIX) :]
    limit = header.max_reconsume_times
    if limit is None or limit < 0:
        limit = ctx.view.groups[group].config.retry_max_times
    if (header.reconsume_times or 0) <= limit:
        return None
    topic = dlq_topic(group)
    found = ctx.view.topics.get(topic)
    if found is None:
        raise Ask(NeedTopic(topic, create=True))
    return found


ROUTES: dict[int, Route] = {
    RequestCode.SEND_MESSAGE: Route(SendMessageHeader, send_message, Place.WORKER),
    RequestCode.SEND_MESSAGE_V2: Route(SendMessageHeader, send_message, Place.WORKER),
}
