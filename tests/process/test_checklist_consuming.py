"""What push and pull consumers promise, line by line of the behaviour checklist (docs/checklist.md).

On a real broker with delay levels of a second; each test names its lines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from shmq import (
    AdminClient,
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    ConsumeOrderlyContext,
    ConsumeOrderlyStatus,
    LitePullConsumer,
    Message,
    MessageExt,
    MessageQueue,
    MessageSelector,
    Producer,
    PullConsumer,
    PullScheduleService,
    PullStatus,
    PullTaskContext,
    PushConsumer,
)
from shmq.base.errors import InvalidParameter
from shmq.client import instance, orderly_locks
from shmq.client.consumer_config import ConsumerConfig, PushConsumerConfig
from shmq.client.offset_store import NO_OFFSET, ReadMode
from shmq.client.orderly_locks import OrderlyLocks
from shmq.embedded import Broker
from shmq.model.consumer_group import SubscriptionGroupConfig
from shmq.model.names import dlq_topic
from shmq.model.topic_config import TopicConfig
from tests.helpers.waiting import wait_until

SUCCESS = ConsumeConcurrentlyStatus.CONSUME_SUCCESS
LATER = ConsumeConcurrentlyStatus.RECONSUME_LATER
FIRST = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(brokerWorkers=1, messageDelayLevel="1s 1s 1s 1s 2s " + "1s " * 13) as running:
        yield running


def filled(broker: Broker, topic: str, count: int, **message: object) -> MessageQueue:
    """A topic with one queue and messages 0, 1, 2 ... in it."""
    with Producer("Consuming", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, 1)
        queue = producer.fetch_publish_message_queues(topic)[0]
        for number in range(count):
            producer.send(Message(topic, b"%d" % number, **message), queue=queue)  # type: ignore[arg-type]
    return queue


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
        states = consumer._pulling._states
        wait_until(lambda: all(states[queue].controlled for queue in queues), 20, "no more is pulled")
        # 100 // 5, as the retry topic's queue counts, too, and what was pulled before that was known. Each
        # queue would hold over 100 if the limit were its own, and all 200 without any.
        assert all(20 < count < 60 for count in held()), held()
        gate.set()


def test_128_consumers_own_the_read_queues(broker: Broker) -> None:
    with AdminClient(broker.namesrv_addr) as admin:
        admin.create_topic(broker.tcp_addr, TopicConfig("MoreReadable", 8, 4))
    with member(broker, "MoreReadable", Listener()) as consumer:
        wait_until(lambda: owned(consumer, "MoreReadable") == list(range(8)), 20, "all eight")


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


@pytest.mark.long
def test_149_152_after_seventeen_deliveries_a_message_is_dead(broker: Broker) -> None:
    filled(broker, "Hopeless", 1)
    listener = Listener(lambda message: LATER)
    with (
        member(broker, "Hopeless", listener),
        PullConsumer("DeadReader", namesrv_addr=broker.namesrv_addr) as reader,
    ):
        wait_until(lambda: len(listener.seen) == 17, 60, "all tries")

        def dead() -> bool:
            queues = reader.fetch_subscribe_message_queues(dlq_topic("HopelessGroup"))
            return bool(queues) and reader.pull(queues[0], "*", 0, 32).status is PullStatus.FOUND

        wait_until(dead, 20, "it is a dead letter")
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
        wait_until(lambda: consumer._pulling._states[queue].controlled, 20, "until the span is too long")
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


# -- pull and lite pull --


def test_195_a_held_pull_without_news_ends_with_its_time(broker: Broker) -> None:
    queue = filled(broker, "HeldPull", 1)
    with PullConsumer(
        "HeldPullGroup",
        namesrv_addr=broker.namesrv_addr,
        broker_suspend_max_time_ms=300,
        consumer_timeout_when_suspend_ms=5000,
    ) as consumer:
        for _ in range(2):
            began = time.monotonic()
            result = consumer.pull_block_if_not_found(queue, "*", 1, 32)
            assert (result.status, result.next_begin_offset) == (PullStatus.NO_NEW_MSG, 1)
            assert time.monotonic() - began >= 0.3


def test_199_202_listeners_and_tasks_follow_the_queues(broker: Broker) -> None:
    with Producer("Consuming", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic("Follow", 4)
    heard: list[tuple[int, list[int]]] = []
    calls: list[int] = []

    def listen(topic: str, everyones: object, mine: set[MessageQueue]) -> None:
        heard.append((len(list(everyones)), sorted(queue.queue_id for queue in mine)))  # type: ignore[call-overload]

    def task(queue: MessageQueue, context: PullTaskContext) -> None:
        calls.append(queue.queue_id)
        context.pull_next_delay_time_millis = 10

    consumer = PullConsumer("FollowGroup", namesrv_addr=broker.namesrv_addr, instance_name="one")
    consumer.register_message_queue_listener("Follow", listen)
    with consumer:
        wait_until(lambda: heard == [(4, [0, 1, 2, 3])], 20, "all are its own")
        service = PullScheduleService("FollowGroup", namesrv_addr=broker.namesrv_addr, instance_name="two")
        service.register_pull_task_callback("Follow", task)
        with service:
            wait_until(lambda: len(heard) == 2 and len(heard[1][1]) == 2, 20, "it hears of its new share")
            theirs = {0, 1, 2, 3} - set(heard[1][1])
            wait_until(lambda: set(calls) >= theirs, 20, "the tasks of the others run")
            third = PullConsumer("FollowGroup", namesrv_addr=broker.namesrv_addr, instance_name="three")
            third.register_message_queue_listener("Follow", lambda *_: None)
            with third:
                share = service.consumer.fetch_message_queues_in_balance
                wait_until(lambda: len(share("Follow")) < 2, 20, "one goes to a third member")
                left = {queue.queue_id for queue in share("Follow")}
                calls.clear()
                wait_until(lambda: len(calls) > 5, 20, "tasks go on") if left else None
                del calls[:3]  # a call that was under way
                assert set(calls) <= left


def lite(broker: Broker, topic: str, expression: object = "*", **settings: object) -> LitePullConsumer:
    consumer = LitePullConsumer(
        f"{topic}Group", namesrv_addr=broker.namesrv_addr, consume_from_where=FIRST, **settings
    )
    consumer.subscribe(topic, expression)  # type: ignore[arg-type]
    return consumer


def polled(consumer: LitePullConsumer, count: int) -> list[MessageExt]:
    found: list[MessageExt] = []
    wait_until(lambda: bool(found.extend(consumer.poll(200))) or len(found) >= count, 20, "enough")
    return found


@pytest.mark.long
def test_204_205_206_polls_end_with_their_time_and_commit_what_was_polled(broker: Broker) -> None:
    queue = filled(broker, "Polls", 30)
    with lite(broker, "Polls", auto_commit=False) as consumer:
        assert len(polled(consumer, 30)) == 30
        began = time.monotonic()
        assert consumer.poll(300) == []
        assert time.monotonic() - began >= 0.3
        with pytest.raises(InvalidParameter, match="-1"):
            consumer.poll(-1)
    with lite(broker, "Polls", auto_commit_interval_ms=1000) as consumer:
        assert len(polled(consumer, 30)) == 30, "nothing was committed"
        wait_until(
            lambda: consumer.poll(200) == [] and consumer.committed(queue) == 30, 20, "a later poll does"
        )
    assert stored_offset(broker, "PollsGroup", queue) == 30


@pytest.mark.long
def test_207_208_209_210_seek_pause_times_and_selectors(broker: Broker) -> None:
    queue = filled(broker, "Seeks", 20, properties={"a": "1"})
    with lite(broker, "Seeks") as consumer:
        wait_until(lambda: queue in consumer.assignment, 20, "it has its queue")
        consumer.seek(queue, 7)
        assert polled(consumer, 1)[0].queue_offset == 7
        for outside in (-1, 21):
            with pytest.raises(InvalidParameter, match=rf"offset {outside} .* outside 0\.\.20"):
                consumer.seek(queue, outside)
        polled(consumer, 0)
        consumer.pause([queue])
        wait_until(lambda: consumer.poll(100) == [], 20, "what was fetched is polled")
        with Producer("Consuming", namesrv_addr=broker.namesrv_addr) as producer:
            stored = producer.send(Message("Seeks", b"20", properties={"a": "2"}), queue=queue)
        consumer.seek(queue, 0)
        fetched = consumer.poll(1500)
        assert fetched == [], "a paused queue brings nothing"
        consumer.resume([queue])
        found = polled(consumer, 21)
        assert [message.queue_offset for message in found] == list(range(21))
        at = found[-1].store_timestamp
        first = next(message for message in found if message.store_timestamp >= at)
        assert consumer.offset_for_timestamp(queue, at) == first.queue_offset
        assert consumer.offset_for_timestamp(queue, at + 1) == 21 == stored.queue_offset + 1
    selecting = LitePullConsumer("SeeksSql", namesrv_addr=broker.namesrv_addr, consume_from_where=FIRST)
    selecting.subscribe("Seeks", MessageSelector.by_sql("a = 2"))
    with selecting:
        assert [message.body for message in polled(selecting, 1)] == [b"20"]


# -- settings --


def test_191_consume_timestamp_is_half_an_hour_ago_unless_it_is_said() -> None:
    ago_ms = time.time() * 1000 - ConsumerConfig().consume_timestamp_ms()
    assert 30 * 60_000 - 1 <= ago_ms < 31 * 60_000  # the property ends with whole milliseconds
    said = ConsumerConfig(consume_timestamp="20260102030405")
    assert time.localtime(said.consume_timestamp_ms() / 1000)[:6] == (2026, 1, 2, 3, 4, 5)
    with pytest.raises(InvalidParameter, match="write yyyyMMddHHmmss"):
        ConsumerConfig(consume_timestamp="yesterday").consume_timestamp_ms()


def test_defaults_are_rocketmqs() -> None:
    config = PushConsumerConfig()
    assert (config.consume_thread_min, config.consume_thread_max) == (20, 20)
    assert (config.pull_batch_size, config.consume_message_batch_max_size) == (32, 1)
    assert (config.pull_threshold_for_queue, config.consume_concurrently_max_span) == (1000, 2000)
    assert config.consume_from_where is ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET
