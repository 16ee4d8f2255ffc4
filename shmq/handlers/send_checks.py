"""The checks every send passes before anything is encoded, in RocketMQ's order (Apache RocketMQ 5.3,
AbstractSendMessageProcessor.java): time, broker permission, topic name, existence, permission, queue id.

Pure but for the worker's view; called by the send handlers.
"""

from __future__ import annotations

import itertools
from typing import Protocol

from shmq.base.errors import (
    GroupNotExist,
    InvalidParameter,
    MessageIllegal,
    NoPermission,
    ServiceNotAvailable,
    ShmqError,
)
from shmq.handlers.context import Ask, NeedGroup, NeedTopic, WorkerContext
from shmq.model import names
from shmq.model.topic_config import PERM_WRITE, TopicConfig
from shmq.protocol.command import Command
from shmq.shm.queue_table import QueueRef

_turn = itertools.count()


class SendHeader(Protocol):
    """What the headers of all sends have in common."""

    topic: str
    default_topic: str
    default_topic_queue_nums: int
    queue_id: int


class NotYetAccepting(ShmqError):
    """``startAcceptSendRequestTimeStamp`` is in the future; answered with SYSTEM_ERROR, as RocketMQ does."""


def check_send(ctx: WorkerContext, header: SendHeader) -> TopicConfig:
    """Check who may send where; return the topic's settings. Raises Ask for a topic unknown here."""
    settings = ctx.settings
    accept_from_ms = settings.start_accept_send_request_time_stamp
    if accept_from_ms and ctx.clock.now_ms() < accept_from_ms:
        raise NotYetAccepting(f"this broker accepts sends from {accept_from_ms} ms (Unix time) on")
    topic = ctx.view.topics.get(header.topic)
    if topic is None:
        _check_name(header.topic)
        _check_retry_group(ctx, header.topic)
        raise Ask(
            NeedTopic(
                topic=header.topic,
                default_topic=header.default_topic,
                queue_nums=header.default_topic_queue_nums,
                create=True,
            )
        )
    if header.topic in names.NOT_SENDABLE_TOPICS or header.topic.startswith(names.SYSTEM_TOPIC_PREFIX):
        names.check_sendable_topic(header.topic)
    if not settings.broker_permission & PERM_WRITE:
        raise NoPermission(
            f"broker {settings.broker_name} has no write permission (brokerPermission="
            f"{settings.broker_permission}): send to another broker"
        )
    if not topic.writable:
        raise NoPermission(
            f"topic {header.topic} has no write permission (perm {topic.perm}): an administrator can grant "
            "it with updateTopic -p 6"
        )
    if header.topic.startswith(names.RETRY_PREFIX):
        _check_retry_group(ctx, header.topic)
    return topic


def _check_name(topic: str) -> None:
    """Refuse illegal and reserved names before anybody is asked about them."""
    names.check_topic(topic)
    names.check_sendable_topic(topic)


def _check_retry_group(ctx: WorkerContext, topic: str) -> None:
    """A retry topic belongs to a known group."""
    if not topic.startswith(names.RETRY_PREFIX):
        return
    group = topic[len(names.RETRY_PREFIX) :]
    if group not in ctx.view.groups:
        if not group:
            raise GroupNotExist("a retry topic without a group name")
        raise Ask(NeedGroup(group))


def choose_queue(ctx: WorkerContext, topic: TopicConfig, queue_id: int) -> QueueRef:
    """Return the queue to append to; a negative ``queue_id`` takes the write queues in turn.

    Raises InvalidParameter for a queue id the topic does not have.
    """
    if queue_id < 0:
        queue_id = next(_turn) % max(1, topic.write_queue_nums)
    elif queue_id >= topic.queue_nums:
        raise InvalidParameter(
            f"queue id {queue_id} is out of range: topic {topic.topic_name} has queues "
            f"0..{topic.queue_nums - 1}"
        )
    queue = ctx.directory.queue(topic.topic_name, queue_id)
    if queue is None:
        ctx.directory.catch_up()
        queue = ctx.directory.queue(topic.topic_name, queue_id)
        if queue is None:
            raise ServiceNotAvailable(
                f"queue {queue_id} of topic {topic.topic_name} is being made or deleted: send again later"
            )
    return queue


def received_body(command: Command) -> memoryview:
    """Return the body of a received command, empty when it has none."""
    body = command.body
    return memoryview(b"") if body is None or isinstance(body, list) else memoryview(body)


def check_body_size(size: int, body_bytes_max: int) -> None:
    """Refuse an empty body and one over ``maxMessageSize``."""
    if 0 < size <= body_bytes_max:
        return
    if size <= 0:
        raise MessageIllegal("the message body is empty: at least 1 byte is needed")
    raise MessageIllegal(
        f"the message body has {size} bytes, at most {body_bytes_max} are allowed (maxMessageSize)"
    )
