"""Retries and dead letters on a real broker: RECONSUME_LATER, exceptions, the ladder of delay levels."""

from __future__ import annotations

import threading
import time

import pytest

from shmq import (
    AdminClient,
    BrokerError,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    MessageExt,
    Producer,
    PullConsumer,
    PullStatus,
    PushConsumer,
    RemotingError,
)
from shmq.client import consume_service
from shmq.client.addresses import Address
from shmq.client.broker_calls import BrokerCalls
from shmq.client.channel import Channel
from shmq.client.give_back import GiveBack
from shmq.embedded import Broker
from shmq.model.consumer_group import SubscriptionGroupConfig
from shmq.model.names import dlq_topic, retry_topic
from shmq.model.properties import ORIGIN_MESSAGE_ID, RETRY_TOPIC, SHMQ_LAST_ERROR
from shmq.protocol.codes import ResponseCode
from tests.helpers.waiting import wait_until
from tests.helpers.worker_rig import send_request

SETTINGS = {"brokerWorkers": "1", "messageDelayLevel": "1s 1s 1s 2s 2s"}


class Failing:
    """A listener that refuses every message until its `tries`th delivery."""

    def __init__(self, tries: int, *, raises: bool = False) -> None:
        self._tries = tries
        self._raises = raises
        self._lock = threading.Lock()
        self.seen: list[tuple[bytes, int, str, float]] = []

    def __call__(self, messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        with self._lock:
            self.seen += [(m.body, m.reconsume_times, m.topic, time.monotonic()) for m in messages]
        if messages[0].reconsume_times + 1 >= self._tries:
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS
        if self._raises:
            raise ValueError("not this time")
        return ConsumeConcurrentlyStatus.RECONSUME_LATER


def consumer(broker: Broker, topic: str, listener: object, **settings: object) -> PushConsumer:
    made = PushConsumer(
        f"{topic}Group",
        namesrv_addr=broker.namesrv_addr,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        **settings,
    )
    made.subscribe(topic)
    made.register_message_listener(listener)  # type: ignore[arg-type]
    return made


def stored(broker: Broker, topic: str) -> list[MessageExt]:
    found: list[MessageExt] = []
    with PullConsumer("RetryReader", namesrv_addr=broker.namesrv_addr) as reader:
        for queue in reader.fetch_subscribe_message_queues(topic):
            result = reader.pull(queue, "*", 0, 32)
            if result.status is PullStatus.FOUND:
                found += result.messages
    return found


@pytest.fixture(scope="module")
def broker():  # type: ignore[no-untyped-def]
    with Broker(**SETTINGS) as running:
        yield running


@pytest.mark.parametrize(
    "raises", [pytest.param(False, id="later"), pytest.param(True, id="exception", marks=pytest.mark.long)]
)
def test_a_refused_message_comes_again_by_the_ladder(broker: Broker, raises: bool) -> None:
    topic = f"Again{raises}"
    listener = Failing(3, raises=raises)
    with Producer("Retries", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, 1)
        sent = producer.send(Message(topic, b"once more", tags="T", keys="k"))
    with consumer(broker, topic, listener):
        wait_until(lambda: len(listener.seen) == 3, 20, "three deliveries")
    assert [(body, tries, of) for body, tries, of, _ in listener.seen] == [
        (b"once more", 0, topic),
        (b"once more", 1, topic),
        (b"once more", 2, topic),
    ]
    times = [at for *_, at in listener.seen]
    assert times[1] - times[0] >= 1 and times[2] - times[1] >= 2  # levels 3 and 4
    copies = stored(broker, retry_topic(f"{topic}Group"))
    assert [m.reconsume_times for m in copies] == [1, 2]
    for copy in copies:
        assert copy.properties[RETRY_TOPIC] == topic
        assert copy.properties[ORIGIN_MESSAGE_ID] == sent.offset_msg_id
        assert (copy.msg_id, copy.tags, copy.keys) == (sent.msg_id, "T", "k")
        assert "DELAY" not in copy.properties


@pytest.mark.long
def test_what_failed_too_often_is_among_the_dead_letters(broker: Broker) -> None:
    topic = "Dead"
    listener = Failing(99)
    with Producer("Retries", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, 1)
        producer.send(Message(topic, b"hopeless"))
    with consumer(broker, topic, listener, max_reconsume_times=1):
        wait_until(lambda: len(listener.seen) == 2, 20, "the only retry")

        def dead() -> list[MessageExt]:
            try:
                return stored(broker, dlq_topic(f"{topic}Group"))
            except Exception:
                return []

        wait_until(lambda: [m.body for m in dead()] == [b"hopeless"], 20, "it is a dead letter")
    (letter,) = stored(broker, dlq_topic(f"{topic}Group"))
    assert letter.reconsume_times == 2
    assert letter.properties[RETRY_TOPIC] == topic


def dead(broker: Broker, group: str) -> list[MessageExt]:
    try:
        return stored(broker, dlq_topic(group))
    except BrokerError:  # there is no such topic yet
        return []


class Says:
    """A listener that answers, or raises, what it is told."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.errors: list[str | None] = []

    def __call__(self, messages: list[MessageExt], _: object) -> object:
        self.errors += [message.get_property(SHMQ_LAST_ERROR) for message in messages]
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.long
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (KeyError("no such\norder \x01\x02\0"), "KeyError: 'no such"),
        (None, "the listener returned nothing"),
        ("done", "the listener returned 'done', which is no ConsumeConcurrentlyStatus"),
        (ConsumeConcurrentlyStatus.RECONSUME_LATER, "the listener returned RECONSUME_LATER"),
    ],
    ids=["raised", "nothing", "nonsense", "later"],
)
def test_the_last_error_is_kept_with_the_message(broker: Broker, answer: object, said: str) -> None:
    """Checklist 144 and 145, too: nothing, nonsense and exceptions are RECONSUME_LATER."""
    topic = f"Errors{type(answer).__name__}"
    listener = Says(answer)
    with Producer("Retries", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, 1)
        producer.send(Message(topic, b"x"))
    with consumer(broker, topic, listener, max_reconsume_times=1):
        wait_until(lambda: dead(broker, f"{topic}Group"), 20, "it is a dead letter")
    (letter,) = dead(broker, f"{topic}Group")
    first, second = listener.errors
    assert first is None
    assert second is not None and second.startswith(said)
    assert letter.properties[SHMQ_LAST_ERROR] == second
    if isinstance(answer, Exception):
        assert "test_retries.py" in second and "in __call__" in second


@pytest.mark.long
def test_a_send_back_that_fails_is_published_by_the_client(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist 155: the same delays, tries, ids and dead letters."""

    def refuse(*_: object) -> str:
        raise RemotingError("the way back is closed")

    monkeypatch.setattr(BrokerCalls, "send_back", refuse)
    topic = "Fallback"
    listener = Failing(99, raises=True)
    with Producer("Retries", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, 1)
        body = bytes(range(256)) * 40
        sent = producer.send(Message(topic, body, tags="T"))  # large enough to be compressed
    with consumer(broker, topic, listener, max_reconsume_times=2):
        wait_until(lambda: dead(broker, f"{topic}Group"), 20, "it is a dead letter")
    assert [(tries, of) for _, tries, of, _ in listener.seen] == [(0, topic), (1, topic), (2, topic)]
    times = [at for *_, at in listener.seen]
    assert times[1] - times[0] >= 1 and times[2] - times[1] >= 2  # levels 3 and 4
    (letter,) = dead(broker, f"{topic}Group")
    assert (letter.body, letter.msg_id, letter.tags) == (body, sent.msg_id, "T")
    assert letter.properties[ORIGIN_MESSAGE_ID] == sent.offset_msg_id
    assert letter.properties[SHMQ_LAST_ERROR].startswith("ValueError: not this time at test_retries.py")


def test_a_message_that_nobody_takes_back_is_consumed_again_from_memory(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist 156."""

    def refuse(*_: object) -> str:
        raise RemotingError("the way back is closed")

    monkeypatch.setattr(BrokerCalls, "send_back", refuse)
    monkeypatch.setattr(GiveBack, "_publish", refuse)
    monkeypatch.setattr(consume_service, "CONSUME_AGAIN_S", 0.2)
    topic = "FromMemory"
    listener = Failing(2)
    with Producer("Retries", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, 1)
        producer.send(Message(topic, b"x"))
    with consumer(broker, topic, listener) as running:
        wait_until(lambda: len(listener.seen) == 2, 20, "it comes again")
        (queue,) = [queue for queue in running.assigned_queues if queue.topic == topic]
        wait_until(lambda: running.known_offsets(topic)[queue] == 1, 20, "and is done")
    assert [tries for _, tries, *_ in listener.seen] == [0, 1]


def test_a_group_that_keeps_no_failed_messages_is_told_so(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Checklist 154: retryQueueNums 0 drops them as RocketMQ does, but not silently."""
    topic = "NoRetries"
    with AdminClient(broker.namesrv_addr) as admin:
        admin.update_group(broker.tcp_addr, SubscriptionGroupConfig(f"{topic}Group", retry_queue_nums=0))
    with Producer("Retries", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, 1)
        producer.send(Message(topic, b"x"))
    listener = Failing(99)
    with consumer(broker, topic, listener) as running:
        wait_until(lambda: len(listener.seen) == 1, 20, "it fails")
        wait_until(lambda: "retryQueueNums 0" in caplog.text, 20, "the consumer's log says so")
        assert set(running.known_offsets(topic).values()) == {1}
    assert len(listener.seen) == 1


def test_a_message_may_be_given_back_by_hand_and_only_what_exists(broker: Broker) -> None:
    topic = "ByHand"
    with Producer("Retries", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, 1)
        producer.send(Message(topic, b"back"))
    with PullConsumer("ByHandGroup", namesrv_addr=broker.namesrv_addr) as reader:
        queue = reader.fetch_subscribe_message_queues(topic)[0]
        (message,) = reader.pull(queue, "*", 0, 32).messages
        reader.send_message_back(message, delay_level=-1)
        assert [m.body for m in stored(broker, dlq_topic("ByHandGroup"))] == [b"back"]
        calls: BrokerCalls = reader._instance.calls

        class Elsewhere:
            physical_offset = 1_000_000
            msg_id = "x"
            broker_name = message.broker_name

        with pytest.raises(BrokerError) as caught:
            calls.send_back("ByHandGroup", Elsewhere(), 0, 16, topic)  # type: ignore[arg-type]
        assert caught.value.code == ResponseCode.SYSTEM_ERROR


@pytest.mark.long
def test_a_retry_the_client_sends_itself_is_buried_when_it_was_tried_too_often(broker: Broker) -> None:
    group = "SelfGroup"
    with consumer(broker, "Self", Failing(1)):
        channel = Channel(Address(broker.unix_socket), 5.0)
        try:
            for tries in (16, 17):
                request = send_request(
                    retry_topic(group),
                    b"%d" % tries,
                    properties=f"UNIQ_KEY\x01S{tries}\x02DELAY\x011\x02",
                    reconsume_times=tries,
                )
                assert channel.call(request, 10).code == ResponseCode.SUCCESS
        finally:
            channel.close()
        assert [m.body for m in stored(broker, dlq_topic(group))] == [b"17"]
        wait_until(
            lambda: [m.body for m in stored(broker, retry_topic(group))] == [b"16"], 20, "it is retried"
        )
