"""Idle consumers: one wait for all queues of a consumer, ended by news of any of them, whoever sent them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from shmq import (
    AdminClient,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    LitePullConsumer,
    Message,
    MessageExt,
    MessageQueue,
    Producer,
    PushConsumer,
)
from shmq.base.runtime_dir import page_name
from shmq.client import shared_waits
from shmq.client.addresses import Address
from shmq.client.duplex import DuplexChannel
from shmq.embedded import Broker
from shmq.model.consumer_group import SubscriptionGroupConfig
from shmq.model.names import TOOLS_CONSUMER_GROUP
from shmq.model.topic_config import TopicConfig
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.shared_wait import WaitForMessagesHeader
from shmq.protocol.shared_wait import Awaited, decode_news, encode_waits
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import SlotCounters
from shmq.shm.page_layout import SLOT_COUNT
from tests.helpers.waiting import wait_until

FIRST = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET
SOON_MS = 300
"""Hold of the pulls in these tests: a queue is idle after it."""


class Seen:
    """A listener that notes what came, and when."""

    def __init__(self) -> None:
        self.at: dict[bytes, float] = {}
        self._lock = threading.Lock()

    def __call__(self, messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        with self._lock:
            self.at |= {bytes(message.body): time.monotonic() for message in messages}
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS


def made(broker: Broker, topic: str, queues: int) -> list[MessageQueue]:
    with Producer("Waits", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, queues)
        return sorted(producer.fetch_publish_message_queues(topic))


def consumer_of(broker: Broker, topic: str, seen: Seen, **settings: object) -> PushConsumer:
    consumer = PushConsumer(
        f"{topic}Group",
        namesrv_addr=broker.namesrv_addr,
        consume_from_where=FIRST,
        broker_suspend_max_time_ms=SOON_MS,
        **settings,
    )
    consumer.subscribe(topic)
    consumer.register_message_listener(seen)
    return consumer


def waiting(consumer: PushConsumer | LitePullConsumer, topic: str) -> int:
    """Queues of a topic that are in the consumer's shared wait."""
    waits = consumer._pulling._waits._waits.values()
    return sum(queue.topic == topic for wait in waits for queue in wait.states)


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "socket"])
def test_idle_queues_are_waited_for_together_and_news_are_seen_at_once(
    shared_broker: Broker, direct: bool
) -> None:
    topic = f"WaitAll{direct}"
    queues = made(shared_broker, topic, 8)
    seen = Seen()
    with (
        consumer_of(shared_broker, topic, seen, direct_pull=direct) as consumer,
        Producer("Waits", namesrv_addr=shared_broker.namesrv_addr) as producer,
    ):
        for turn in range(2):
            wait_until(lambda: waiting(consumer, topic) == 8, 20, "all queues are idle")
            for queue in queues:
                body = b"%d %d" % (turn, queue.queue_id)
                began = time.monotonic()
                producer.send(Message(topic, body), queue=queue)
                wait_until(lambda: body in seen.at, 20, "it is there")  # noqa: B023
                print(f"seen after {(seen.at[body] - began) * 1000:.1f} ms")
    assert len(seen.at) == 16


@pytest.mark.long
def test_an_idle_consumer_sends_one_wait_for_all_queues(broker: Broker) -> None:
    """The broker counts pulls and waits: when all queues are idle no pull comes any more."""
    made(broker, "WaitOne", 16)
    page = ControlPage.attach(page_name(broker.store_root))
    with consumer_of(broker, "WaitOne", Seen()) as consumer:
        wait_until(lambda: waiting(consumer, "WaitOne") == 16, 20, "all queues are idle")

        def pulls() -> int:
            return sum(SlotCounters(page, slot).value("pulls") for slot in range(SLOT_COUNT))

        quiet: list[int] = []

        def three_alike() -> bool:
            quiet.append(pulls())
            time.sleep(SOON_MS / 1000)
            return len(quiet) > 3 and len(set(quiet[-3:])) == 1

        wait_until(three_alike, 20, "no pull comes")


