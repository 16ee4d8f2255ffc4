"""What a pull must satisfy before the store is consulted, in RocketMQ's order (Apache RocketMQ 5.3,
PullMessageProcessor.java), and which filter it reads with.

Used by ``handlers/pull.py`` in the worker's event loop; reads only the worker's view.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from shmq.base.errors import (
    InvalidParameter,
    NoPermission,
    SubscriptionNotExist,
    SubscriptionNotLatest,
)
from shmq.broker.broker_view import GroupView
from shmq.filters.sql92 import SqlFilter, compile_sql
from shmq.filters.stored_properties import finder, stored
from shmq.handlers.context import Ask, NeedGroup, NeedTopic, WorkerContext
from shmq.handlers.sql_allowed import check_sql_allowed
from shmq.model import names
from shmq.model.consumer_group import MessageModel
from shmq.model.properties import TAGS
from shmq.model.record import properties_of
from shmq.model.subscription import (
    FUNCTION_EXPRESSION,
    TAG_EXPRESSION,
    MessageSelector,
    SubscriptionData,
    build_subscription,
    check_function_name,
)
from shmq.model.topic_config import PERM_READ, TopicConfig
from shmq.protocol.headers.pull import PullMessageHeader
from shmq.shm.queue_table import QueueRef
from shmq.store.read import ExactFilter


class MessageFilter(NamedTuple):
    """What is wanted: tag hashes for the queue's units (None: every one), then a look at the record itself
    (None: no need)."""

    tag_hashes: frozenset[int] | None = None
    exact: ExactFilter | None = None
    function: str = ""
    """Name of the filter function that has the last word, after the pull has found messages."""


EVERYTHING = MessageFilter()


class PullTerms(NamedTuple):
    """What the checks found: topic, group and queue, and what of the queue is wanted."""

    topic: TopicConfig
    group: GroupView
    queue: QueueRef | None
    wanted: MessageFilter


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
    # RocketMQ looks at this only where the pull leans on the heartbeat's subscription; a member that names
    # its own in the request would broadcast all the same.
    if group.message_model is MessageModel.BROADCASTING and not group.config.consume_broadcast_enable:
        raise NoPermission(
            f"consumer group {header.consumer_group} may not consume by broadcasting "
            "(consumeBroadcastEnable=false)"
        )
    topic = ctx.view.topics.get(header.topic)
    if topic is None:
        names.check_topic(header.topic)
        raise Ask(NeedTopic(header.topic))
    if header.topic in names.WAITING_TOPICS and header.consumer_group != names.TOOLS_CONSUMER_GROUP:
        raise NoPermission(f"topic {header.topic} is the broker's own: its messages are not visible yet")
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
    wanted = _filter_of(ctx, header, group, topic)
    queue = ctx.directory.queue(header.topic, header.queue_id)
    if queue is None:
        ctx.directory.catch_up()
        queue = ctx.directory.queue(header.topic, header.queue_id)
    return PullTerms(topic, group, queue, wanted)


def _filter_of(
    ctx: WorkerContext, header: PullMessageHeader, group: GroupView, topic: TopicConfig
) -> MessageFilter:
    """Return what is wanted, from the request itself or from the group's live subscription.

    Where messages have several tags a hash of them says nothing: the record itself is asked. Retried messages
    were chosen once already and are not judged again (``filterSupportRetry`` for SQL-92).
    """
    if header.has_subscription:
        wanted = MessageSelector(header.subscription or "", header.expression_type or TAG_EXPRESSION)
        subscription = build_subscription(header.topic, wanted, header.sub_version)
    else:
        subscription = _live_subscription(header, group)
    is_retry = header.topic.startswith(names.RETRY_PREFIX)
    if subscription.expression_type == FUNCTION_EXPRESSION:
        check_function_name(subscription.sub_string)
        return EVERYTHING if is_retry else MessageFilter(function=subscription.sub_string)
    if not subscription.is_by_tags:
        check_sql_allowed(ctx.settings)
        if is_retry and not ctx.settings.filter_support_retry:
            return EVERYTHING
        return MessageFilter(exact=record_filter(compile_sql(subscription.sub_string)))
    if subscription.matches_all or is_retry:
        return EVERYTHING
    if topic.has_several_tags:
        return MessageFilter(exact=tags_filter(frozenset(subscription.tags_set)))
    return MessageFilter(tag_hashes=frozenset(subscription.code_set))


@lru_cache(maxsize=1024)
def tags_filter(wanted: frozenset[str]) -> ExactFilter:
    """Return a look at one record's tags, of which one has to be among those `wanted`."""
    names_of = {tag.encode() for tag in wanted}
    find = finder(TAGS)

    def exact(record: memoryview) -> bool:
        tags = find(stored(properties_of(record)))
        return tags is not None and any(tag.strip() in names_of for tag in tags.split(b"||"))

    return exact


def record_filter(wanted: SqlFilter) -> ExactFilter:
    """Return an expression as the store's readers take it: a look at one record's properties."""
    matches = wanted.matches

    def exact(record: memoryview) -> bool:
        return matches(properties_of(record))

    return exact


def _live_subscription(header: PullMessageHeader, group: GroupView) -> SubscriptionData:
    """Return what the group's members said in their heartbeats."""
    name = header.consumer_group
    if not group.members:
        raise SubscriptionNotExist(
            f"consumer group {name} has no live member on this broker: send a heartbeat before pulling"
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
