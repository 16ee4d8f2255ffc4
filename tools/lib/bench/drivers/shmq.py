"""shmq's Python client: to shmq over its Unix socket, and to Apache RocketMQ over TCP (the same code).

Options: `direct` reads through maps of the store's files; `asleep` never spins for an answer; `percent` of
the messages carry TagA, the others TagB; `filter` (of `filter_kind` tag or sql) reads only what it passes;
`orderly` consumes in order; `delay_s` 1 delays by one second; `transaction` sends in transactions that
commit.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

from bench.drivers import driver
from bench.drivers.driver import KEY_EVERY, KEYS, OTHER_TAG, TAG, Handler, Settle
from bench.load.job import Job, Outcome
from shmq import (
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
from shmq.client.admin_client import AdminClient

PULL_COUNT = 1_000
GROUP = "BenchProducer"
TRANSACTION_GROUP = "BenchTransactions"
READER_GROUP = "BenchReader"
NO_COMPRESSION = 1 << 30
SEND_TIMEOUT_MS = 30_000
QUEUES_LIMIT_S = 30.0


class Sender(driver.Sender):
    """A producer of its own client instance."""

    def __init__(self, address: str, topic: str, queues: int, options: dict[str, Any]) -> None:
        """Start it and look its queues up."""
        self._topic = topic
        self._percent = int(options.get("percent", 100))
        self._has_part = options.get("filter_kind") == "sql"
        self._delay_level = int(options.get("delay_s", 0))
        self._producer = _producer(
            options,
            namesrv_addr=address,
            compress_msg_body_over_howmuch=NO_COMPRESSION,
            send_msg_timeout_ms=SEND_TIMEOUT_MS,
            spin_micros=0 if options.get("asleep") else -1,
        )
        self._producer.start()
        self._in_transaction = bool(options.get("transaction"))
        self._is_retried = bool(options.get("retried"))
        self._queues: list[MessageQueue] = self._producer.fetch_publish_message_queues(topic)[:queues]

    def _message(self, body: bytes, number: int) -> Message:
        tag = TAG if number % 100 < self._percent else OTHER_TAG
        message = Message(self._topic, body, tag, KEYS[number % KEY_EVERY])
        if self._has_part:
            message.put_user_property("part", tag)
        if self._delay_level:
            message.delay_level = self._delay_level
        return message

    def _queue(self, number: int) -> MessageQueue:
        return self._queues[number % len(self._queues)]

    def send(self, body: bytes, number: int) -> object:
        """Send one message."""
        if self._in_transaction:
            return self._producer.send_message_in_transaction(self._message(body, number))
        # A send to a queue that its caller has chosen is not tried again, as in RocketMQ.
        queue = None if self._is_retried else self._queue(number)
        return self._producer.send(self._message(body, number), queue=queue)

    def send_async(self, body: bytes, number: int) -> Settle:
        """Hand one message over; the client batches by itself."""
        settle: Settle = self._producer.send_async(
            self._message(body, number), queue=self._queue(number)
        ).result
        return settle

    def send_batch(self, bodies: list[bytes], number: int) -> Settle:
        """Hand a list over as one batch for one queue."""
        batch = [self._message(body, number + place) for place, body in enumerate(bodies)]
        settle: Settle = self._producer.send_async(batch, queue=self._queue(number // len(bodies))).result
        return settle

    def close(self) -> None:
        """Shut it down."""
        self._producer.shutdown()


class Driver(driver.Driver):
    """Address: {"namesrv": ...}."""

    def __init__(self, address: dict[str, str], options: dict[str, Any]) -> None:
        """Note where the name server is."""
        self._address = address["namesrv"]
        self._options = options
        self._direct = bool(options.get("direct"))
        self._members = itertools.count()

    def make_topic(self, topic: str, queues: int) -> None:
        """Make the topic on every broker."""
        with AdminClient(namesrv_addr=self._address) as admin:
            admin.ensure_topic(topic, queues=queues)

    def sender(self, topic: str, queues: int) -> Sender:
        """A producer."""
        return Sender(self._address, topic, queues, self._options)

    def read_all(self, topic: str) -> Iterator[tuple[int, int]]:
        """Pull each queue, 1,000 messages a call, and take every body.

        The direct reader checks each body's CRC itself; a pull through the socket leaves that to the caller.
        With a filter, what it did not pass counts, too: it was looked at.
        """
        wanted = self._wanted()
        with PullConsumer(READER_GROUP, namesrv_addr=self._address, direct_pull=self._direct) as consumer:
            for queue in consumer.fetch_subscribe_message_queues(topic):
                offset, end = consumer.min_offset(queue), consumer.max_offset(queue)
                while offset < end:
                    found = consumer.pull(queue, wanted, offset, PULL_COUNT)
                    yield (
                        found.next_begin_offset - offset,
                        sum(len(message.body) for message in found.messages),
                    )
                    offset = found.next_begin_offset

    def _wanted(self) -> str | MessageSelector:
        expression = str(self._options.get("filter", "*"))
        return MessageSelector.by_sql(expression) if self._options.get("filter_kind") == "sql" else expression

    @contextlib.contextmanager
    def subscribe(self, topic: str, group: str, handler: Handler) -> Iterator[object]:
        """A push consumer; pulls of 1,000, up to 32 messages a listener call."""

        def listen(
            messages: list[MessageExt], context: ConsumeConcurrentlyContext
        ) -> ConsumeConcurrentlyStatus:
            del context
            handler([bytes(message.body) for message in messages])
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

        def listen_orderly(
            messages: list[MessageExt], context: ConsumeOrderlyContext
        ) -> ConsumeOrderlyStatus:
            del context
            handler([bytes(message.body) for message in messages])
            return ConsumeOrderlyStatus.SUCCESS

        consumer = PushConsumer(
            group,
            namesrv_addr=self._address,
            consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
            consume_message_batch_max_size=32,
            pull_batch_size=1000,
            direct_pull=self._direct,
            instance_name=f"bench{next(self._members)}",  # several of a group in one process
        )
        consumer.subscribe(topic, "*")
        if self._options.get("orderly"):
            consumer.register_message_listener_orderly(listen_orderly)
        else:
            consumer.register_message_listener(listen)
        with consumer:
            _await_queues(consumer)
            yield consumer

    def await_shares(self, members: list[Any], topic: str, queues: int) -> None:
        """Rebalance until each queue has one owner; the group's retry topic has queues of its own."""
        deadline = time.monotonic() + QUEUES_LIMIT_S
        while True:
            owned = [queue for member in members for queue in member.assigned_queues if queue.topic == topic]
            if len(owned) == queues == len(set(owned)):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{queues} queues have {len(owned)} owners")
            for member in members:
                member.rebalance()
            time.sleep(0.05)

    def own_loop(self, job: Job) -> Generator[None, None, Outcome] | None:
        """`routes`: ask the name server, in as many threads as asked for, until the time is over."""
        return self._ask_for_routes(job) if job.work == "routes" else None

    def _ask_for_routes(self, job: Job) -> Generator[None, None, Outcome]:
        self.make_topic(job.topic, job.queues)
        yield
        started = time.monotonic()
        answers = [0] * job.threads

        def ask(place: int) -> None:
            with AdminClient(namesrv_addr=self._address) as admin:
                while time.monotonic() < started + job.seconds:
                    admin.topic_route(job.topic)
                    answers[place] += 1

        askers = [threading.Thread(target=ask, args=(place,)) for place in range(job.threads)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        return Outcome(sum(answers), 0, time.monotonic() - started)


def _producer(options: dict[str, Any], **settings: Any) -> Any:
    """A producer, of transactions that always commit if they are asked for; older trees may not have
    those."""
    if not options.get("transaction"):
        return Producer(GROUP, **settings)
    from shmq import LocalTransactionState, TransactionProducer

    class Committing:
        """The local transactions: nothing is done, all succeed."""

        def execute_local_transaction(self, message: Message, argument: object) -> LocalTransactionState:
            del message, argument
            return LocalTransactionState.COMMIT_MESSAGE

        def check_local_transaction(self, message: MessageExt) -> LocalTransactionState:
            del message
            return LocalTransactionState.COMMIT_MESSAGE

    return TransactionProducer(TRANSACTION_GROUP, Committing(), **settings)


def _await_queues(consumer: PushConsumer) -> None:
    """Return when it has its queues, not up to a rebalance interval later."""
    deadline = time.monotonic() + QUEUES_LIMIT_S
    while not consumer.assigned_queues:
        if time.monotonic() > deadline:
            raise TimeoutError("the consumer got no queue")
        consumer.rebalance()
        time.sleep(0.02)