@pytest.mark.long
def test_a_wait_goes_on_when_its_time_is_over(shared_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_waits, "WAIT_MS", 200)
    (queue,) = made(shared_broker, "WaitOn", 1)
    seen = Seen()
    with consumer_of(shared_broker, "WaitOn", seen) as consumer:
        wait = lambda: next(iter(consumer._pulling._waits._waits.values()), None)  # noqa: E731
        wait_until(lambda: (found := wait()) is not None and found.number > 4, 20, "several waits")
        with Producer("Waits", namesrv_addr=shared_broker.namesrv_addr) as producer:
            producer.send(Message("WaitOn", b"x"), queue=queue)
        wait_until(lambda: b"x" in seen.at, 20, "it is there")


@pytest.mark.long
def test_a_wait_ends_when_its_group_or_its_queues_change(shared_broker: Broker) -> None:
    made(shared_broker, "WaitRules", 4)
    seen = Seen()
    with (
        consumer_of(shared_broker, "WaitRules", seen, instance_name="first") as first,
        AdminClient(shared_broker.namesrv_addr) as admin,
    ):
        wait_until(lambda: waiting(first, "WaitRules") == 4, 20, "all queues are idle")
        with consumer_of(shared_broker, "WaitRules", seen, instance_name="second") as second:
            wait_until(lambda: waiting(first, "WaitRules") == 2, 20, "shared with a second member")
            wait_until(lambda: waiting(second, "WaitRules") == 2, 20, "who waits for his own")
        wait_until(lambda: waiting(first, "WaitRules") == 4, 20, "all again")
        forbidden = SubscriptionGroupConfig("WaitRulesGroup", consume_enable=False)
        admin.update_group(shared_broker.tcp_addr, forbidden)
        wait_until(lambda: waiting(first, "WaitRules") == 0, 20, "each is pulled, and refused")
        admin.update_group(shared_broker.tcp_addr, SubscriptionGroupConfig("WaitRulesGroup"))
        wait_until(lambda: waiting(first, "WaitRules") == 4, 20, "idle again")


def test_lite_pull_consumers_and_loops_are_woken_too(shared_broker: Broker) -> None:
    queues = made(shared_broker, "WaitLite", 4)
    consumer = LitePullConsumer(
        "WaitLiteGroup",
        namesrv_addr=shared_broker.namesrv_addr,
        consume_from_where=FIRST,
        broker_suspend_max_time_ms=SOON_MS,
    )
    consumer.subscribe("WaitLite")
    with consumer, Producer("Waits", namesrv_addr=shared_broker.namesrv_addr) as producer:
        wait_until(lambda: waiting(consumer, "WaitLite") == 4, 20, "all queues are idle")
        producer.send(Message("WaitLite", b"x"), queue=queues[2])
        assert [message.body for message in consumer.poll(20_000)] == [b"x"]


@pytest.mark.long
def test_consumers_survive_a_broker_that_is_gone_while_they_wait(broker: Broker) -> None:
    made(broker, "WaitDown", 4)
    seen = Seen()
    with consumer_of(broker, "WaitDown", seen) as consumer:
        wait_until(lambda: waiting(consumer, "WaitDown") == 4, 20, "all queues are idle")
        broker.kill()
        broker.start()
        with Producer("Waits", namesrv_addr=broker.namesrv_addr) as producer:
            wait_until(lambda: producer.send(Message("WaitDown", b"x")), 20, "it is back")
        wait_until(lambda: b"x" in seen.at, 60, "it is there")


def ask(channel: DuplexChannel, *waits: Awaited, wait_ms: int = 20_000) -> Callable[[], Command]:
    """Send a wait; what is returned waits for its answer."""
    answered = threading.Event()
    found: list[Command] = []

    def reply(response: Command | None, error: Exception | None) -> None:
        assert response is not None, error
        found.append(response)
        answered.set()

    header = WaitForMessagesHeader(TOOLS_CONSUMER_GROUP, wait_ms)
    channel.send(Command.request(RequestCode.WAIT_FOR_MESSAGES, header, encode_waits(waits)), 30, reply)

    def result() -> Command:
        assert answered.wait(20)
        return found[0]

    return result


