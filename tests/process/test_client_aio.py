"""The asyncio clients: sends, coroutine listeners and pulls, with the loop running all the while."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta

import pytest

from shmq import ConsumeConcurrentlyContext, ConsumeConcurrentlyStatus, ConsumeFromWhere, Message, MessageExt
from shmq.aio import Producer, PullConsumer, PushConsumer
from shmq.base.errors import IllegalOperation, MessageIllegal
from shmq.client.errors import ClientStateError
from shmq.client.pull import PullStatus
from shmq.embedded import Broker
from tests.helpers.waiting import wait_until
from tests.helpers.whole_broker import read_all


async def longest_stall(stop: asyncio.Event) -> float:
    """The longest time the loop did not come back to this task, in seconds."""
    longest, before = 0.0, time.perf_counter()
    while not stop.is_set():
        await asyncio.sleep(0.005)
        now = time.perf_counter()
        longest, before = max(longest, now - before - 0.005), now
    return longest


def test_many_awaited_sends_are_stored_and_pulled(shared_broker: Broker) -> None:
    async def run() -> None:
        stop = asyncio.Event()
        watch = asyncio.create_task(longest_stall(stop))
        async with Producer("AioProducer", namesrv_addr=shared_broker.namesrv_addr) as producer:
            bodies = [b"aio %d" % number for number in range(500)]
            results = await asyncio.gather(*(producer.send(Message("AioSend", body)) for body in bodies))
            assert len({(r.message_queue, r.queue_offset) for r in results}) == 500
            batch = await producer.send([Message("AioSend", b"batch %d" % n) for n in range(3)])
            assert batch.msg_id.count(",") == 2
        async with PullConsumer("AioPull", namesrv_addr=shared_broker.namesrv_addr) as consumer:
            pulled: list[bytes] = []
            for queue in await consumer.fetch_subscribe_message_queues("AioSend"):
                offset = await consumer.min_offset(queue)
                while (result := await consumer.pull(queue, "*", offset, 100)).status is PullStatus.FOUND:
                    pulled += [bytes(message.body) for message in result.messages]
                    offset = result.next_begin_offset
            assert sorted(pulled) == sorted([*bodies, b"batch 0", b"batch 1", b"batch 2"])
        stop.set()
        assert await watch < 0.5

    asyncio.run(run())


def test_a_coroutine_listener_gets_every_message(shared_broker: Broker) -> None:
    async def run() -> None:
        got: set[bytes] = set()
        enough = asyncio.Event()

        async def consume(
            messages: list[MessageExt], context: ConsumeConcurrentlyContext
        ) -> ConsumeConcurrentlyStatus:
            await asyncio.sleep(0.001)
            got.update(bytes(message.body) for message in messages)
            if len(got) == 100:
                enough.set()
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

        async with Producer("AioProducer", namesrv_addr=shared_broker.namesrv_addr) as producer:
            consumer = PushConsumer(
                "AioPush",
                namesrv_addr=shared_broker.namesrv_addr,
                consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
            )
            await consumer.subscribe("AioListen")
            consumer.register_message_listener(consume)
            await producer.send(Message("AioListen", b"first"))
            async with consumer:
                await asyncio.gather(*(producer.send(Message("AioListen", b"%d" % n)) for n in range(99)))
                await asyncio.wait_for(enough.wait(), 20)

    asyncio.run(run())


def test_errors_of_a_send_reach_whoever_awaits_it(shared_broker: Broker) -> None:
    async def run() -> None:
        producer = Producer("AioProducer", namesrv_addr=shared_broker.namesrv_addr)
        with pytest.raises(ClientStateError):
            await producer.send(Message("AioSend", b"too early"))
        async with producer:
            with pytest.raises(MessageIllegal):
                await producer.send(Message("AioSend", b""))
            await producer.send_oneway(Message("AioSend", b"oneway"))

    asyncio.run(run())


def test_waiting_messages_are_taken_back_and_put_off(shared_broker: Broker) -> None:
    """Checklist 84 and 85 from a loop."""

    async def run() -> None:
        async with Producer("AioTimers", namesrv_addr=shared_broker.namesrv_addr) as producer:
            back, off = await asyncio.gather(
                *(producer.send(Message("AioTimed", body, delay=timedelta(hours=1))) for body in (b"1", b"2"))
            )
            assert await producer.recall_message("AioTimed", back.recall_handle or "") == back.msg_id
            later = datetime.now() + timedelta(hours=2)
            again = await producer.reschedule_message("AioTimed", off.recall_handle or "", later)
            assert again and again != off.recall_handle
            assert await producer.reschedule_message("AioTimed", again, datetime(2020, 1, 1)) == ""
            with pytest.raises(IllegalOperation):
                await producer.recall_message("AioTimed", again)

    asyncio.run(run())
    wait_until(
        lambda: [message.body for message in read_all(shared_broker, "AioTimed")] == [b"2"], 20, "delivered"
    )
