"""Topics of type MULTI_TAG: of a message's several tags one that is wanted is enough."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from shmq import (
    AdminClient,
    BrokerError,
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    MessageExt,
    Producer,
    PullConsumer,
    PullStatus,
    PushConsumer,
)
from shmq.admin import main
from shmq.embedded import Broker
from shmq.model.topic_config import MULTI_TAG, TopicConfig
from tests.helpers.waiting import wait_until

TAGS = ["a", "b", "a||b", "b || c", "c", "", "aa", "xa||ab"]
TOPIC = "SeveralTags"


@pytest.fixture(scope="module")
def sent(shared_broker: Broker) -> Iterator[None]:
    with AdminClient(shared_broker.namesrv_addr) as admin:
        admin.create_topic(shared_broker.tcp_addr, TopicConfig(TOPIC, 1, 1, topic_filter_type=MULTI_TAG))
    with Producer("SeveralTags", namesrv_addr=shared_broker.namesrv_addr) as producer:
        for tags in TAGS:
            producer.send(Message(TOPIC, tags.encode() or b"none", tags=tags or None))
        producer.send([Message(TOPIC, b"a||z", tags="a||z") for _ in range(20)])  # log-ready
    yield


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "socket"])
@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("a", [b"a", b"a||b", *[b"a||z"] * 20]),
        ("b||c", [b"b", b"a||b", b"b || c", b"c"]),
        ("c", [b"b || c", b"c"]),
        ("*", [tags.encode() or b"none" for tags in TAGS] + [b"a||z"] * 20),
    ],
)
def test_pull_and_push_get_what_has_one_of_the_tags(
    shared_broker: Broker, sent: None, expression: str, wanted: list[bytes], direct: bool
) -> None:
    address = shared_broker.namesrv_addr
    name = f"Tags{abs(hash((expression, direct)))}"
    with PullConsumer(name, namesrv_addr=address, direct_pull=direct) as consumer:
        (queue,) = consumer.fetch_subscribe_message_queues(TOPIC)
        found: list[bytes] = []
        offset, end = 0, consumer.max_offset(queue)
        while offset < end:
            result = consumer.pull(queue, expression, offset, 3)
            assert result.status in (PullStatus.FOUND, PullStatus.NO_MATCHED_MSG)
            found += [message.body for message in result.messages]
            offset = result.next_begin_offset
    assert found == wanted
    pushed: list[bytes] = []
    lock = threading.Lock()

    def consume(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> ConsumeConcurrentlyStatus:
        with lock:
            pushed.extend(message.body for message in messages)
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    push = PushConsumer(
        f"{name}Push",
        namesrv_addr=address,
        direct_pull=direct,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    )
    push.subscribe(TOPIC, expression)
    push.register_message_listener(consume)
    with push:
        wait_until(lambda: len(pushed) >= len(wanted), 20, "all are pushed")
    assert sorted(pushed) == sorted(wanted)


def test_the_type_is_set_from_the_command_line_and_nonsense_is_refused(
    shared_broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    update = ["updateTopic", "-n", shared_broker.namesrv_addr, "-c", "DefaultCluster", "-t", "FromShell"]
    assert main.run([*update, "--topicFilterType", "MULTI_TAG"]) == 0
    assert "topicFilterType=MULTI_TAG" in capsys.readouterr().out
    with AdminClient(shared_broker.namesrv_addr) as admin:
        bad = TopicConfig("FromShell", 1, 1, topic_filter_type="ALL_TAGS")
        with pytest.raises(BrokerError, match="MULTI_TAG exist"):
            admin.create_topic(shared_broker.tcp_addr, bad)
