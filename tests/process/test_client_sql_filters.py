"""SQL-92 subscriptions through a real broker: push, pull, lite pull, what is refused and when."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shmq import (
    BrokerError,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    LitePullConsumer,
    Message,
    MessageExt,
    MessageSelector,
    Producer,
    PullConsumer,
    PullStatus,
    PushConsumer,
)
from shmq.client.consume_service import ConcurrentListener
from shmq.embedded import Broker
from shmq.protocol.codes import ResponseCode
from tests.helpers.waiting import wait_until

NORTH = MessageSelector.by_sql("n BETWEEN 0 AND 99 AND region = 'north'")


def send(broker: Broker, topic: str, count: int = 20) -> list[bytes]:
    """Send numbered messages, every fourth from the north; return the bodies of those."""
    with Producer("SqlTests", namesrv_addr=broker.namesrv_addr) as producer:
        for number in range(count):
            message = Message(topic, b"%d" % number)
            message.put_user_property("n", str(number))
            message.put_user_property("region", "north" if number % 4 == 0 else "south")
            producer.send(message, queue=producer.fetch_publish_message_queues(topic)[0])
    return [b"%d" % number for number in range(0, count, 4)]


def noting(found: list[bytes]) -> ConcurrentListener:
    """A listener that keeps the bodies, and succeeds: else they would come again in a while."""

    def consume(messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        found.extend(bytes(message.body) for message in messages)
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    return consume


@pytest.mark.long
def test_a_push_consumer_gets_only_what_its_expression_is_true_of(shared_broker: Broker) -> None:
    """Checklist 225 on a broker; 239: a changed expression holds from its heartbeat on."""
    found: list[bytes] = []
    consumer = PushConsumer("SqlPush", namesrv_addr=shared_broker.namesrv_addr)
    consumer.config.consume_from_where = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET
    consumer.subscribe("SqlPushed", NORTH)
    consumer.register_message_listener(noting(found))
    wanted = send(shared_broker, "SqlPushed")
    with consumer:
        wait_until(lambda: sorted(found) == sorted(wanted), 20, "the northern ones are delivered")
        consumer.subscribe("SqlPushed", MessageSelector.by_sql("region = 'south'"))
        found.clear()
        send(shared_broker, "SqlPushed")
        wait_until(lambda: len(found) == 15, 20, "the southern ones are delivered")
        assert not set(found) & set(wanted)


def test_pulls_say_when_nothing_matched_and_go_on_behind_it(shared_broker: Broker) -> None:
    wanted = send(shared_broker, "SqlPulled")
    with PullConsumer("SqlPull", namesrv_addr=shared_broker.namesrv_addr) as consumer:
        queue = sorted(consumer.fetch_subscribe_message_queues("SqlPulled"))[0]
        result = consumer.pull(queue, NORTH, 0, 32)
        assert (result.status, [m.body for m in result.messages]) == (PullStatus.FOUND, wanted)
        assert result.next_begin_offset == 20
        few = consumer.pull(queue, NORTH, 0, 2)
        assert ([m.body for m in few.messages], few.next_begin_offset) == (wanted[:2], 5)
        none = consumer.pull(queue, MessageSelector.by_sql("n > 100"), 0, 32)
        assert (none.status, none.next_begin_offset) == (PullStatus.NO_MATCHED_MSG, 20)
        with pytest.raises(BrokerError) as caught:
            consumer.pull(queue, MessageSelector.by_sql("n > 'x'"), 0, 32)
        assert caught.value.code == ResponseCode.SUBSCRIPTION_PARSE_FAILED


@pytest.mark.long
def test_a_held_pull_is_not_answered_by_what_does_not_match(shared_broker: Broker) -> None:
    """Checklist 215."""
    send(shared_broker, "SqlHeld", 4)
    with PullConsumer("SqlHold", namesrv_addr=shared_broker.namesrv_addr) as consumer:
        consumer.config.broker_suspend_max_time_ms = 1_500
        queue = sorted(consumer.fetch_subscribe_message_queues("SqlHeld"))[0]
        began = time.monotonic()
        result = consumer.pull_block_if_not_found(queue, MessageSelector.by_sql("n > 100"), 4, 32)
        assert result.status is PullStatus.NO_NEW_MSG
        assert time.monotonic() - began >= 1.4
        result = consumer.pull_block_if_not_found(queue, MessageSelector.by_sql("n > 100"), 0, 32)
        assert (result.status, result.next_begin_offset) == (PullStatus.NO_MATCHED_MSG, 4)


def test_a_lite_consumer_polls_only_what_matches(shared_broker: Broker) -> None:
    """Checklist 210."""
    wanted = send(shared_broker, "SqlLite")
    found: list[bytes] = []
    consumer = LitePullConsumer("SqlLitePull", namesrv_addr=shared_broker.namesrv_addr)
    consumer.config.consume_from_where = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET
    consumer.subscribe("SqlLite", NORTH)
    with consumer:

        def all_polled() -> bool:
            found.extend(message.body for message in consumer.poll(200))
            return sorted(found) == sorted(wanted)

        wait_until(all_polled, 20, "the northern ones are polled")


@pytest.mark.parametrize("expression", ["a > 'x'", "a = 1 garbage", "a BETWEEN 3 AND 0"])
def test_a_bad_expression_fails_the_start(shared_broker: Broker, expression: str) -> None:
    """Checklist 233 to 235."""
    consumer = PushConsumer("SqlBad", namesrv_addr=shared_broker.namesrv_addr)
    send(shared_broker, "SqlBadTopic", 1)
    consumer.subscribe("SqlBadTopic", MessageSelector.by_sql(expression))
    consumer.register_message_listener(lambda messages, _: None)
    with pytest.raises(BrokerError, match="line 1, column") as caught:
        consumer.start()
    assert caught.value.code == ResponseCode.SUBSCRIPTION_PARSE_FAILED


@pytest.mark.long
def test_a_broker_that_does_not_filter_says_so_at_the_start() -> None:
    """Checklist 237."""
    with Broker(brokerWorkers="1", enablePropertyFilter="false") as broker:
        send(broker, "SqlOff", 1)
        consumer = PushConsumer("SqlOff", namesrv_addr=broker.namesrv_addr)
        consumer.subscribe("SqlOff", NORTH)
        consumer.register_message_listener(lambda messages, _: None)
        with pytest.raises(BrokerError, match="enablePropertyFilter=false"):
            consumer.start()


@pytest.mark.long
def test_an_expression_holds_again_after_a_restart_with_its_consumers_heartbeat(tmp_path: Path) -> None:
    """Checklist 240: the broker keeps no filter data, and nothing is judged otherwise for that."""
    broker = Broker(tmp_path / "store", brokerWorkers="1").start()
    found: list[bytes] = []

    def consumer() -> PushConsumer:
        made = PushConsumer("SqlKept", namesrv_addr=broker.namesrv_addr)
        made.config.consume_from_where = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET
        made.subscribe("SqlKeptTopic", NORTH)
        made.register_message_listener(noting(found))
        return made

    try:
        wanted = send(broker, "SqlKeptTopic")
        with consumer():
            wait_until(lambda: sorted(found) == sorted(wanted), 20, "the northern ones are delivered")
        broker.stop()
        broker.start()
        send(broker, "SqlKeptTopic")
        with consumer():
            wait_until(lambda: len(found) >= 2 * len(wanted), 20, "those sent meanwhile, too")
            send(broker, "SqlKeptTopic")
            wait_until(lambda: len(found) >= 3 * len(wanted), 20, "and those sent now")
        assert sorted(found) == sorted(wanted * 3)
    finally:
        broker.close()
