"""Limits and bad input at a whole broker: RocketMQ's code, and a sentence that says what is allowed.

Once as any RocketMQ client sends it (JSON frames over TCP, which no check of ours has seen before), once
through our own client, which refuses most of it before anything is sent.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from shmq import AdminClient, Message, MessageQueue, Producer, PullConsumer
from shmq.base.errors import BrokerError, ShmqError
from shmq.client.errors import ClientError
from shmq.embedded import Broker
from shmq.model.topic_config import TopicConfig
from shmq.protocol.codes import RequestCode, response_code_of
from tests.helpers.supervised_broker import RawClient

BODY_MAX = 1 << 20
TOPICS = {"Plain": 6, "NoWrite": 4, "NoRead": 2}


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(autoCreateTopicEnable=False, maxMessageSize=BODY_MAX) as running:
        with AdminClient(running.namesrv_addr) as admin:
            for topic, perm in TOPICS.items():
                admin.create_topic(running.tcp_addr, TopicConfig(topic, 4, 4, perm=perm))
        yield running


@pytest.fixture
def raw(broker: Broker) -> Iterator[RawClient]:
    with RawClient(socket.create_connection(("127.0.0.1", broker.tcp_port), timeout=10)) as client:
        yield client


@pytest.fixture(scope="module")
def producer(broker: Broker) -> Iterator[Producer]:
    with Producer(
        "Limits", namesrv_addr=broker.namesrv_addr, compress_msg_body_over_howmuch=1 << 30
    ) as running:
        yield running


def sending(**changes: Any) -> dict[str, Any]:
    """The fields of a send that is as it should be, but for `changes`."""
    fields = {
        "producerGroup": "Limits",
        "topic": "Plain",
        "defaultTopic": "TBW102",
        "defaultTopicQueueNums": 4,
        "queueId": 0,
        "sysFlag": 0,
        "bornTimestamp": 1_700_000_000_000,
        "flag": 0,
        "properties": "",
    }
    return fields | changes


def pulling(**changes: Any) -> dict[str, Any]:
    """The fields of a pull that is as it should be, but for `changes`."""
    fields = {
        "consumerGroup": "Limits",
        "topic": "Plain",
        "queueId": 0,
        "queueOffset": 0,
        "maxMsgNums": 32,
        "sysFlag": 4,
        "commitOffset": 0,
        "suspendTimeoutMillis": 0,
        "subscription": "*",
        "subVersion": 0,
    }
    return fields | changes


SENDS = [
    ("a body over maxMessageSize", {}, bytes(BODY_MAX + 1), 13, str(BODY_MAX)),
    ("an empty body", {}, b"", 13, "empty"),
    ("a topic outside the pattern", {"topic": "a.b"}, b"x", 29, "a-zA-Z"),
    ("a topic over 127 bytes", {"topic": "t" * 128}, b"x", 29, "127"),
    ("an empty topic", {"topic": ""}, b"x", 29, "blank"),
    ("properties over 32,767 bytes", {"properties": "k\x01" + "v" * 32_766}, b"x", 13, "32767"),
    ("a reserved topic", {"topic": "SCHEDULE_TOPIC_XXXX"}, b"x", 16, "belongs to the broker"),
    ("the template of new topics", {"topic": "TBW102"}, b"x", 16, "TBW102"),
    ("an unknown topic", {"topic": "Nowhere"}, b"x", 17, "updateTopic"),
    ("a queue id out of range", {"queueId": 4}, b"x", 29, "0..3"),
    ("a topic without write permission", {"topic": "NoWrite"}, b"x", 16, "write permission"),
]
PULLS = [
    ("a queue id out of range", {"queueId": 4}, 29, "0..3"),
    ("an unknown topic", {"topic": "Nowhere"}, 17, "Nowhere"),
    ("a topic without read permission", {"topic": "NoRead"}, 16, "read permission"),
]


@pytest.mark.parametrize(
    ("changes", "body", "code", "words"), [r[1:] for r in SENDS], ids=[r[0] for r in SENDS]
)
def test_a_send_over_tcp_is_refused_with_the_code_and_what_is_allowed(
    raw: RawClient, changes: dict[str, Any], body: bytes, code: int, words: str
) -> None:
    answer = raw.ask(RequestCode.SEND_MESSAGE, sending(**changes), body)
    assert (answer.code, words in (answer.remark or "")) == (code, True), answer.remark
    assert raw.ask(RequestCode.SEND_MESSAGE, sending(), b"the next one is served").code == 0


@pytest.mark.parametrize(("changes", "code", "words"), [r[1:] for r in PULLS], ids=[r[0] for r in PULLS])
def test_a_pull_over_tcp_is_refused_with_the_code_and_what_is_allowed(
    raw: RawClient, changes: dict[str, Any], code: int, words: str
) -> None:
    answer = raw.ask(RequestCode.PULL_MESSAGE, pulling(**changes))
    assert (answer.code, words in (answer.remark or "")) == (code, True), answer.remark


def code_of(error: ShmqError) -> int:
    return error.code if isinstance(error, BrokerError | ClientError) else response_code_of(error)


def reserved() -> Message:
    message = Message("Plain", b"x")
    message.put_user_property("DELAY", "3")
    return message


THROUGH_THE_CLIENT = [
    ("a body over the limit", lambda: Message("Plain", bytes(BODY_MAX + 1)), 13, str(BODY_MAX)),
    ("an empty body", lambda: Message("Plain", b""), 13, "empty"),
    ("a topic outside the pattern", lambda: Message("a.b", b"x"), None, "a-zA-Z"),
    ("a topic over 127 bytes", lambda: Message("t" * 128, b"x"), None, "127"),
    ("properties over 32,767 bytes", lambda: Message("Plain", b"x", keys="k" * 32_767), 13, "32767"),
    ("a reserved topic", lambda: Message("SCHEDULE_TOPIC_XXXX", b"x"), None, "SCHEDULE_TOPIC_XXXX"),
    ("a reserved property", reserved, None, "DELAY"),
    ("an unknown topic", lambda: Message("Nowhere", b"x"), 10005, "Nowhere"),
    ("a topic without write permission", lambda: Message("NoWrite", b"x"), 10005, "NoWrite"),
]


@pytest.mark.parametrize(
    ("make", "code", "words"), [r[1:] for r in THROUGH_THE_CLIENT], ids=[r[0] for r in THROUGH_THE_CLIENT]
)
def test_our_client_says_what_is_allowed(producer: Producer, make: Any, code: int | None, words: str) -> None:
    with pytest.raises(ShmqError) as caught:
        producer.send(make())
    assert words in str(caught.value), caught.value
    if code is not None:
        error = caught.value
        assert code == (
            error.code if isinstance(error, BrokerError | ClientError) else response_code_of(error)
        )


def test_a_queue_of_a_topic_that_does_not_have_it_is_refused_to_our_client(
    broker: Broker, producer: Producer
) -> None:
    with pytest.raises(BrokerError, match=r"0\.\.3") as sent:
        producer.send(Message("Plain", b"x"), queue=MessageQueue("Plain", broker.broker_name, 4))
    assert sent.value.code == 29
    with PullConsumer("Limits", namesrv_addr=broker.namesrv_addr) as consumer:
        with pytest.raises(BrokerError, match=r"0\.\.3"):
            consumer.pull(MessageQueue("Plain", broker.broker_name, 4), "*", 0, 1)
        with pytest.raises(BrokerError, match="read permission"):
            consumer.pull(MessageQueue("NoRead", broker.broker_name, 0), "*", 0, 1)