def test_the_request_itself(shared_broker: Broker) -> None:
    """News there already, unknown queues, one wait at a time, its time, and bodies that are none."""
    (first, second) = made(shared_broker, "WaitRaw", 2)
    with Producer("Waits", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.send(Message("WaitRaw", b"x"), queue=first)
    channel = DuplexChannel(
        Address(shared_broker.unix_socket), 5.0, None, on_request=lambda *_: None, on_close=lambda *_: None
    )
    try:
        there = Awaited("WaitRaw", first.queue_id, 1)
        other = Awaited("WaitRaw", second.queue_id, 0)
        news = ask(channel, there._replace(offset=0), other)()
        assert news.code == ResponseCode.SUCCESS
        assert decode_news(news.body_bytes()) == {("WaitRaw", first.queue_id)}
        unknown = ask(channel, Awaited("WaitNoSuchTopic", 0, 0), Awaited("WaitRaw", 99, 0), other)()
        assert decode_news(unknown.body_bytes()) == {("WaitNoSuchTopic", 0), ("WaitRaw", 99)}
        superseded = ask(channel, there, other)
        over = ask(channel, there, other, wait_ms=100)
        assert superseded().code == over().code == ResponseCode.PULL_NOT_FOUND
        for body in (b"", b"{}", b"[]", b"{", b'{"T": 1}', b'{"T": [[1]]}'):
            header = WaitForMessagesHeader(TOOLS_CONSUMER_GROUP, 100)
            refused = channel.call(Command.request(RequestCode.WAIT_FOR_MESSAGES, header, body), 10)
            assert refused.code == ResponseCode.INVALID_PARAMETER
    finally:
        channel.close()


def test_a_wait_that_is_asked_again_hears_of_what_came_between_and_of_what_comes(
    shared_broker: Broker,
) -> None:
    """The same request goes on with queues that stayed watched: it must see the same as a new one."""
    queues = made(shared_broker, "WaitAgain", 4)
    channel = DuplexChannel(
        Address(shared_broker.unix_socket), 5.0, None, on_request=lambda *_: None, on_close=lambda *_: None
    )
    rows = [Awaited("WaitAgain", queue.queue_id, 0) for queue in queues]

    def over() -> None:
        """Two waits of 100 ms whose time is over: the second one goes on with the first one's queues."""
        for _ in range(2):
            assert ask(channel, *rows, wait_ms=100)().code == ResponseCode.PULL_NOT_FOUND

    with (
        Producer("Waits", namesrv_addr=shared_broker.namesrv_addr) as producer,
        AdminClient(shared_broker.namesrv_addr) as admin,
    ):
        try:
            for turn, queue in enumerate(queues[:2]):
                news = {("WaitAgain", queue.queue_id)}
                over()
                if turn:  # while it waits
                    answer = ask(channel, *rows)
                    producer.send(Message("WaitAgain", b"x"), queue=queue)
                else:  # between two waits
                    producer.send(Message("WaitAgain", b"x"), queue=queue)
                    answer = ask(channel, *rows)
                found = answer()
                assert found.code == ResponseCode.SUCCESS and decode_news(found.body_bytes()) == news
                assert decode_news(ask(channel, *rows)().body_bytes()) == news, "asked again after an answer"
                rows[queue.queue_id] = rows[queue.queue_id]._replace(offset=1)
            over()
            admin.create_topic(shared_broker.tcp_addr, TopicConfig("WaitAgain", 5, 5))
            assert ask(channel, *rows, wait_ms=100)().code == ResponseCode.PULL_NOT_FOUND, "as a new one"
            answer = ask(channel, *rows)
            admin.create_topic(shared_broker.tcp_addr, TopicConfig("WaitAgain", 6, 6))
            assert answer().code == ResponseCode.PULL_RETRY_IMMEDIATELY
            over()
            superseded = ask(channel, *rows)
            assert ask(channel, *rows, wait_ms=100)().code == ResponseCode.PULL_NOT_FOUND
            assert superseded().code == ResponseCode.PULL_NOT_FOUND
        finally:
            channel.close()
