"""`for message in consumer` and its asyncio forms: a message is consumed when the next one is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import defaultdict

import pytest

from shmq import (
    ConsumeFromWhere,
    ConsumeOrderlyContext,
    ConsumeOrderlyStatus,
    LitePullConsumer,
    Message,
    MessageExt,
    MessageQueue,
    Producer,
)
from shmq.aio import LitePullConsumer as AioLitePullConsumer
from shmq.aio import PushConsumer as AioPushConsumer
from shmq.client.errors import ClientStateError
from shmq.embedded import Broker
from tests.helpers.waiting import wait_until

FIRST = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET


def filled(broker: Broker, topic: str, count: int, queues: int = 1) -> list[MessageQueue]:
    with Producer("Loops", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, queues)
        found = producer.fetch_publish_message_queues(topic)
        for number in range(count):
            queue = found[number % queues]
            producer.send(Message(topic, b"%d" % number), queue=queue)
    return found


def lite(broker: Broker, topic: str, **settings: object) -> LitePullConsumer:
    consumer = LitePullConsumer(
        f"{topic}Group", namesrv_addr=broker.namesrv_addr, consume_from_where=FIRST, **settings
    )
    consumer.subscribe(topic)
    return consumer


def taken(consumer: LitePullConsumer, count: int) -> list[bytes]:
    """The first messages of a loop that is left with the last of them in hand."""
    found: list[bytes] = []
    for message in consumer:
        found.append(bytes(message.body))
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "socket"])
def test_a_message_is_consumed_when_the_next_is_asked_for(shared_broker: Broker, direct: bool) -> None:
    topic = f"LoopAck{direct}"
    (queue,) = filled(shared_broker, topic, 100)
    with lite(shared_broker, topic, direct_pull=direct) as consumer:
        assert taken(consumer, 10) == [b"%d" % number for number in range(10)]
        consumer.commit(persist=True)
        assert consumer.committed(queue) == 9, "the one in hand is not consumed"
        assert taken(consumer, 3) == [b"9", b"10", b"11"]
    with lite(shared_broker, topic, direct_pull=direct) as consumer:
        assert consumer.committed(queue) == 11, "shutdown commits what was consumed"
        assert taken(consumer, 89) == [b"%d" % number for number in range(11, 100)]


def test_an_error_in_the_loop_leaves_its_message_to_the_next(shared_broker: Broker) -> None:
    filled(shared_broker, "LoopError", 5)
    with pytest.raises(ZeroDivisionError), lite(shared_broker, "LoopError") as consumer:
        for message in consumer:
            if message.body == b"2":
                raise ZeroDivisionError
    with lite(shared_broker, "LoopError") as consumer:
        assert taken(consumer, 3) == [b"2", b"3", b"4"]


@pytest.mark.long
def test_shutdown_ends_a_waiting_loop_and_polls_and_loops_mix(shared_broker: Broker) -> None:
    filled(shared_broker, "LoopStop", 2)
    consumer = lite(shared_broker, "LoopStop")
    consumer.start()
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.extend(bytes(m.body) for m in consumer))
    thread.start()
    wait_until(lambda: len(found) == 2, 20, "both are there")
    consumer.shutdown()
    thread.join(5)
    assert not thread.is_alive()
    with lite(shared_broker, "LoopStop") as again:
        assert [bytes(message.body) for message in again.poll(2000)] == []


def test_async_for_consumes_like_the_plain_loop(shared_broker: Broker) -> None:
    filled(shared_broker, "LoopAio", 60, queues=3)

    async def take(count: int) -> list[bytes]:
        consumer = AioLitePullConsumer(
            "LoopAioGroup", namesrv_addr=shared_broker.namesrv_addr, consume_from_where=FIRST
        )
        await consumer.subscribe("LoopAio")
        found: list[bytes] = []
        async with consumer:
            async for message in consumer:
                found.append(bytes(message.body))
                if len(found) == count:
                    break
        return found

    first = asyncio.run(take(20))
    rest = asyncio.run(take(41))
    assert sorted([*first[:-1], *rest], key=int) == [b"%d" % number for number in range(60)]


def test_an_async_lite_pull_consumer_polls_seeks_and_pauses(shared_broker: Broker) -> None:
    (queue,) = filled(shared_broker, "LiteAio", 20)

    async def run() -> None:
        consumer = AioLitePullConsumer("LiteAioGroup", namesrv_addr=shared_broker.namesrv_addr)
        await consumer.assign([queue])
        async with consumer:
            while queue not in consumer.assignment:
                await asyncio.sleep(0.01)
            await consumer.seek(queue, 5)
            assert (await consumer.poll(5000))[0].queue_offset == 5
            await consumer.seek_to_begin(queue)
            assert (await consumer.poll(5000))[0].queue_offset == 0
            await consumer.seek_to_end(queue)
            assert await consumer.poll(100) == []
            await consumer.commit({queue: 7}, persist=True)
            assert await consumer.committed(queue) == 7
            consumer.pause([queue])
            consumer.resume([queue])
            found = await consumer.fetch_subscribe_message_queues("LiteAio")
            assert found == [queue] and await consumer.offset_for_timestamp(queue, 0) == 0

    asyncio.run(run())


def test_an_async_orderly_listener_keeps_the_order_of_every_queue(shared_broker: Broker) -> None:
    filled(shared_broker, "OrderlyAio", 60, queues=3)
    seen: dict[int, list[int]] = defaultdict(list)
    running: set[int] = set()
    overlaps: list[int] = []
    suspended: list[int] = []

    async def consume(messages: list[MessageExt], context: ConsumeOrderlyContext) -> ConsumeOrderlyStatus:
        (message,) = messages
        if message.queue_id in running:
            overlaps.append(message.queue_id)
        running.add(message.queue_id)
        await asyncio.sleep(0.001)
        running.discard(message.queue_id)
        if message.queue_offset == 3 and message.queue_id not in suspended:
            suspended.append(message.queue_id)
            context.suspend_current_queue_time_millis = 10
            return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT
        seen[message.queue_id].append(message.queue_offset)
        return ConsumeOrderlyStatus.SUCCESS

    async def run() -> None:
        consumer = AioPushConsumer(
            "OrderlyAioGroup", namesrv_addr=shared_broker.namesrv_addr, consume_from_where=FIRST
        )
        await consumer.subscribe("OrderlyAio")
        consumer.register_message_listener_orderly(consume)
        async with consumer, asyncio.timeout(20):
            while sum(map(len, seen.values())) < 60:
                await asyncio.sleep(0.01)

    asyncio.run(run())
    assert overlaps == [] and sorted(suspended) == [0, 1, 2]
    assert dict(seen) == {queue_id: list(range(20)) for queue_id in range(3)}


def test_a_poll_that_is_cancelled_when_news_come_ends(shared_broker: Broker) -> None:
    """Whichever of the two the event loop sees first."""
    filled(shared_broker, "LoopNews", 0)

    async def run() -> None:
        consumer = AioLitePullConsumer("LoopNewsGroup", namesrv_addr=shared_broker.namesrv_addr)
        await consumer.subscribe("LoopNews")
        async with consumer:
            for turns in range(6):
                task = asyncio.create_task(consumer.poll(60_000))
                while not consumer._waiters:
                    await asyncio.sleep(0)
                await asyncio.sleep(0.001)
                consumer._news.set()
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                done, _ = await asyncio.wait([task], timeout=5)
                assert done and task.cancelled(), turns

    asyncio.run(run())


@pytest.mark.parametrize("way", ["loop", "poll"])
def test_who_is_cancelled_while_waiting_has_lost_no_message(shared_broker: Broker, way: str) -> None:
    """A timeout around a poll or a loop: what comes after it is there for the next one."""
    topic = f"LoopCancel{way}"
    (queue,) = filled(shared_broker, topic, 0)
    found: list[bytes] = []

    async def consume(consumer: AioLitePullConsumer) -> None:
        if way == "loop":
            async for message in consumer:
                found.append(bytes(message.body))
        while True:
            found.extend(bytes(message.body) for message in await consumer.poll(20_000))

    async def run(producer: Producer) -> None:
        consumer = AioLitePullConsumer(
            f"{topic}Group", namesrv_addr=shared_broker.namesrv_addr, consume_from_where=FIRST
        )
        await consumer.subscribe(topic)
        async with consumer:
            async with asyncio.timeout(20):
                while queue not in consumer.assignment:
                    await asyncio.sleep(0.01)
            for number in range(10):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(consume(consumer), 0.02)
                await asyncio.to_thread(producer.send, Message(topic, b"%d" % number), queue=queue)
            task = asyncio.create_task(consume(consumer))
            async with asyncio.timeout(20):
                while len(found) < 10:
                    await asyncio.sleep(0.01)
            await consumer.shutdown()
            with pytest.raises(ClientStateError):
                await task
            with pytest.raises(ClientStateError):
                await consumer.commit()

    with Producer("Loops", namesrv_addr=shared_broker.namesrv_addr) as producer:
        asyncio.run(run(producer))
    assert found == [b"%d" % number for number in range(10)]
