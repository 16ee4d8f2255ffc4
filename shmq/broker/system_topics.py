"""The topics a broker registers by itself at start (Apache RocketMQ 5.3, TopicConfigManager.java). Pure."""

from __future__ import annotations

from shmq.model import names
from shmq.model.broker_settings import BrokerSettings
from shmq.model.delay import delay_levels
from shmq.model.topic_config import PERM_INHERIT, PERM_READ_WRITE, TopicConfig

_ANY = PERM_READ_WRITE | PERM_INHERIT
DELAY_QUEUES_MIN = 18
"""RocketMQ's own number, whatever the table of delay levels says."""


def system_topics(settings: BrokerSettings) -> dict[str, TopicConfig]:
    """The broker's own topics by name, as the settings want them."""
    cluster, broker = settings.broker_cluster_name, settings.broker_name
    levels = len(delay_levels(settings.message_delay_level))
    rows: list[tuple[str, int, int]] = [
        (names.SELF_TEST_TOPIC, 1, PERM_READ_WRITE),
        (names.BENCHMARK_TOPIC, 1024, PERM_READ_WRITE),
        (cluster, 16, _ANY if settings.cluster_topic_enable else PERM_INHERIT),
        (broker, 1, _ANY if settings.broker_topic_enable else PERM_INHERIT),
        (names.OFFSET_MOVED_TOPIC, 1, PERM_READ_WRITE),
        (names.SCHEDULE_TOPIC, max(DELAY_QUEUES_MIN, levels), PERM_READ_WRITE),
        (names.reply_topic(cluster), 1, PERM_READ_WRITE),
        (f"{names.SYSTEM_TOPIC_PREFIX}REVIVE_LOG_{cluster}", 8, PERM_READ_WRITE),
        (f"{names.SYSTEM_TOPIC_PREFIX}SYNC_BROKER_MEMBER_{broker}", 1, PERM_INHERIT),
        (names.TRANSACTION_HALF_TOPIC, 1, PERM_READ_WRITE),
        (names.TRANSACTION_OP_HALF_TOPIC, 1, PERM_READ_WRITE),
        (names.TRANSACTION_CHECK_MAX_TOPIC, 1, PERM_READ_WRITE),
        (names.TIMER_TOPIC, 1, PERM_READ_WRITE),
    ]
    if settings.auto_create_topic_enable:
        rows.append((names.AUTO_CREATE_TOPIC, settings.default_topic_queue_nums, _ANY))
    if settings.trace_topic_enable:
        rows.append((settings.msg_trace_topic_name, 1, PERM_READ_WRITE))
    return {name: TopicConfig(name, queues, queues, perm) for name, queues, perm in rows}
