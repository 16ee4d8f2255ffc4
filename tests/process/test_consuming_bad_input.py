"""What consumers are told that cannot be: errors name the fault, nothing stored or committed changes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest

from shmq import (
    BrokerError,
    ClientFault,
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    ConsumeOrderlyContext,
    ConsumeOrderlyStatus,
    LitePullConsumer,
    Message,
    MessageExt,
    MessageModel,
    MessageQueue,
    MessageSelector,
    Producer,
    PullConsumer,
    PullScheduleService,
    PullTaskContext,
    PushConsumer,
)
from shmq.base.errors import InvalidParameter, SubscriptionParseFailed
from shmq.client import consume_service
from shmq.client.broker_calls import BrokerCalls
from shmq.embedded import Broker
from shmq.protocol.codes import ResponseCode
from tests.helpers.filled_topic import filled
from tests.helpers.waiting import wait_until

FIRST = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET
SUCCESS = ConsumeConcurrentlyStatus.CONSUME_SUCCESS


class Seen:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def __call__(self, messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        self.bodies += [bytes(message.body) for message in messages]
        return SUCCESS


def member(
    broker: Broker, topic: str, listener: Callable[..., object], group: str = "", **settings: object
) -> PushConsumer:
    consumer = PushConsumer(
        group or f"{topic}Group", namesrv_addr=broker.namesrv_addr, consume_from_where=FIRST, **settings
    )
    consumer.subscribe(topic)
    consumer.register_message_listener(listener)  # type: ignore[arg-type]
    return consumer


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("it has no text")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"consume_thread_min": 0}, r"consume_thread_min is 0; allowed is 1\.\.1000"),
        ({"consume_thread_min": "4"}, r"consume_thread_min is '4'; allowed is 1\.\.1000"),
        ({"consume_thread_max": 1001}, r"consume_thread_max is 1001; allowed is 1\.\.1000"),
        ({"consume_thread_min": 9, "consume_thread_max": 8}, "consume_thread_min 9 is over"),
        ({"consume_message_batch_max_size": 1025}, r"allowed is 1\.\.1024"),
        ({"pull_threshold_for_queue": 0}, r"pull_threshold_for_queue is 0; allowed is 1\.\.65535"),
        ({"max_reconsume_times": -2}, r"max_reconsume_times is -2; allowed is -1 and 0\.\."),
        ({"heartbeat_broker_interval_ms": 0}, "heartbeat_broker_interval_ms is 0"),
        ({"broker_suspend_max_time_ms": 0}, "broker_suspend_max_time_ms is 0"),
        ({"broker_suspend_max_time_ms": 60_000}, "a pull is given up after 30000"),
        ({"consume_timeout_min": 0}, "consume_timeout_min is 0; allowed is over 0"),
        ({"consume_timestamp": "yesterday"}, "'yesterday' is no time: write yyyyMMddHHmmss"),
        ({"message_model": "SIDEWAYS"}, "'SIDEWAYS'; allowed is one of MessageModel.CLUSTERING"),
        ({"offset_store": 5}, "5 is no offset store: it has no load"),
        ({"consume_executor": 5}, "5 is no executor"),
        ({"allocate_message_queue_strategy": "AVG"}, "'AVG' is no allocation strategy"),
        ({"no_such_setting": 1}, "unknown setting 'no_such_setting'"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_the_start(settings: dict[str, object], fault: str) -> None:
    with pytest.raises(InvalidParameter, match=fault):
        consumer = PushConsumer("BadSettings", namesrv_addr="127.0.0.1:1", **settings)
        consumer.subscribe("T")
        consumer.register_message_listener(Seen())
        consumer.start()


def test_names_expressions_and_listeners_are_looked_at_before_anything_is_sent() -> None:
    consumer = PushConsumer("BadNames", namesrv_addr="127.0.0.1:1")
    for topic in ("", "a b", "x" * 128):
        with pytest.raises(InvalidParameter, match="topic name"):
            consumer.subscribe(topic)
    for expression in (" || ", 5, MessageSelector("A", "XPATH"), MessageSelector.by_sql(" ")):
        with pytest.raises(SubscriptionParseFailed):
            consumer.subscribe("T", expression)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match="listener 5 cannot be called"):
        consumer.register_message_listener(5)  # type: ignore[arg-type]
    with pytest.raises(ClientFault, match="needs a listener"):
        consumer.start()
    for group in ("", "a b", "x" * 121, "DEFAULT_CONSUMER"):
        with pytest.raises(InvalidParameter, match="group name"):
            PullConsumer(group, namesrv_addr="127.0.0.1:1").start()
    service = PullScheduleService("BadNames", namesrv_addr="127.0.0.1:1")
    with pytest.raises(InvalidParameter, match="callback None cannot be called"):
        service.register_pull_task_callback("T", None)  # type: ignore[arg-type]


def test_a_subscription_that_is_refused_while_running_changes_nothing(shared_broker: Broker) -> None:
    queue = filled(shared_broker, "BadLater", 1)
    seen = Seen()
    with member(shared_broker, "BadLater", seen) as consumer:
        wait_until(lambda: seen.bodies == [b"0"], 20, "it consumes")
        for expression, error in (
            (MessageSelector.by_sql("a ="), BrokerError),
            ("||", SubscriptionParseFailed),
        ):
            with pytest.raises(error):
                consumer.subscribe("BadLater", expression)
            with pytest.raises(error):
                consumer.subscribe("BadLaterToo", expression)
        consumer._instance.heartbeat_all()
        assert consumer.subscribed_topics() == {"BadLater", "%RETRY%BadLaterGroup"}
        with Producer("BadInput", namesrv_addr=shared_broker.namesrv_addr) as producer:
            producer.send(Message("BadLater", b"1"), queue=queue)
        wait_until(lambda: seen.bodies == [b"0", b"1"], 20, "it goes on as before")
        consumer.subscribe("BadLater", "TagA")  # once more: this one holds from now on
        with Producer("BadInput", namesrv_addr=shared_broker.namesrv_addr) as producer:
            producer.send(Message("BadLater", b"2"), queue=queue)
            producer.send(Message("BadLater", b"3", tags="TagA"), queue=queue)
        wait_until(lambda: seen.bodies == [b"0", b"1", b"3"], 20, "what is subscribed to")


def test_a_second_consumer_of_a_group_in_one_instance_is_refused(shared_broker: Broker) -> None:
    filled(shared_broker, "BadTwin", 0)
    with member(shared_broker, "BadTwin", Seen(), instance_name="one"):
        twin = member(shared_broker, "BadTwin", Seen(), instance_name="one")
        with pytest.raises(ClientFault, match="already created in this client instance"):
            twin.start()


def test_a_pull_consumer_of_another_mode_is_refused(shared_broker: Broker) -> None:
    queue = filled(shared_broker, "BadMode", 1)
    seen = Seen()
    with (
        member(shared_broker, "BadMode", seen) as consumer,
        PullConsumer(
            "BadModeGroup", namesrv_addr=shared_broker.namesrv_addr, message_model=MessageModel.BROADCASTING
        ) as other,
    ):
        wait_until(lambda: seen.bodies == [b"0"], 20, "the group consumes")
        for _ in range(2):
            with pytest.raises(BrokerError, match=r"consumes by CLUSTERING .*wants BROADCASTING") as refusal:
                other.pull(queue, "*", 0, 1)
            assert refusal.value.code == ResponseCode.INVALID_PARAMETER
        assert queue in consumer.assigned_queues


def test_offsets_that_are_none_are_neither_pulled_from_nor_stored(shared_broker: Broker) -> None:
    queue = filled(shared_broker, "BadOffset", 3)
    elsewhere = MessageQueue("BadOffset", queue.broker_name, 7)
    with PullConsumer("BadOffsetPull", namesrv_addr=shared_broker.namesrv_addr) as reader:
        reader.update_consume_offset(queue, 2)
        reader.persist_offsets()
        for offset in (-1, "x", None, True, 1 << 63):
            with pytest.raises(InvalidParameter, match="outside 0"):
                reader.pull(queue, "*", offset, 1)  # type: ignore[arg-type]
            with pytest.raises(InvalidParameter, match="outside 0"):
                reader.update_consume_offset(queue, offset)  # type: ignore[arg-type]
        for count in (0, -1, 1 << 31, "x"):
            with pytest.raises(InvalidParameter, match="max_count"):
                reader.pull(queue, "*", 0, count)  # type: ignore[arg-type]
        with pytest.raises(InvalidParameter, match="no MessageQueue"):
            reader.pull(None, "*", 0, 1)  # type: ignore[arg-type]
        with pytest.raises(InvalidParameter, match="queue id 7 is out of range"):
            reader.pull(elsewhere, "*", 0, 1)
        assert reader.fetch_consume_offset(queue) == 2
    lite = LitePullConsumer("BadOffsetLite", namesrv_addr=shared_broker.namesrv_addr, auto_commit=False)
    lite.assign([queue])
    with lite:
        wait_until(lambda: queue in lite.assignment, 20, "it has its queue")
        lite.commit({queue: 1}, persist=True)
        for offset in (-1, "x", None):
            with pytest.raises(InvalidParameter):
                lite.commit({queue: 2, elsewhere: offset}, persist=True)  # type: ignore[dict-item]
            with pytest.raises(InvalidParameter, match=r"outside 0\.\.3"):
                lite.seek(queue, offset)  # type: ignore[arg-type]
        lite.commit({elsewhere: 5}, persist=True)  # another member's: left out, and logged
        assert lite.committed(queue) == 1 and lite.committed(elsewhere) == -1


def _exits(messages: list[MessageExt], context: object) -> object:
    sys.exit(3)


def _acknowledges_nonsense(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> object:
    context.ack_index = "all"  # type: ignore[assignment]
    return SUCCESS


def _delays_by_nonsense(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> object:
    context.delay_level_when_next_consume = "soon"  # type: ignore[assignment]
    return ConsumeConcurrentlyStatus.RECONSUME_LATER


def _returns_the_unprintable(messages: list[MessageExt], context: object) -> object:
    return Unprintable()


@pytest.mark.parametrize(
    "listener", [_exits, _acknowledges_nonsense, _delays_by_nonsense, _returns_the_unprintable]
)
def test_a_listener_that_goes_wrong_in_any_way_has_its_messages_given_back(
    shared_broker: Broker, monkeypatch: pytest.MonkeyPatch, listener: Callable[..., object]
) -> None:
    """As RECONSUME_LATER; its threads live on."""
    topic = f"BadListener{listener.__name__}"
    filled(shared_broker, topic, 5)
    given: list[tuple[int, str]] = []
    lock = threading.Lock()

    def send_back(_: object, group: str, message: MessageExt, level: int, *rest: object) -> str:
        with lock:
            given.append((message.queue_offset, str(rest[-1])))
        return ""

    monkeypatch.setattr(BrokerCalls, "send_back", send_back)
    monkeypatch.setattr(consume_service, "CONSUME_AGAIN_S", 0.1)
    few = {"consume_thread_min": 1, "consume_thread_max": 1}
    with member(shared_broker, topic, listener, **few) as consumer:
        wait_until(lambda: len(given) == 5, 20, "all are given back")
        wait_until(lambda: set(consumer.known_offsets(topic).values()) == {5}, 20, "none blocks its queue")
    assert [offset for offset, _ in given] == [0, 1, 2, 3, 4] and all(reason for _, reason in given)


@pytest.mark.parametrize("way", ["exits", "pauses", "unprintable"])
def test_an_orderly_listener_that_goes_wrong_in_any_way_suspends_its_queue(
    shared_broker: Broker, way: str
) -> None:
    topic = f"BadOrderly{way}"
    filled(shared_broker, topic, 2)
    seen: list[tuple[bytes, int]] = []

    def consume(messages: list[MessageExt], context: ConsumeOrderlyContext) -> object:
        (message,) = messages
        seen.append((bytes(message.body), message.reconsume_times))
        if message.reconsume_times == 2:
            return ConsumeOrderlyStatus.SUCCESS
        if way == "exits":
            sys.exit(3)
        if way == "unprintable":
            return Unprintable()
        context.suspend_current_queue_time_millis = "long"  # type: ignore[assignment]
        return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT

    consumer = PushConsumer(
        f"{topic}Group",
        namesrv_addr=shared_broker.namesrv_addr,
        consume_from_where=FIRST,
        suspend_current_queue_time_millis=10,
    )
    consumer.subscribe(topic)
    consumer.register_message_listener_orderly(consume)  # type: ignore[arg-type]
    with consumer:
        wait_until(lambda: len(seen) == 6, 20, "both are consumed in the end")
    assert seen == [(body, tries) for body in (b"0", b"1") for tries in range(3)]


def test_a_pull_task_that_goes_wrong_in_any_way_comes_again(
    shared_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(shared_broker, "BadTask", 0)
    monkeypatch.setattr("shmq.client.pull_schedule_service.AFTER_ERROR_S", 0.01)
    calls: list[int] = []

    def task(queue: MessageQueue, context: PullTaskContext) -> None:
        calls.append(queue.queue_id)
        if len(calls) == 1:
            sys.exit(3)
        context.pull_next_delay_time_millis = "soon"  # type: ignore[assignment]

    service = PullScheduleService("BadTaskGroup", namesrv_addr=shared_broker.namesrv_addr)
    service.register_pull_task_callback("BadTask", task)
    with service:
        wait_until(lambda: len(calls) > 3, 20, "it is called again and again")
