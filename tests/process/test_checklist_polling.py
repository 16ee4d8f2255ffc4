"""What pull, lite pull consumers and pull tasks promise, line by line of the behaviour checklist
(docs/checklist.md). Each test names its lines."""

from __future__ import annotations

import time

import pytest

from shmq import (
    AdminClient,
    ConsumeFromWhere,
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
)
from shmq.base.errors import InvalidParameter
from shmq.embedded import Broker
from shmq.model.topic_config import TopicConfig
from tests.helpers.filled_topic import filled
from tests.helpers.waiting import wait_until

FIRST = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET


def stored_offset(broker: Broker, group: str, queue: MessageQueue) -> int:
    with PullConsumer(group, namesrv_addr=broker.namesrv_addr) as reader:
        return reader.fetch_consume_offset(queue)


def test_195_a_held_pull_without_news_ends_with_its_time(shared_broker: Broker) -> None:
    queue = filled(shared_broker, "HeldPull", 1)
    with PullConsumer(
        "HeldPullGroup",
        namesrv_addr=shared_broker.namesrv_addr,
        broker_suspend_max_time_ms=300,
        consumer_timeout_when_suspend_ms=5000,
    ) as consumer:
        for _ in range(2):
            began = time.monotonic()
            result = consumer.pull_block_if_not_found(queue, "*", 1, 32)
            assert (result.status, result.next_begin_offset) == (PullStatus.NO_NEW_MSG, 1)
            assert time.monotonic() - began >= 0.3


