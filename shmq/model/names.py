"""Names of topics and groups: the rules they must follow, the reserved ones, the derived ones.

Apache RocketMQ 5.3: Validators.java, TopicValidator.java, MixAll.java. Pure functions, any process.
"""

import re

from shmq.base.errors import InvalidParameter, NoPermission

TOPIC_LENGTH_MAX = 127
DERIVED_TOPIC_LENGTH_MAX = 255
GROUP_LENGTH_MAX = 120
LEGAL_PATTERN = r"^[%|a-zA-Z0-9_-]+$"

RETRY_PREFIX = "%RETRY%"
DLQ_PREFIX = "%DLQ%"
SYSTEM_TOPIC_PREFIX = "rmq_sys_"
SYSTEM_GROUP_PREFIX = "CID_RMQ_SYS_"

AUTO_CREATE_TOPIC = "TBW102"
SCHEDULE_TOPIC = "SCHEDULE_TOPIC_XXXX"
BENCHMARK_TOPIC = "BenchmarkTest"
TRANSACTION_HALF_TOPIC = "RMQ_SYS_TRANS_HALF_TOPIC"
TRANSACTION_OP_HALF_TOPIC = "RMQ_SYS_TRANS_OP_HALF_TOPIC"
TRACE_TOPIC = "RMQ_SYS_TRACE_TOPIC"
TRANSACTION_CHECK_MAX_TOPIC = "TRANS_CHECK_MAX_TIME_TOPIC"
SELF_TEST_TOPIC = "SELF_TEST_TOPIC"
OFFSET_MOVED_TOPIC = "OFFSET_MOVED_EVENT"
CHECKPOINT_TOPIC = "CHECKPOINT_TOPIC"
TIMER_TOPIC = "rmq_sys_wheel_timer"

SYSTEM_TOPICS = frozenset(
    {
        *(
            AUTO_CREATE_TOPIC,
            SCHEDULE_TOPIC,
            BENCHMARK_TOPIC,
            TRANSACTION_HALF_TOPIC,
            TRANSACTION_OP_HALF_TOPIC,
        ),
        *(TRACE_TOPIC, TRANSACTION_CHECK_MAX_TOPIC, SELF_TEST_TOPIC, OFFSET_MOVED_TOPIC, CHECKPOINT_TOPIC),
    }
)
"""Topics no administrator may create or delete; with those starting ``rmq_sys_``."""

NOT_SENDABLE_TOPICS = frozenset(
    {
        *(SCHEDULE_TOPIC, TRANSACTION_HALF_TOPIC, TRANSACTION_OP_HALF_TOPIC),
        *(TRANSACTION_CHECK_MAX_TOPIC, SELF_TEST_TOPIC, OFFSET_MOVED_TOPIC),
    }
)
"""Topics a client may not send to."""

WAITING_TOPICS = frozenset({SCHEDULE_TOPIC, TRANSACTION_HALF_TOPIC, TRANSACTION_OP_HALF_TOPIC, TIMER_TOPIC})
"""Where messages wait until they may be seen: nobody consumes them, operators' tools may look."""

DEFAULT_PRODUCER_GROUP = "DEFAULT_PRODUCER"
DEFAULT_CONSUMER_GROUP = "DEFAULT_CONSUMER"
SCHEDULE_GROUP = "SCHEDULE_CONSUMER"
"""Who reads the queues of delay levels: the broker itself."""
TRANSACTION_GROUP = "CID_RMQ_SYS_TRANS"
"""Who reads half and op messages: the broker itself."""
BROKER_GROUPS = frozenset({SCHEDULE_GROUP, TRANSACTION_GROUP})
"""Groups whose progress only the broker itself moves."""
CLIENT_INNER_PRODUCER_GROUP = "CLIENT_INNER_PRODUCER"
TOOLS_CONSUMER_GROUP = "TOOLS_CONSUMER"
RESERVED_GROUPS = frozenset({DEFAULT_PRODUCER_GROUP, DEFAULT_CONSUMER_GROUP})
"""Group names a client may not start with."""

