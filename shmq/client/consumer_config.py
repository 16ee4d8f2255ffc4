"""Settings of the consumers, RocketMQ's names in Python's spelling, with its defaults and accepted ranges."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from dataclasses import dataclass

from shmq.base.errors import InvalidParameter
from shmq.client.config import ClientConfig
from shmq.client.offset_store import OffsetStore
from shmq.client.pull import PULL_BATCH_BYTES, PULL_TIMEOUT_WHEN_SUSPEND_MS, SUSPEND_PULL_MS, SUSPEND_PUSH_MS
from shmq.model.allocation import Strategy, averagely
from shmq.model.consumer_group import ConsumeFromWhere, MessageModel
from shmq.model.names import RESERVED_GROUPS, check_group

MIB = 1 << 20


@dataclass(slots=True)
class ConsumerConfig(ClientConfig):
    """What all consumers share."""

    message_model: MessageModel = MessageModel.CLUSTERING
    consume_from_where: ConsumeFromWhere = ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET
    consume_timestamp: str | None = None
    """yyyyMMddHHmmss, for CONSUME_FROM_TIMESTAMP; None: half an hour ago."""
    allocate_message_queue_strategy: Strategy = averagely
    direct_pull: bool = True
    """Read a local broker's store through its own maps where the broker grants it."""
    max_reconsume_times: int = -1
    offset_store: OffsetStore | None = None
    """Where offsets are kept instead of at the broker, or in the local file: anything that is one."""

    def check(self) -> None:
        """Refuse what no consumer can work with; InvalidParameter."""
        strategy = self.allocate_message_queue_strategy
        if not callable(strategy):
            raise InvalidParameter(
                f"allocate_message_queue_strategy {strategy!r} is no allocation strategy: give a function of "
                "(own client id, queues, client ids), such as those of shmq.model.allocation"
            )

    def consume_timestamp_ms(self) -> int:
        """Return the moment `consume_timestamp` names, in ms."""
        if self.consume_timestamp is None:
            return int(time.time() * 1000) - 30 * 60 * 1000
        try:
            return int(time.mktime(time.strptime(self.consume_timestamp, "%Y%m%d%H%M%S")) * 1000)
        except ValueError:
            raise InvalidParameter(
                f"consume_timestamp {self.consume_timestamp!r} is no time: write yyyyMMddHHmmss"
            ) from None


@dataclass(slots=True)
class FetchingConfig(ConsumerConfig):
    """What consumers with a pull loop of their own share."""

    pull_batch_size: int = 32
    pull_batch_size_in_bytes: int = PULL_BATCH_BYTES
    pull_interval_ms: int = 0
    pull_threshold_for_queue: int = 1000
    pull_threshold_size_for_queue_mib: int = 100
    pull_threshold_for_topic: int = -1
    pull_threshold_size_for_topic_mib: int = -1
    consume_concurrently_max_span: int = 2000
    post_subscription_when_pull: bool = False
    broker_suspend_max_time_ms: int = SUSPEND_PUSH_MS

    def check(self) -> None:
        """Refuse values out of their range; InvalidParameter names setting, value and range."""
        ConsumerConfig.check(self)
        for name, low, high in RANGES:
            value = getattr(self, name, low)
            if not low <= value <= high and not (value == -1 and name in UNLIMITED):
                raise InvalidParameter(f"{name} is {value}; allowed is {low}..{high}")


@dataclass(slots=True)
class PushConsumerConfig(FetchingConfig):
    """Settings of a push consumer."""

    consume_thread_min: int = 20
    """Threads are made when they pay, up to the maximum; so many of them stay when nothing is to be done."""
    consume_thread_max: int = 20
    consume_executor: Executor | None = None
    """Runs the listener in place of threads of the consumer's own; it stays the application's."""
    consume_message_batch_max_size: int = 1
    consume_timeout_min: int = 15
    await_termination_millis_when_shutdown: int = 0
    suspend_current_queue_time_millis: int = 1000
    """Pause of an orderly queue whose listener said SUSPEND, where its context says nothing else."""

    def check(self) -> None:
        """Refuse values out of their range; InvalidParameter names setting, value and range."""
        FetchingConfig.check(self)
        if self.consume_thread_min > self.consume_thread_max:
            raise InvalidParameter(
                f"consume_thread_min {self.consume_thread_min} is over consume_thread_max "
                f"{self.consume_thread_max}"
            )


RANGES = (
    ("consume_thread_min", 1, 1000),
    ("consume_thread_max", 1, 1000),
    ("consume_message_batch_max_size", 1, 1024),
    ("pull_batch_size", 1, 1024),
    ("pull_interval_ms", 0, 65535),
    ("pull_threshold_for_queue", 1, 65535),
    ("pull_threshold_size_for_queue_mib", 1, 1024),
    ("pull_threshold_for_topic", 1, 6553500),
    ("pull_threshold_size_for_topic_mib", 1, 102400),
    ("consume_concurrently_max_span", 1, 65535),
    ("auto_commit_interval_ms", 1000, 1 << 31),
)
UNLIMITED = frozenset({"pull_threshold_for_topic", "pull_threshold_size_for_topic_mib"})
"""Settings for which -1 means: no limit of its own."""


@dataclass(slots=True)
class LitePullConsumerConfig(FetchingConfig):
    """Settings of a lite pull consumer."""

    pull_batch_size: int = 10
    broker_suspend_max_time_ms: int = SUSPEND_PULL_MS
    auto_commit: bool = True
    auto_commit_interval_ms: int = 5000
    poll_timeout_ms: int = 5000
    pull_threshold_for_all: int = 10_000
    """Messages fetched and not polled, over all queues, above which nothing more is fetched."""


@dataclass(slots=True)
class PullConsumerConfig(ConsumerConfig):
    """Settings of a pull consumer."""

    broker_suspend_max_time_ms: int = SUSPEND_PULL_MS
    consumer_timeout_when_suspend_ms: int = PULL_TIMEOUT_WHEN_SUSPEND_MS
    consumer_pull_timeout_ms: int = 10_000
    pull_batch_size_in_bytes: int = 4 * MIB

    def check(self) -> None:
        """Refuse a client wait that is shorter than the broker's hold."""
        ConsumerConfig.check(self)
        if self.consumer_timeout_when_suspend_ms < self.broker_suspend_max_time_ms:
            raise InvalidParameter(
                f"consumer_timeout_when_suspend_ms {self.consumer_timeout_when_suspend_ms} is below "
                f"broker_suspend_max_time_ms {self.broker_suspend_max_time_ms}: no held pull could be "
                "answered"
            )


def check_consumer_group(group: str) -> None:
    """Refuse a group name no consumer may have."""
    check_group(group)
    if group in RESERVED_GROUPS:
        raise InvalidParameter(f"group name {group!r} is reserved: choose another")
