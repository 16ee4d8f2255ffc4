"""Names of topics and groups."""

import pytest

from shmq.base.errors import InvalidParameter, NoPermission
from shmq.model.names import (
    NOT_SENDABLE_TOPICS,
    check_group,
    check_sendable_topic,
    check_topic,
    dlq_topic,
    is_dlq_topic,
    is_retry_topic,
    is_system_group,
    is_system_topic,
    reply_topic,
    retry_topic,
)


def test_a_topic_of_127_characters_is_accepted_and_one_of_128_is_not():
    check_topic("a" * 127)
    with pytest.raises(InvalidParameter, match="127"):
        check_topic("a" * 128)


def test_retry_and_dead_letter_topics_may_have_255_characters():
    for prefix in ("%RETRY%", "%DLQ%"):
        check_topic(prefix + "a" * (255 - len(prefix)))
        with pytest.raises(InvalidParameter, match="255"):
            check_topic(prefix + "a" * (256 - len(prefix)))


@pytest.mark.parametrize("topic", ["a.b", "a b", "ä", "a\n", "a/b", "a\0", ""])
def test_an_illegal_topic_names_the_legal_pattern(topic):
    with pytest.raises(InvalidParameter, match=r"blank|must match"):
        check_topic(topic)


@pytest.mark.parametrize("topic", ["Topic-1", "%SYS%x", "a|b", "under_score", "7"])
def test_every_legal_character_is_accepted(topic):
    check_topic(topic)


def test_a_group_of_120_characters_is_accepted_and_one_of_121_is_not():
    check_group("g" * 120)
    with pytest.raises(InvalidParameter, match="120"):
        check_group("g" * 121)
    for group in ("", " ", "a.b"):
        with pytest.raises(InvalidParameter):
            check_group(group)


@pytest.mark.parametrize("topic", [*sorted(NOT_SENDABLE_TOPICS), "rmq_sys_wheel_timer"])
def test_the_brokers_own_topics_may_not_be_sent_to(topic):
    with pytest.raises(NoPermission, match=topic):
        check_sendable_topic(topic)


def test_ordinary_and_template_topics_may_be_sent_to():
    for topic in ("orders", "TBW102", "RMQ_SYS_TRACE_TOPIC", "%RETRY%g"):
        check_sendable_topic(topic)


def test_derived_names():
    assert retry_topic("g") == "%RETRY%g" and is_retry_topic("%RETRY%g") and not is_retry_topic("g")
    assert dlq_topic("g") == "%DLQ%g" and is_dlq_topic("%DLQ%g")
    assert reply_topic("C1") == "C1_REPLY_TOPIC"


def test_system_topics_and_groups_are_known():
    assert is_system_topic("TBW102") and is_system_topic("rmq_sys_anything") and not is_system_topic("orders")
    assert is_system_group("TOOLS_CONSUMER") and is_system_group("CID_RMQ_SYS_X") and not is_system_group("g")