BUILT_IN_GROUPS = frozenset(
    {
        *(
            TOOLS_CONSUMER_GROUP,
            "FILTERSRV_CONSUMER",
            "SELF_TEST_C_GROUP",
            "CID_ONS-HTTP-PROXY",
            "CID_ONSAPI_PULL",
        ),
        *("CID_ONSAPI_PERMISSION", "CID_ONSAPI_OWNER", TRANSACTION_GROUP),
    }
)
"""Consumer groups every broker knows from the start; with those starting ``CID_RMQ_SYS_``."""

_LEGAL = re.compile(r"[%|a-zA-Z0-9_-]+")


def check_topic(topic: str) -> None:
    """Refuse a topic name that breaks RocketMQ's rules; ``InvalidParameter`` says what is allowed."""
    if not topic or not topic.strip():
        raise InvalidParameter("the topic name may not be blank")
    limit = DERIVED_TOPIC_LENGTH_MAX if topic.startswith((RETRY_PREFIX, DLQ_PREFIX)) else TOPIC_LENGTH_MAX
    if len(topic) > limit:
        raise InvalidParameter(f"the topic name is {len(topic)} characters long; at most {limit} are allowed")
    if not _LEGAL.fullmatch(topic):
        raise InvalidParameter(
            f"topic name {topic!r} holds illegal characters; it must match {LEGAL_PATTERN}"
        )


def check_group(group: str) -> None:
    """Refuse a group name that breaks RocketMQ's rules; ``InvalidParameter`` says what is allowed."""
    if not group or not group.strip():
        raise InvalidParameter("the group name may not be blank")
    if len(group) > GROUP_LENGTH_MAX:
        raise InvalidParameter(
            f"the group name is {len(group)} characters long; at most {GROUP_LENGTH_MAX} are allowed"
        )
    if not _LEGAL.fullmatch(group):
        raise InvalidParameter(
            f"group name {group!r} holds illegal characters; it must match {LEGAL_PATTERN}"
        )


def check_sendable_topic(topic: str) -> None:
    """Refuse a topic that is reserved for the broker's own messages; ``NoPermission``."""
    if topic in NOT_SENDABLE_TOPICS or topic.startswith(SYSTEM_TOPIC_PREFIX):
        raise NoPermission(f"topic {topic!r} belongs to the broker: clients may not send to it")


def is_system_topic(topic: str) -> bool:
    """Tell whether a topic is one of RocketMQ's own."""
    return topic in SYSTEM_TOPICS or topic.startswith(SYSTEM_TOPIC_PREFIX)


def is_system_group(group: str) -> bool:
    """Tell whether a consumer group is built in."""
    return group in BUILT_IN_GROUPS or group.startswith(SYSTEM_GROUP_PREFIX)


def retry_topic(group: str) -> str:
    """Return the retry topic of a consumer group."""
    return RETRY_PREFIX + group


def dlq_topic(group: str) -> str:
    """Return the dead-letter topic of a consumer group."""
    return DLQ_PREFIX + group


def is_retry_topic(topic: str) -> bool:
    """Tell whether a topic is some group's retry topic."""
    return topic.startswith(RETRY_PREFIX)


def is_dlq_topic(topic: str) -> bool:
    """Tell whether a topic is some group's dead-letter topic."""
    return topic.startswith(DLQ_PREFIX)


def reply_topic(cluster: str) -> str:
    """Return the topic that request-reply answers of a cluster go through."""
    return f"{cluster}_REPLY_TOPIC"


def with_namespace(namespace: str | None, name: str) -> str:
    """Return a topic or group as brokers know it in a namespace: `ns%name`, behind a retry or dead letter
    prefix.

    System topics and groups, and names that have the namespace already, stay as they are (Apache RocketMQ
    5.3, NamespaceUtil.java).
    """
    if not namespace or not name or is_system_topic(name) or is_system_group(name):
        return name
    prefix = next((one for one in (RETRY_PREFIX, DLQ_PREFIX) if name.startswith(one)), "")
    rest = name[len(prefix) :]
    return name if rest.startswith(f"{namespace}%") else f"{prefix}{namespace}%{rest}"


def without_namespace(namespace: str | None, name: str) -> str:
    """Return a topic or group as programs in the namespace call it."""
    prefix = next((one for one in (RETRY_PREFIX, DLQ_PREFIX) if name.startswith(one)), "")
    return prefix + name[len(prefix) :].removeprefix(f"{namespace}%") if namespace else name
