"""What push consumers promise, line by line of the behaviour checklist (docs/checklist.md).

On a real broker with delay levels of a second; each test names its lines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest

from shmq import (
    AdminClient,
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    ConsumeOrderlyContext,
    ConsumeOrderlyStatus,
    Message,
    MessageExt,
    MessageQueue,
    MessageSelector,
    Producer,
    PullConsumer,
    PushConsumer,
)
from shmq.base.errors import InvalidParameter, TopicNotExist
from shmq.broker import queue_locks
from shmq.client import consume_service, instance, orderly_locks, pull_schedule_service
from shmq.client.consumer_config import (
    ConsumerConfig,
    LitePullConsumerConfig,
    PullConsumerConfig,
    PushConsumerConfig,
)
from shmq.client.offset_store import NO_OFFSET, ReadMode
from shmq.client.orderly_locks import OrderlyLocks
from shmq.embedded import Broker
from shmq.model.broker_settings import BrokerSettings
from shmq.model.consumer_group import SubscriptionGroupConfig
from shmq.model.names import dlq_topic
from shmq.model.topic_config import TopicConfig
from tests.helpers.filled_topic import filled
from tests.helpers.waiting import wait_until

SUCCESS = ConsumeConcurrentlyStatus.CONSUME_SUCCESS
LATER = ConsumeConcurrentlyStatus.RECONSUME_LATER
FIRST = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(brokerWorkers=1, messageDelayLevel="1s 1s 1s 1s 2s " + "1s " * 13) as running:
        yield running


class Listener:
    """Notes each call; answers what `answer` says about it."""

    def __init__(self, answer: Callable[[MessageExt], object] = lambda message: SUCCESS) -> None:
        self.answer = answer
        self.calls: list[list[int]] = []
        self.seen: list[tuple[int, int]] = []
        """Number and reconsume times of each delivery."""
        self.at: list[float] = []
        self._lock = threading.Lock()

    def __call__(self, messages: list[MessageExt], context: object) -> object:
        with self._lock:
            self.calls.append([int(message.body) for message in messages])
            self.seen += [(int(message.body), message.reconsume_times) for message in messages]
            self.at.append(time.monotonic())
        return self.answer(messages[0])


def member(
    broker: Broker, topic: str, listener: object, expression: object = "*", **settings: object
) -> PushConsumer:
    consumer = PushConsumer(
        f"{topic}Group", namesrv_addr=broker.namesrv_addr, consume_from_where=FIRST, **settings
    )
    consumer.subscribe(topic, expression)  # type: ignore[arg-type]
    consumer.register_message_listener(listener)  # type: ignore[arg-type]
    return consumer


def stored_offset(broker: Broker, group: str, queue: MessageQueue) -> int:
    with PullConsumer(group, namesrv_addr=broker.namesrv_addr) as reader:
        return reader.fetch_consume_offset(queue)


def is_held_back(consumer: PushConsumer, queues: Iterable[MessageQueue]) -> bool:
    """Whether limits keep all of them from being pulled; a queue is owned a moment before its pulls begin."""
    states = consumer._pulling._states
    return all(queue in states and states[queue].controlled for queue in queues)


def owned(consumer: PushConsumer, topic: str) -> list[int]:
    return [queue.queue_id for queue in consumer.assigned_queues if queue.topic == topic]


# -- rebalance --


@pytest.mark.long
def test_122_without_notices_members_find_each_other_by_their_period(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Producer("Consuming", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic("NoNotice", 2)
    with AdminClient(broker.namesrv_addr) as admin:
        quiet = SubscriptionGroupConfig("NoNoticeGroup", notify_consumer_ids_changed_enable=False)
        admin.update_group(broker.tcp_addr, quiet)
    with member(broker, "NoNotice", Listener(), instance_name="one") as one:
        wait_until(lambda: owned(one, "NoNotice") == [0, 1], 20, "alone")
        with member(broker, "NoNotice", Listener(), instance_name="two") as two:
            wait_until(lambda: len(owned(two, "NoNotice")) == 1, 20, "the new member has its share")
            assert owned(one, "NoNotice") == [0, 1], "nobody told the old one"
            monkeypatch.setattr(instance, "REBALANCE_PERIOD_S", 0.2)
            one._instance.rebalance_now()  # the period under way is the long one
            wait_until(lambda: len(owned(one, "NoNotice")) == 1, 20, "his period is over")


def test_125_a_result_that_comes_after_its_queue_moved_is_ignored(broker: Broker) -> None:
    queue = filled(broker, "Moved", 1)
    gate, started = threading.Event(), threading.Event()

    def slow(message: MessageExt) -> object:
        started.set()
        gate.wait(20)
        return SUCCESS

    first, second = Listener(slow), Listener()
    consumer = member(
        broker, "Moved", first, instance_name="b", await_termination_millis_when_shutdown=20_000
    )
    with consumer:
        assert started.wait(20)
        held = consumer._rebalancer.owned[queue]
        with member(broker, "Moved", second, instance_name="a"):  # sorted before: it gets the only queue
            wait_until(lambda: held.dropped, 20, "the queue is given away while its call runs")
            wait_until(lambda: second.seen == [(0, 0)], 20, "its next owner gets the message again")
            wait_until(lambda: consumer.known_offsets("Moved") == {}, 20, "nothing is kept of it")
            gate.set()
            consumer.shutdown()  # waits for the call's end
    assert held.message_count == 1
    assert consumer._offsets.read(queue, ReadMode.MEMORY) == NO_OFFSET
    assert first.seen == [(0, 0)] == second.seen


def test_127_limits_of_a_topic_are_shared_among_the_owned_queues(broker: Broker) -> None:
    with Producer("Consuming", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic("Shared", 4)
        queues = producer.fetch_publish_message_queues("Shared")
        for queue in queues:
            producer.send([Message("Shared", b"%d" % number) for number in range(200)], queue=queue)
    gate = threading.Event()
    settings = {"pull_threshold_for_topic": 100, "pull_batch_size": 5, "direct_pull": False}
    with member(broker, "Shared", Listener(lambda _: gate.wait(20) and SUCCESS), **settings) as consumer:
        held = lambda: [consumer._rebalancer.owned[queue].message_count for queue in queues]  # noqa: E731
        wait_until(lambda: len(owned(consumer, "Shared")) == 4 and min(held()) >= 20, 20, "all are full")
        wait_until(lambda: is_held_back(consumer, queues), 20, "no more is pulled")
        # 100 // 5, as the retry topic's queue counts, too, and what was pulled before that was known. Each
        # queue would hold over 100 if the limit were its own, and all 200 without any.
        assert all(20 < count < 60 for count in held()), held()
        gate.set()


@pytest.mark.long
def test_127_the_size_limit_of_a_topic_is_shared_too(broker: Broker) -> None:
    plain = {"compress_msg_body_over_howmuch": 1 << 30}
    with Producer("Consuming", namesrv_addr=broker.namesrv_addr, **plain) as producer:
        producer.create_topic("SharedSize", 4)
        queues = producer.fetch_publish_message_queues("SharedSize")
        for queue in queues:
            producer.send([Message("SharedSize", bytes(64 << 10)) for _ in range(48)], queue=queue)
    gate = threading.Event()
    settings = {"pull_threshold_size_for_topic_mib": 5, "pull_batch_size": 5, "direct_pull": False}
    listen = lambda messages, context: gate.wait(20) and SUCCESS  # noqa: E731
    with member(broker, "SharedSize", listen, **settings) as consumer:
        wait_until(lambda: len(owned(consumer, "SharedSize")) == 4, 20, "all are its own")
        wait_until(lambda: is_held_back(consumer, queues), 20, "no more is pulled")
        # 5 // 5 MiB, as the retry topic's queue counts: over it, so 2 MiB, and what the last pull brought.
        held = [consumer._rebalancer.owned[queue].message_bytes for queue in queues]
        assert all(2 << 20 <= size < 5 << 19 for size in held), held
        gate.set()


def test_128_consumers_own_the_read_queues(broker: Broker) -> None:
    with AdminClient(broker.namesrv_addr) as admin:
        admin.create_topic(broker.tcp_addr, TopicConfig("MoreReadable", 8, 4))
    with member(broker, "MoreReadable", Listener()) as consumer:
        wait_until(lambda: owned(consumer, "MoreReadable") == list(range(8)), 20, "all eight")


def test_126_an_unsubscribed_topics_queues_are_released_and_its_offsets_stored(broker: Broker) -> None:
    queue = filled(broker, "Leaving", 3)
    listener = Listener()
    with member(broker, "Leaving", listener) as consumer:
        wait_until(lambda: len(listener.seen) == 3, 20, "all are consumed")
        wait_until(lambda: consumer.known_offsets("Leaving") == {queue: 3}, 20, "the offset is at the end")
        consumer.unsubscribe("Leaving")
        wait_until(lambda: owned(consumer, "Leaving") == [], 20, "the queue is released")
        assert stored_offset(broker, "LeavingGroup", queue) == 3
        filled(broker, "Leaving", 1)
        consumer.subscribe("Leaving")
        wait_until(lambda: len(listener.seen) == 4, 20, "it goes on where it was")


# -- concurrent consumption --


def test_140_141_142_a_call_gets_at_most_so_many_and_success_moves_the_offset(broker: Broker) -> None:
    queue = filled(broker, "Batches", 64)
    one, ten = Listener(), Listener()
    with member(broker, "Batches", one) as consumer:
        wait_until(lambda: len(one.seen) == 64, 20, "all are consumed")
        wait_until(lambda: consumer.known_offsets("Batches") == {queue: 64}, 20, "the offset is at the end")
    assert {len(call) for call in one.calls} == {1}
    assert stored_offset(broker, "BatchesGroup", queue) == 64
    consumer = PushConsumer(
        "BatchesTen",
        namesrv_addr=broker.namesrv_addr,
        consume_from_where=FIRST,
        consume_message_batch_max_size=10,
        direct_pull=False,
    )
    consumer.subscribe("Batches")
    consumer.register_message_listener(ten)  # type: ignore[arg-type]
    with consumer:
        wait_until(lambda: len(ten.seen) == 64, 20, "all are consumed")
    assert sorted(map(len, ten.calls)) == [2, 2, *[10] * 6], "two pulls of 32"


@pytest.mark.long
def test_146_messages_behind_the_ack_index_come_again(broker: Broker) -> None:
    filled(broker, "AckIndex", 5)
    listener = Listener()

    def consume(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> ConsumeConcurrentlyStatus:
        listener(messages, context)
        if len(messages) == 5:
            context.ack_index = 2
        return SUCCESS

    with member(broker, "AckIndex", consume, consume_message_batch_max_size=5):
        wait_until(lambda: len(listener.seen) == 7, 20, "two come again")
    assert sorted(listener.seen[5:]) == [(3, 1), (4, 1)]


@pytest.mark.long
def test_148_a_consumer_may_choose_the_delay(broker: Broker) -> None:
    filled(broker, "OwnDelay", 1)
    listener = Listener(lambda message: LATER if not message.reconsume_times else SUCCESS)

    def consume(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> object:
        context.delay_level_when_next_consume = 5
        return listener(messages, context)

    with member(broker, "OwnDelay", consume):
        wait_until(lambda: len(listener.seen) == 2, 20, "it comes again")
    assert listener.at[1] - listener.at[0] >= 2, "level 5 is two seconds here, level 3 one"


def dead_letters(broker: Broker, group: str) -> list[MessageExt]:
    """What is among a group's dead letters; nothing yet when there is no such topic."""
    with AdminClient(broker.namesrv_addr) as admin:
        try:
            return list(admin.dead_letters(group))
        except TopicNotExist:
            return []