def test_199_202_listeners_and_tasks_follow_the_queues(shared_broker: Broker) -> None:
    with Producer("Consuming", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.create_topic("Follow", 4)
    heard: list[tuple[int, list[int]]] = []
    calls: list[int] = []

    def listen(topic: str, everyones: object, mine: set[MessageQueue]) -> None:
        heard.append((len(list(everyones)), sorted(queue.queue_id for queue in mine)))  # type: ignore[call-overload]

    def task(queue: MessageQueue, context: PullTaskContext) -> None:
        calls.append(queue.queue_id)
        context.pull_next_delay_time_millis = 10

    consumer = PullConsumer("FollowGroup", namesrv_addr=shared_broker.namesrv_addr, instance_name="one")
    consumer.register_message_queue_listener("Follow", listen)
    with consumer:
        wait_until(lambda: heard == [(4, [0, 1, 2, 3])], 20, "all are its own")
        service = PullScheduleService(
            "FollowGroup", namesrv_addr=shared_broker.namesrv_addr, instance_name="two"
        )
        service.register_pull_task_callback("Follow", task)
        with service:
            wait_until(lambda: len(heard) == 2 and len(heard[1][1]) == 2, 20, "it hears of its new share")
            theirs = {0, 1, 2, 3} - set(heard[1][1])
            wait_until(lambda: set(calls) >= theirs, 20, "the tasks of the others run")
            third = PullConsumer(
                "FollowGroup", namesrv_addr=shared_broker.namesrv_addr, instance_name="three"
            )
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
def test_204_205_206_polls_end_with_their_time_and_commit_what_was_polled(shared_broker: Broker) -> None:
    queue = filled(shared_broker, "Polls", 30)
    with lite(shared_broker, "Polls", auto_commit=False) as consumer:
        assert len(polled(consumer, 30)) == 30
        began = time.monotonic()
        assert consumer.poll(300) == []
        assert time.monotonic() - began >= 0.3
        with pytest.raises(InvalidParameter, match="-1"):
            consumer.poll(-1)
    with lite(shared_broker, "Polls", auto_commit_interval_ms=1000) as consumer:
        assert len(polled(consumer, 30)) == 30, "nothing was committed"
        wait_until(
            lambda: consumer.poll(200) == [] and consumer.committed(queue) == 30, 20, "a later poll does"
        )
    assert stored_offset(shared_broker, "PollsGroup", queue) == 30


@pytest.mark.long
def test_207_208_209_210_seek_pause_times_and_selectors(shared_broker: Broker) -> None:
    queue = filled(shared_broker, "Seeks", 20, properties={"a": "1"})
    with lite(shared_broker, "Seeks") as consumer:
        wait_until(lambda: queue in consumer.assignment, 20, "it has its queue")
        consumer.seek(queue, 7)
        assert polled(consumer, 1)[0].queue_offset == 7
        for outside in (-1, 21):
            with pytest.raises(InvalidParameter, match=rf"offset {outside} .* outside 0\.\.20"):
                consumer.seek(queue, outside)
        polled(consumer, 0)
        consumer.pause([queue])
        wait_until(lambda: consumer.poll(100) == [], 20, "what was fetched is polled")
        with Producer("Consuming", namesrv_addr=shared_broker.namesrv_addr) as producer:
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
        consumer.seek_to_timestamp(queue, at)
        assert polled(consumer, 1)[0].queue_offset == first.queue_offset
        assert consumer.offset_for_timestamp(queue, at + 1) == 21 == stored.queue_offset + 1
    selecting = LitePullConsumer(
        "SeeksSql", namesrv_addr=shared_broker.namesrv_addr, consume_from_where=FIRST
    )
    selecting.subscribe("Seeks", MessageSelector.by_sql("a = 2"))
    with selecting:
        assert [message.body for message in polled(selecting, 1)] == [b"20"]


def test_pulls_with_a_callback_end_like_those_that_wait(shared_broker: Broker) -> None:
    queue = filled(shared_broker, "PullAsync", 3)
    called: list[object] = []
    with (
        PullConsumer("PullAsyncGroup", namesrv_addr=shared_broker.namesrv_addr) as consumer,
        Producer("Polling", namesrv_addr=shared_broker.namesrv_addr) as producer,
    ):
        found = consumer.pull_async(queue, "*", 0, 32, called.append).result(20)
        assert [message.body for message in found.messages] == [b"0", b"1", b"2"] and called == [found]
        assert consumer.pull_async(queue, "*", 3, 32).result(20).status is PullStatus.NO_NEW_MSG
        held = consumer.pull_async(queue, "*", 3, 32, block_if_not_found=True)
        assert not held.done()
        producer.send(Message("PullAsync", b"3"), queue=queue)
        assert [message.body for message in held.result(20).messages] == [b"3"]
        errors: list[BaseException] = []
        nowhere = MessageQueue("PullAsync", queue.broker_name, 9)
        refused = consumer.pull_async(nowhere, "*", 0, 32, called.append, errors.append)
        with pytest.raises(InvalidParameter, match="queue id 9"):
            refused.result(20)
        assert errors == [refused.exception()] and called == [found]


def test_who_assigns_queues_hears_of_new_ones(shared_broker: Broker) -> None:
    queue = filled(shared_broker, "Watched", 1)
    heard: list[tuple[str, set[MessageQueue]]] = []
    consumer = LitePullConsumer(
        "WatchedGroup",
        namesrv_addr=shared_broker.namesrv_addr,
        consume_from_where=FIRST,
        topic_metadata_check_interval_ms=20,
    )
    consumer.assign([queue])
    with (
        consumer,
        AdminClient(shared_broker.namesrv_addr) as admin,
        Producer("Polling", namesrv_addr=shared_broker.namesrv_addr) as producer,
    ):
        assert consumer.fetch_message_queues("Watched") == [queue]
        consumer.register_topic_message_queue_change_listener("Watched", lambda *told: heard.append(told))
        admin.create_topic(shared_broker.tcp_addr, TopicConfig("Watched", 2, 2))
        wait_until(lambda: heard, 20, "it is told")
        other = MessageQueue("Watched", queue.broker_name, 1)
        assert heard == [("Watched", {queue, other})]
        assert [message.body for message in polled(consumer, 1)] == [b"0"]
        consumer.assign([other])
        wait_until(lambda: consumer.assignment == {other}, 20, "it reads that one instead")
        producer.send(Message("Watched", b"1"), queue=other)
        assert [message.body for message in polled(consumer, 1)] == [b"1"]
        assert len(heard) == 1
