"""shmq's Python client: to shmq over its Unix socket, and to Apache RocketMQ over TCP (the same code).

Options: `direct` reads through maps of the store's files; `asleep` never spins for an answer; any other
name is a setting of the producer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from bench.drivers import driver
from bench.drivers.driver import KEY_EVERY, KEYS, TAG, Handler, Settle
from shmq import (
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    MessageExt,
    MessageQueue,
    Producer,
    PullConsumer,
    PushConsumer,
)
from shmq.client.admin_client import AdminClient

PULL_COUNT = 1_000
GROUP = "BenchProducer"
READER_GROUP = "BenchReader"
NO_COMPRESSION = 1 << 30
SEND_TIMEOUT_MS = 30_000
QUEUES_LIMIT_S = 30.0


class Sender(driver.Sender):
    """A producer of its own client instance."""

    def __init__(self, address: str, topic: str, queues: int, spin_micros: int) -> None:
        """Start it and look its queues up."""
        self._topic = topic
        self._producer = Producer(
            GROUP,
            namesrv_addr=address,
            compress_msg_body_over_howmuch=NO_COMPRESSION,
            send_msg_timeout_ms=SEND_TIMEOUT_MS,
            spin_micros=spin_micros,
        )
        self._producer.start()
        self._queues: list[MessageQueue] = self._producer.fetch_publish_message_queues(topic)[:queues]

    def _message(self, body: bytes, number: int) -> Message:
        return Message(self._topic, body, TAG, KEYS[number % KEY_EVERY])

    def _queue(self, number: int) -> MessageQueue:
        return self._queues[number % len(self._queues)]

    def send(self, body: bytes, number: int) -> object:
        """Send one message."""
        return self._producer.send(self._message(body, number), queue=self._queue(number))

    def send_async(self, body: bytes, number: int) -> Settle:
        """Hand one message over; the client batches by itself."""
        return self._producer.send_async(self._message(body, number), queue=self._queue(number)).result

    def send_batch(self, bodies: list[bytes], number: int) -> Settle:
        """Hand a list over as one batch for one queue."""
        batch = [self._message(body, number + place) for place, body in enumerate(bodies)]
        return self._producer.send_async(batch, queue=self._queue(number // len(bodies))).result

    def close(self) -> None:
        """Shut it down."""
        self._producer.shutdown()


class Driver(driver.Driver):
    """Address: {"namesrv": ...}."""

    def __init__(self, address: dict[str, str], options: dict[str, object]) -> None:
        """Note where the name server is."""
        self._address = address["namesrv"]
        self._direct = bool(options.get("direct"))
        self._spin_micros = 0 if options.get("asleep") else -1

    def make_topic(self, topic: str, queues: int) -> None:
        """Make the topic on every broker."""
        with AdminClient(namesrv_addr=self._address) as admin:
            admin.ensure_topic(topic, queues=queues)

    def sender(self, topic: str, queues: int) -> Sender:
        """A producer."""
        return Sender(self._address, topic, queues, self._spin_micros)

    def read_all(self, topic: str) -> Iterator[tuple[int, int]]:
        """Pull each queue, 1,000 messages a call, and take every body.

        The direct reader checks each body's CRC itself; a pull through the socket leaves that to the caller.
        """
        with PullConsumer(READER_GROUP, namesrv_addr=self._address, direct_pull=self._direct) as consumer:
            for queue in consumer.fetch_subscribe_message_queues(topic):
                offset, end = consumer.min_offset(queue), consumer.max_offset(queue)
                while offset < end:
                    found = consumer.pull(queue, "*", offset, PULL_COUNT)
                    yield len(found.messages), sum(len(message.body) for message in found.messages)
                    offset = found.next_begin_offset

    @contextlib.contextmanager
    def subscribe(self, topic: str, group: str, handler: Handler) -> Iterator[object]:
        """A push consumer; pulls of 1,000, up to 32 messages a listener call, on one thread per call."""

        def listen(
            messages: list[MessageExt], context: ConsumeConcurrentlyContext
        ) -> ConsumeConcurrentlyStatus:
            del context
            handler([bytes(message.body) for message in messages])
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

        consumer = PushConsumer(
            group,
            namesrv_addr=self._address,
            consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
            consume_message_batch_max_size=32,
            pull_batch_size=1000,
            direct_pull=self._direct,
        )
        consumer.subscribe(topic, "*")
        consumer.register_message_listener(listen)
        with consumer:
            _await_queues(consumer)
            yield consumer


def _await_queues(consumer: PushConsumer) -> None:
    """Return when it has its queues, not up to a rebalance interval later."""
    deadline = time.monotonic() + QUEUES_LIMIT_S
    while not consumer.assigned_queues():
        if time.monotonic() > deadline:
            raise TimeoutError("the consumer got no queue")
        consumer.rebalance()
        time.sleep(0.02)
