"""Pulling through the socket: the request, the four statuses, and what is done to found messages.

Used by all consumers and by the admin client; the direct reader returns the same `PullResult`. Pure but for
`PullCalls.pull`, which blocks in the calling thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from shmq.client.channel import view_of
from shmq.client.links import BrokerLink
from shmq.client.pulled_message import PulledMessage, cut_messages
from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import SUBSCRIBE_ALL, SubscriptionData
from shmq.model.topic_config import SYS_FLAG_BROKER_FILTERS
from shmq.protocol.codes import RequestCode, ResponseCode, error_of
from shmq.protocol.command import Command
from shmq.protocol.headers.pull import (
    PULL_COMMIT_OFFSET,
    PULL_SUBSCRIPTION,
    PULL_SUSPEND,
    PullMessageHeader,
    PullMessageResponseHeader,
)

PULL_BATCH_BYTES = 262144
SUSPEND_PUSH_MS = 15_000
SUSPEND_PULL_MS = 20_000
PULL_TIMEOUT_WHEN_SUSPEND_MS = 30_000


class PullStatus(Enum):
    """How a pull ended."""

    FOUND = ResponseCode.SUCCESS
    NO_NEW_MSG = ResponseCode.PULL_NOT_FOUND
    NO_MATCHED_MSG = ResponseCode.PULL_RETRY_IMMEDIATELY
    OFFSET_ILLEGAL = ResponseCode.PULL_OFFSET_MOVED


@dataclass(slots=True)
class PullResult:
    """What a pull brought. `next_begin_offset` is where to go on, whatever the status."""

    status: PullStatus
    next_begin_offset: int
    min_offset: int
    max_offset: int
    messages: list[PulledMessage]
    suggested_broker_id: int = 0
    record_bytes: int = 0
    """Bytes of the records read directly, for the statistics; 0 when the broker counted them itself."""
    is_filtered_there: bool = False
    """Only the broker can tell what of this topic is wanted: it must not be read directly."""

    def __str__(self) -> str:
        """Print status, offsets and the number of messages."""
        return (
            f"{self.status.name}, next {self.next_begin_offset}, min {self.min_offset}, max "
            f"{self.max_offset}, "
            f"{len(self.messages)} messages"
        )


@dataclass(slots=True)
class PullRequest:
    """One pull, before it becomes a command."""

    group: str
    queue: MessageQueue
    offset: int
    max_count: int
    subscription: SubscriptionData
    post_subscription: bool
    """Send the expression along; else the broker uses the group's subscription from the heartbeat."""
    suspend_ms: int = 0
    """How long the broker may hold the pull while nothing is there; 0: answer at once."""
    commit_offset: int = 0
    """Committed along with the pull when it is > 0."""
    max_bytes: int = PULL_BATCH_BYTES

    def command(self) -> Command:
        """Build the request."""
        flags = PULL_COMMIT_OFFSET if self.commit_offset > 0 else 0
        flags |= PULL_SUSPEND if self.suspend_ms > 0 else 0
        flags |= PULL_SUBSCRIPTION if self.post_subscription else 0
        header = PullMessageHeader(
            consumer_group=self.group,
            topic=self.queue.topic,
            queue_id=self.queue.queue_id,
            queue_offset=self.offset,
            max_msg_nums=self.max_count,
            sys_flag=flags,
            commit_offset=self.commit_offset,
            suspend_timeout_millis=self.suspend_ms,
            subscription=self.subscription.sub_string if self.post_subscription else None,
            sub_version=self.subscription.sub_version,
            expression_type=self.subscription.expression_type,
            max_msg_bytes=self.max_bytes,
        )
        return Command.request(RequestCode.PULL_MESSAGE, header)

    def result(self, response: Command) -> PullResult:
        """Read the answer; codes that are no pull status are raised as BrokerError."""
        try:
            status = PullStatus(response.code)
        except ValueError:
            raise error_of(response.code, response.remark) from None
        header = response.read_header(PullMessageResponseHeader)
        bounds = (header.min_offset, header.max_offset)
        messages: list[PulledMessage] = []
        if status is PullStatus.FOUND:
            messages = cut_messages(view_of(response), self.queue.broker_name, bounds)
            messages = wanted(messages, self.subscription)
        result = PullResult(
            status, header.next_begin_offset, *bounds, messages, header.suggest_which_broker_id
        )
        judged = bool((header.topic_sys_flag or 0) & SYS_FLAG_BROKER_FILTERS)
        result.is_filtered_there = judged and not self.subscription.matches_all
        return result

    def pull(self, link: BrokerLink, timeout_s: float) -> PullResult:
        """Pull now, blocking this thread."""
        return self.result(link.call(self.command(), timeout_s))


def wanted(messages: list[PulledMessage], subscription: SubscriptionData) -> list[PulledMessage]:
    """Return the messages that have one of the subscription's tags: brokers compare only hashes."""
    if not subscription.is_by_tags or subscription.sub_string == SUBSCRIBE_ALL:
        return messages
    tags, wants = subscription.tags_set, subscription.wants_tags
    return [message for message in messages if message.tags in tags or wants(message.tags)]
