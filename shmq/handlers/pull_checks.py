"""What a pull must satisfy before the store is consulted, in RocketMQ's order (Apache RocketMQ 5.3,
PullMessageProcessor.java), and which filter it reads with.

Used by ``handlers/pull.py`` in the worker's event loop; reads only the worker's view.
"""

from __future__ import annotations

from typing import NamedTuple

from shmq.base.errors import (
    InvalidParameter,
    NoPermission,
    ShmqError,
    SubscriptionNotExist,
    SubscriptionNotLatest,
)
from shmq.broker.broker_view import GroupView
from shmq.handlers.context import Ask, NeedGroup, NeedTopic, WorkerContext
from shmq.model import names
from shmq.model.consumer_group import MessageModel
from shmq.model.subscription import TAG_EXPRESSION, SubscriptionData, build_subscription
from shmq.model.topic_config import PERM_READ, TopicConfig
from shmq.protocol.headers.pull import PullMessageHeader
from shmq.shm.queue_table import QueueRef


class FilterNotSupported(ShmqError):
    """An SQL-92 expression: answered with SYSTEM_ERROR, as a broker without ``enablePropertyFilter`` does."""


class PullTerms(NamedTuple):
    """What the checks found: topic, group and queue, and the wanted tag hashes (None: every message)."""

    topic: TopicConfig
    group: GroupView
    queue: QueueRef | None
    tag_hashes: frozenset[int] | None


def check_pull(ctx: WorkerContext, header: PullMessageHeader) -> PullTerms:
    """Check one pull. Raises the error RocketMQ would answer with, or Ask for an unknown group or topic."""
    settings = ctx.settings
    if not settings.broker_permission & PERM_READ:
        raise NoPermission(
            f"broker {settings.broker_name} has no read permission "
            f"(brokerPermission={settings.broker_permission})"
        )
    group = ctx.view.groups.get(header.consumer_group)
    if group is None:
        names.check_group(header.consumer_group)
        raise Ask(NeedGroup(header.consumer_group))
    if not group.config.consume_enable:
        raise NoPermission(f"consumer group {header.consumer_group} may not consume (consumeEnable=false)")
    topic = ctx.view.topics.get(header.topic)
    if topic is None:
        names.check_topic(header.topic)
        raise Ask(NeedTopic(header.topic))
    if not topic.readable:
        raise NoPermission(
            f"topic {header.topic} has no read permission (perm {topic.perm}): an administrator can grant it "
            "with updateTopic -p 6"
        )
    if not 0 <= header.queue_id < topic.read_queue_nums:
        raise InvalidParameter(
            f"queue id {header.queue_id} is out of range: topic {header.topic} has read queues "
            f"0..{topic.read_queue_nums - 1}"
        )
    tag_hashes = _tag_hashes(header, group)
    queue = ctx.directory.queue(header.topic, header.queue_id)
    if queue is None:
        ctx.directory.catch_up()
        queue = ctx.directory.queue(header.topic, header.queue_id)
    return PullTerms(topic, group, queue, tag_hashes)


def _tag_hashes(header: PullMessageHeader, group: GroupView) -> frozenset[int] | None:
    """Return which tags are wanted, from the request itself or from the group's live subscription."""
    if header.has_subscription:
        _refuse_sql(header.expression_type)
        subscription = build_subscription(header.topic, header.subscription, header.sub_version)
    else:
        subscription = _live_subscription(header, group)
        _refuse_sql(subscription.expression_type)
    if subscription.matches_all or header.topic.startswith(names.RETRY_PREFIX):
        return None
    return frozenset(subscription.code_set)


def _live_subscription(header: PullMessageHeader, group: GroupView) -> SubscriptionData:
    """Return what the group's members said in their heartbeats."""
    name = header.consumer_group
    if not group.members:
        raise SubscriptionNotExist(
            f"consumer group {name} has no live member on this broker: send a heartbeat before pulling"
        )
    if group.message_model is MessageModel.BROADCASTING and not group.config.consume_broadcast_enable:
        raise NoPermission(
            f"consumer group {name} may not consume by broadcasting (consumeBroadcastEnable=false)"
        )
    subscription = group.subscriptions.get(header.topic)
    if subscription is None:
        raise SubscriptionNotExist(f"consumer group {name} has no subscription for topic {header.topic}")
    if subscription.sub_version < header.sub_version:
        raise SubscriptionNotLatest(
            f"the broker knows version {subscription.sub_version} of the subscription of {name} to "
            f"{header.topic}, the pull has {header.sub_version}: send a heartbeat first"
        )
    return subscription


def _refuse_sql(expression_type: str | None) -> None:
    if expression_type and expression_type != TAG_EXPRESSION:
        raise FilterNotSupported(
            f"filtering by {expression_type} is not supported by this broker yet; use a tag expression"
        )