def test_147_162_level_minus_1_buries_at_once_and_a_dead_letter_is_whole(broker: Broker) -> None:
    filled(broker, "AtOnce", 1, tags="TagA", keys="k1 k2", properties={"colour": "red"})
    listener = Listener(lambda message: LATER)

    def consume(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> object:
        context.delay_level_when_next_consume = -1
        return listener(messages, context)

    with member(broker, "AtOnce", consume):
        wait_until(lambda: dead_letters(broker, "AtOnceGroup"), 20, "it is a dead letter")
        undertaker = Listener()
        reader = PushConsumer("AtOnceReader", namesrv_addr=broker.namesrv_addr, consume_from_where=FIRST)
        reader.subscribe(dlq_topic("AtOnceGroup"))
        reader.register_message_listener(undertaker)  # type: ignore[arg-type]
        with reader:
            wait_until(lambda: len(undertaker.seen) == 1, 20, "who subscribes to the dead letters has it")
    assert listener.seen == [(0, 0)], "it was not tried again"
    (letter,) = dead_letters(broker, "AtOnceGroup")
    assert (letter.tags, letter.keys, letter.get_property("colour")) == ("TagA", "k1 k2", "red")


@pytest.mark.long
def test_149_152_after_seventeen_deliveries_a_message_is_dead(broker: Broker) -> None:
    filled(broker, "Hopeless", 1)
    listener = Listener(lambda message: LATER)
    with member(broker, "Hopeless", listener):
        wait_until(lambda: len(listener.seen) == 17, 60, "all tries")
        wait_until(lambda: dead_letters(broker, "HopelessGroup"), 20, "it is a dead letter")
    assert listener.seen == [(0, tries) for tries in range(17)]


@pytest.mark.long
def test_157_a_call_that_takes_too_long_has_its_message_given_back(broker: Broker) -> None:
    queue = filled(broker, "TooLong", 1)
    gate = threading.Event()

    def slow(message: MessageExt) -> object:
        if not message.reconsume_times:
            gate.wait(20)
        return SUCCESS

    listener = Listener(slow)
    with member(broker, "TooLong", listener, consume_timeout_min=0.01) as consumer:  # 0.6 s
        wait_until(lambda: listener.seen == [(0, 0), (0, 1)], 20, "it is delivered again meanwhile")
        assert consumer.known_offsets("TooLong") == {queue: 1}
        gate.set()


def test_158_159_183_the_offset_is_the_lowest_unfinished_one(broker: Broker) -> None:
    queue = filled(broker, "Lowest", 10)
    gate = threading.Event()
    first = Listener(lambda message: (message.body != b"3" or gate.wait(20)) and SUCCESS)
    with member(broker, "Lowest", first, persist_consumer_offset_interval_ms=100) as consumer:
        wait_until(lambda: len(first.seen) == 10, 20, "all were begun")
        wait_until(lambda: consumer._rebalancer.owned[queue].message_count == 1, 20, "all but one are done")
        consumer.persist_offsets()  # as its duty does every 5 s
        with AdminClient(broker.namesrv_addr) as admin:
            wait_until(
                lambda: admin.consume_stats("LowestGroup").offset_table[queue].consumer_offset == 3,
                20,
                "the broker holds it",
            )
    second = Listener()
    with member(broker, "Lowest", second):
        wait_until(lambda: len(second.seen) == 7, 20, "from there on all come again")
    gate.set()
    assert sorted(number for number, _ in second.seen) == list(range(3, 10))


def test_160_161_twenty_threads_run_at_once_and_fewer_when_told_so(broker: Broker) -> None:
    filled(broker, "Threads", 60)
    lock, inside, most = threading.Lock(), [0], [0]
    gate = threading.Semaphore(0)

    def count(message: MessageExt) -> object:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        gate.acquire(timeout=20)
        with lock:
            inside[0] -= 1
        return SUCCESS

    with member(broker, "Threads", Listener(count)) as consumer:
        wait_until(lambda: inside[0] == 20, 20, "twenty run")
        consumer.update_core_pool_size(0)
        consumer.update_core_pool_size(40_000)
        gate.release(1)
        wait_until(lambda: inside[0] == 20, 20, "these are ignored")
        consumer.update_core_pool_size(5)
        gate.release(15)
        wait_until(lambda: inside[0] == 5, 20, "five run")
        gate.release(10)
        wait_until(lambda: inside[0] == 5, 20, "five others run")
        gate.release(100)
    assert most[0] == 20


@pytest.mark.long
def test_238_a_retried_message_is_not_judged_again(broker: Broker) -> None:
    """A selector sees what was sent, not the copy that comes back."""
    with Producer("Consuming", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic("RetrySql", 1)
        producer.send(Message("RetrySql", b"1", properties={"a": "7"}))
        producer.send(Message("RetrySql", b"2", properties={"a": "3"}))
    listener = Listener(lambda message: LATER if not message.reconsume_times else SUCCESS)
    with member(broker, "RetrySql", listener, MessageSelector.by_sql("a > 5")):
        wait_until(lambda: len(listener.seen) == 2, 20, "it comes again")
    assert listener.seen == [(1, 0), (1, 1)]


# -- orderly consumption --


def orderly(broker: Broker, topic: str, listener: object, **settings: object) -> PushConsumer:
    consumer = PushConsumer(
        f"{topic}Group", namesrv_addr=broker.namesrv_addr, consume_from_where=FIRST, **settings
    )
    consumer.subscribe(topic)
    consumer.register_message_listener_orderly(listener)  # type: ignore[arg-type]
    return consumer


@pytest.mark.long
def test_167_without_a_valid_lock_nothing_is_consumed(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that lost its broker stops before its lock may be another's, and goes on with a new one."""
    queue = filled(broker, "LostLock", 1)
    listener = Listener(lambda message: ConsumeOrderlyStatus.SUCCESS)
    monkeypatch.setattr(orderly_locks, "LOCK_MAX_LIVE_S", 0.2)
    asking = OrderlyLocks.acquire
    with orderly(broker, "LostLock", listener) as consumer:
        wait_until(lambda: len(listener.seen) == 1, 20, "it has its lock")
        refused: list[MessageQueue] = []

        def refuse(self: OrderlyLocks, wanted: MessageQueue) -> bool:
            refused.append(wanted)
            return False

        monkeypatch.setattr(OrderlyLocks, "acquire", refuse)
        monkeypatch.setattr(OrderlyLocks, "renew", lambda self: None)
        assert consumer._locks is not None
        wait_until(lambda: not consumer._locks.is_valid(queue), 5, "it is over")  # type: ignore[union-attr]
        with Producer("Consuming", namesrv_addr=broker.namesrv_addr) as producer:
            producer.send(Message("LostLock", b"1"), queue=queue)
        wait_until(lambda: queue in refused, 20, "it asks in vain")
        assert len(listener.seen) == 1
        monkeypatch.setattr(OrderlyLocks, "acquire", asking)
        wait_until(lambda: len(listener.seen) == 2, 20, "it goes on")


def test_169_a_pause_is_at_least_10_ms_and_at_most_30_s(broker: Broker) -> None:
    with orderly(broker, "Pauses", Listener()) as consumer:
        pause_s = consumer._consuming._pause_s  # type: ignore[union-attr]
        context = ConsumeOrderlyContext(MessageQueue("Pauses", "broker-a", 0))
        wanted = []
        for pause_ms in (5, 60_000, 200, -1):
            context.suspend_current_queue_time_millis = pause_ms
            wanted.append(pause_s(context))
    assert wanted == [0.01, 30, 0.2, 1]


def test_171_without_a_limit_a_bad_message_holds_its_queue_up(broker: Broker) -> None:
    filled(broker, "Blocked", 2)
    listener = Listener()

    def consume(messages: list[MessageExt], context: ConsumeOrderlyContext) -> ConsumeOrderlyStatus:
        context.suspend_current_queue_time_millis = 10
        listener(messages, context)
        return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT

    with orderly(broker, "Blocked", consume):
        wait_until(lambda: len(listener.seen) > 20, 20, "it comes again and again")
    assert {number for number, _ in listener.seen} == {0}


def test_131_the_span_in_hand_bounds_concurrent_consumers_only(broker: Broker) -> None:
    filled(broker, "Span", 0)
    with Producer("Consuming", namesrv_addr=broker.namesrv_addr) as producer:
        (queue,) = producer.fetch_publish_message_queues("Span")
        producer.send([Message("Span", b"%d" % number) for number in range(300)], queue=queue)
    gate = threading.Event()
    first = lambda message: message.body == b"0" and not gate.wait(20)  # noqa: E731
    concurrent = Listener(lambda message: LATER if first(message) else SUCCESS)
    settings = {"consume_concurrently_max_span": 100, "pull_batch_size": 10, "direct_pull": False}
    with member(broker, "Span", concurrent, **settings) as consumer:
        wait_until(lambda: len(concurrent.seen) > 100, 20, "all but the first go on")
        wait_until(lambda: is_held_back(consumer, [queue]), 20, "until the span is too long")
        assert int(consumer.running_properties()["PROP_SHMQ_FLOW_CONTROLS"]) > 0, "operators see it"
        assert len(concurrent.seen) <= 120
        gate.set()
        wait_until(lambda: len(concurrent.seen) == 300, 20, "it goes on")
    gate.clear()
    taken = PushConsumer(
        "SpanOrderly", namesrv_addr=broker.namesrv_addr, consume_from_where=FIRST, **settings
    )
    taken.subscribe("Span")
    taken.register_message_listener_orderly(
        lambda messages, _: ConsumeOrderlyStatus.SUCCESS if gate.wait(20) else None
    )
    with taken:
        wait_until(lambda: queue in taken._rebalancer.owned, 20, "it has its queue")
        wait_until(lambda: taken._rebalancer.owned[queue].message_count == 300, 20, "all are in hand")
        gate.set()


# -- settings --


def test_191_consume_timestamp_is_half_an_hour_ago_unless_it_is_said() -> None:
    ago_ms = time.time() * 1000 - ConsumerConfig().consume_timestamp_ms()
    assert 30 * 60_000 - 1 <= ago_ms < 31 * 60_000  # the property ends with whole milliseconds
    said = ConsumerConfig(consume_timestamp="20260102030405")
    assert time.localtime(said.consume_timestamp_ms() / 1000)[:6] == (2026, 1, 2, 3, 4, 5)
    with pytest.raises(InvalidParameter, match="write yyyyMMddHHmmss"):
        ConsumerConfig(consume_timestamp="yesterday").consume_timestamp_ms()


def test_defaults_are_rocketmqs() -> None:
    """The times and sizes that other lines' tests make shorter or smaller, too (their line is named)."""
    config = PushConsumerConfig()
    assert (config.consume_thread_min, config.consume_thread_max) == (20, 20)
    assert (config.pull_batch_size, config.consume_message_batch_max_size) == (32, 1)
    assert (config.pull_threshold_for_queue, config.consume_concurrently_max_span) == (1000, 2000)  # 129, 131
    assert (config.pull_threshold_size_for_queue_mib, config.pull_interval_ms) == (100, 0)  # 130
    assert config.consume_from_where is ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET
    assert config.consume_timeout_min == 15  # 157
    assert config.suspend_current_queue_time_millis == 1000  # 168
    assert config.persist_consumer_offset_interval_ms == 5000  # 183
    assert config.heartbeat_broker_interval_ms == 30_000
    assert config.broker_suspend_max_time_ms == 15_000  # 212
    assert config.pull_time_delay_millis_when_exception == 1000  # 135
    assert PullConsumerConfig().broker_suspend_max_time_ms == 20_000  # 195
    assert PullConsumerConfig().consumer_timeout_when_suspend_ms == 30_000
    lite = LitePullConsumerConfig()
    assert (lite.poll_timeout_ms, lite.auto_commit_interval_ms, lite.auto_commit) == (
        5000,
        5000,
        True,
    )  # 204 f.
    assert (lite.pull_batch_size, lite.pull_threshold_for_all) == (10, 10_000)
    assert instance.REBALANCE_PERIOD_S == 20  # 122
    assert consume_service.CONSUME_AGAIN_S == 5  # 156
    assert (queue_locks.LOCK_LIFE_MS, orderly_locks.LOCK_INTERVAL_S) == (60_000, 20)  # 165, 166
    assert orderly_locks.LOCK_MAX_LIVE_S == 30  # 167
    assert (pull_schedule_service.NEXT_DELAY_MS, pull_schedule_service.AFTER_ERROR_S) == (200, 1)  # 200, 201
    broker = BrokerSettings()
    assert broker.channel_expired_timeout == 120_000  # 248
    assert broker.short_polling_time_mills == 1000  # 213
