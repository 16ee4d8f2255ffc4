"""Consumer groups: how they consume (the enums of a heartbeat) and what the broker keeps about them.

Apache RocketMQ 5.3: SubscriptionGroupConfig.java, MessageModel.java, ConsumeType.java, ConsumeFromWhere.java.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class MessageModel(StrEnum):
    """Whether members of a group share the queues or each reads all of them."""

    CLUSTERING = "CLUSTERING"
    BROADCASTING = "BROADCASTING"


class ConsumeType(StrEnum):
    """How a consumer takes messages: pull, push or pop."""

    CONSUME_ACTIVELY = "CONSUME_ACTIVELY"
    CONSUME_PASSIVELY = "CONSUME_PASSIVELY"
    CONSUME_POP = "CONSUME_POP"


class ConsumeFromWhere(StrEnum):
    """Where a new group begins; ``_missing_`` reads RocketMQ's three deprecated names as LAST_OFFSET."""

    CONSUME_FROM_LAST_OFFSET = "CONSUME_FROM_LAST_OFFSET"
    CONSUME_FROM_FIRST_OFFSET = "CONSUME_FROM_FIRST_OFFSET"
    CONSUME_FROM_TIMESTAMP = "CONSUME_FROM_TIMESTAMP"

    @classmethod
    def _missing_(cls, value: object) -> "ConsumeFromWhere":
        return cls.CONSUME_FROM_LAST_OFFSET


@dataclass(slots=True)
class SubscriptionGroupConfig:
    """What a broker knows about a consumer group, with RocketMQ's defaults."""

    group_name: str
    consume_enable: bool = True
    consume_from_min_enable: bool = True
    consume_broadcast_enable: bool = True
    consume_message_orderly: bool = False
    retry_queue_nums: int = 1
    retry_max_times: int = 16
    group_retry_policy: dict[str, Any] = field(default_factory=lambda: {"type": "CUSTOMIZED"})
    broker_id: int = 0
    which_broker_when_consume_slowly: int = 1
    notify_consumer_ids_changed_enable: bool = True
    group_sys_flag: int = 0
    consume_timeout_minute: int = 15
    attributes: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON members as RocketMQ names them, in its order."""
        return {member: getattr(self, name) for member, name in _MEMBERS}

    @classmethod
    def from_json(cls, members: Mapping[str, Any], group_name: str = "") -> "SubscriptionGroupConfig":
        """Read the JSON members; unknown ones are ignored, missing or null ones take the defaults."""
        config = cls(group_name)
        for member, name in _MEMBERS:
            value = members.get(member)
            if value is not None:
                setattr(config, name, type(getattr(config, name))(value))
        return config


_MEMBERS = (
    ("attributes", "attributes"),
    ("brokerId", "broker_id"),
    ("consumeBroadcastEnable", "consume_broadcast_enable"),
    ("consumeEnable", "consume_enable"),
    ("consumeFromMinEnable", "consume_from_min_enable"),
    ("consumeMessageOrderly", "consume_message_orderly"),
    ("consumeTimeoutMinute", "consume_timeout_minute"),
    ("groupName", "group_name"),
    ("groupRetryPolicy", "group_retry_policy"),
    ("groupSysFlag", "group_sys_flag"),
    ("notifyConsumerIdsChangedEnable", "notify_consumer_ids_changed_enable"),
    ("retryMaxTimes", "retry_max_times"),
    ("retryQueueNums", "retry_queue_nums"),
    ("whichBrokerWhenConsumeSlowly", "which_broker_when_consume_slowly"),
)
