"""Two brokers of one cluster at one name server: what happens to one of them, and what clients make of it.

Each test names the line of the behaviour checklist it holds (docs/checklist.md).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shmq import (
    AdminClient,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    MessageExt,
    Producer,
    PushConsumer,
    SendStatus,
)
from shmq.client.addresses import parse_address
from shmq.client.channel import Channel
from shmq.embedded import Broker
from shmq.model.topic_config import TopicConfig
from shmq.naming.kv_config import ORDER_TOPIC_CONFIG
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.naming import BrokerNameHeader
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.long

QUICK = {"poll_name_server_interval_ms": 100}


@pytest.fixture(scope="module")
def first() -> Iterator[Broker]:
    """Broker-a, with the name server."""
    with Broker(brokerName="broker-a", brokerWorkers=1) as running:
        yield running


@contextmanager
def beside(first: Broker, **settings: object) -> Iterator[Broker]:
    """Run broker-b."""
    where = {"brokerName": "broker-b", "brokerWorkers": 1, "namesrvAddr": first.namesrv_tcp_addr}
    with Broker(**where, **settings) as running:
        yield running


def create(first: Broker, second: Broker, topic: str) -> None:
    """Make a topic of four queues on both, and wait for its route."""
    with AdminClient(first.namesrv_addr) as admin:
        for broker in (first, second):
            admin.create_topic(broker.tcp_addr, TopicConfig(topic, 4, 4))
        wait_until(lambda: len(brokers_of(first, topic)) == 2, 20, "the route has both brokers")


def brokers_of(first: Broker, topic: str) -> set[str]:
    """The brokers that a new producer would send to."""
    with Producer("Looks", namesrv_addr=first.namesrv_addr) as producer:
        return {queue.broker_name for queue in producer.fetch_publish_message_queues(topic)}


def tell(first: Broker, command: Command) -> None:
    """Have the name server do something."""
    channel = Channel(parse_address(first.namesrv_tcp_addr), 5)
    try:
        assert channel.call(command, 5).code == ResponseCode.SUCCESS
    finally:
        channel.close()


def test_39_a_message_that_was_not_flushed_is_sent_to_another_broker(
    first: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broker-b's disk stands still: where another may be asked, the result is the other's."""
    with monkeypatch.context() as patched:
        patched.setenv("SHMQ_FAULTS", "flush.before_sync=stop")
        running = beside(first, flushDiskType="SYNC_FLUSH", syncFlushTimeout=200)
        second = running.__enter__()
    try:
        create(first, second, "NotFlushed")
        settings = {"namesrv_addr": first.namesrv_addr, "retry_another_broker_when_not_store_ok": True}
        with Producer("Asks", **settings) as asking:
            results = [asking.send(Message("NotFlushed", b"%d" % n)) for n in range(8)]
            assert {(r.send_status, r.message_queue.broker_name) for r in results} == {
                (SendStatus.SEND_OK, "broker-a")
            }
        with Producer("Takes", namesrv_addr=first.namesrv_addr) as taking:
            found = {
                (r.send_status, r.message_queue.broker_name)
                for r in (taking.send(Message("NotFlushed", b"once")) for _ in range(16))
            }
        assert found == {
            (SendStatus.SEND_OK, "broker-a"),
            (SendStatus.FLUSH_DISK_TIMEOUT, "broker-b"),
        }
    finally:
        os.kill(second.pid, signal.SIGCONT)
        running.__exit__(None, None, None)


def test_28_a_broker_without_write_permission_is_left_alone_and_drained(first: Broker) -> None:
    got: list[bytes] = []

    def consume(messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        got.extend(message.body for message in messages)
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    with (
        beside(first) as second,
        Producer("Wiped", namesrv_addr=first.namesrv_addr, **QUICK) as producer,
    ):
        create(first, second, "Wiped")
        for number in range(40):
            producer.send(Message("Wiped", b"%d" % number))

        def next_to() -> set[str]:
            return {producer.send(Message("Wiped", b"x")).message_queue.broker_name for _ in range(8)}

        tell(first, Command.request(RequestCode.WIPE_WRITE_PERM_OF_BROKER, BrokerNameHeader("broker-b")))
        wait_until(lambda: next_to() == {"broker-a"}, 20, "broker-b is left alone")
        consumer = PushConsumer(
            "WipedGroup",
            namesrv_addr=first.namesrv_addr,
            consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        )
        consumer.subscribe("Wiped")
        consumer.register_message_listener(consume)
        with consumer:
            wait_until(lambda: {b"%d" % n for n in range(40)} <= set(got), 20, "both are drained")
        tell(first, Command.request(RequestCode.ADD_WRITE_PERM_OF_BROKER, BrokerNameHeader("broker-b")))
        wait_until(lambda: len(next_to()) == 2, 20, "it may be written again")


def test_26_27_an_order_configuration_keeps_the_queues_of_a_broker_that_is_down(first: Broker) -> None:
    topic = "OrderedOverTwo"
    with AdminClient(first.namesrv_addr) as admin, beside(first) as second:
        create(first, second, topic)
        admin.put_kv_config(ORDER_TOPIC_CONFIG, topic, "broker-a:4;broker-b:4")
        second.stop()

        def queues() -> int:
            with Producer("Looks", namesrv_addr=first.namesrv_addr) as producer:
                return len(producer.fetch_publish_message_queues(topic))

        def route() -> tuple[int, str | None]:
            found = admin.topic_route(topic)
            return len(found.broker_datas), found.order_topic_conf

        wait_until(lambda: route()[0] == 1, 20, "the name server knows that broker-b is gone")
        assert (queues(), route()[1]) == (8, "broker-a:4;broker-b:4")
        for enabled in ("false", "true"):
            body = f"orderMessageEnable={enabled}".encode()
            tell(first, Command.request(RequestCode.UPDATE_NAMESRV_CONFIG, body=body))
            assert (queues() == 8, route()[1] is not None) == ((enabled == "true"),) * 2
