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
INT_MAX = (1 << 31) - 1
HOLD_MS_MAX = PULL_TIMEOUT_WHEN_SUSPEND_MS - 2_000
"""A hold may end a little late (`broker/limits.py`), and its answer takes its time."""
OFFSET_STORE_CALLS = ("load", "update", "read", "persist", "remove", "count_read")


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
        """Refuse what no consumer can work with; InvalidParameter names setting, value and range."""
        for name, low, high in RANGES:
            value = getattr(self, name, low)
            if value == -1 and name in UNLIMITED:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                none = "-1 and " if name in UNLIMITED else ""
                raise InvalidParameter(f"{name} is {value!r}; allowed is {none}{low}..{high}")
        for name, kind in (("message_model", MessageModel), ("consume_from_where", ConsumeFromWhere)):
            value = getattr(self, name)
            if isinstance(value, str) and value in kind.__members__:
                setattr(self, name, kind[value])  # RocketMQ's word for it, as a text
            elif not isinstance(value, kind):
                allowed = ", ".join(f"{kind.__name__}.{member.name}" for member in kind)
                raise InvalidParameter(f"{name} is {value!r}; allowed is one of {allowed}")
        self.consume_timestamp_ms()
        missing = [name for name in OFFSET_STORE_CALLS if not hasattr(self.offset_store or OffsetStore, name)]
        if missing:
            raise InvalidParameter(
                f"offset_store {self.offset_store!r} is no offset store: it has no {', '.join(missing)}"
            )
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
        except (ValueError, TypeError, OverflowError):
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
        """Refuse values out of their range, and holds that are not waited for."""
        ConsumerConfig.check(self)
        if self.broker_suspend_max_time_ms > HOLD_MS_MAX:
            raise InvalidParameter(
                f"broker_suspend_max_time_ms is {self.broker_suspend_max_time_ms}; allowed is "
                f"1..{HOLD_MS_MAX}: a pull is given up after {PULL_TIMEOUT_WHEN_SUSPEND_MS}"
            )


@dataclass(slots=True)
class PushConsumerConfig(FetchingConfig):
    """Settings of a push consumer."""

    consume_thread_min: int = 20
    """Threads are made when they pay, up to the maximum; so many of them stay when nothing is to be done."""
    consume_thread_max: int = 20
    consume_executor: Executor | None = None
    """Runs the listener in place of threads of the consumer's own; it stays the application's."""
    consume_message_batch_max_size: int = 1
    consume_timeout_min: float = 15
    await_termination_millis_when_shutdown: int = 0
    suspend_current_queue_time_millis: int = 1000
    """Pause of an orderly queue whose listener said SUSPEND, where its context says nothing else."""

    def check(self) -> None:
        """Refuse values out of their range; InvalidParameter names setting, value and range."""
        FetchingConfig.check(self)
        if not isinstance(self.consume_timeout_min, int | float) or not self.consume_timeout_min > 0:
            raise InvalidParameter(f"consume_timeout_min is {self.consume_timeout_min!r}; allowed is over 0")
        if self.consume_executor is not None and not hasattr(self.consume_executor, "submit"):
            raise InvalidParameter(
                f"consume_executor {self.consume_executor!r} is no executor: it has no submit"
            )
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
    ("pull_batch_size_in_bytes", 1, INT_MAX),
    ("pull_threshold_for_all", 1, INT_MAX),
    ("max_reconsume_times", 0, INT_MAX),
    ("await_termination_millis_when_shutdown", 0, INT_MAX),
    ("suspend_current_queue_time_millis", -1, INT_MAX),
    ("auto_commit_interval_ms", 1000, INT_MAX),
    ("poll_timeout_ms", 0, INT_MAX),
    ("topic_metadata_check_interval_ms", 10, INT_MAX),
    ("broker_suspend_max_time_ms", 1, INT_MAX),
    ("consumer_timeout_when_suspend_ms", 1, INT_MAX),
    ("consumer_pull_timeout_ms", 1, INT_MAX),
    ("poll_name_server_interval_ms", 10, INT_MAX),
    ("heartbeat_broker_interval_ms", 10, INT_MAX),
    ("persist_consumer_offset_interval_ms", 10, INT_MAX),
    ("pull_time_delay_millis_when_exception", 1, INT_MAX),
    ("mq_client_api_timeout_ms", 1, INT_MAX),
    ("connect_timeout_ms", 1, INT_MAX),
)
"""RocketMQ's ranges, and ours where it has none: what is done again at once, for ever, is meant by nobody."""
UNLIMITED = frozenset(
    {"pull_threshold_for_topic", "pull_threshold_size_for_topic_mib", "max_reconsume_times"}
)
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
    topic_metadata_check_interval_ms: int = 30_000
    """How often a topic whose queues are listened to is looked at."""


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
