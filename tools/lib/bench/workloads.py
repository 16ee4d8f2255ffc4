"""The workloads: each takes a running broker's name server and returns one Result.

Producers and consumers run in this process, the broker in its own: what is measured is what a program gets.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable

from bench.limits import BODY_BYTES
from bench.result import Result
from shmq import Message, Producer, PullConsumer
from shmq.client.admin_client import AdminClient
from shmq.embedded import Broker
from shmq.model.message_queue import MessageQueue

PRODUCER_GROUP = "BenchProducer"
CONSUMER_GROUP = "BenchConsumer"
BATCH = 1_000
PULL_COUNT = 1_000
BATCHES_IN_FLIGHT = 2
ASYNC_IN_FLIGHT = 8_192
WARM_UP = 500
BODY = bytes(range(256))[:BODY_BYTES]


def make_topic(namesrv_addr: str, topic: str) -> MessageQueue:
    """Make a topic of one queue and return the queue: one producer's workloads measure one path."""
    with AdminClient(namesrv_addr=namesrv_addr) as admin:
        admin.ensure_topic(topic, queues=1)
    with Producer(PRODUCER_GROUP, namesrv_addr=namesrv_addr) as producer:
        return producer.fetch_publish_message_queues(topic)[0]


def sync_send(namesrv_addr: str, seconds: float) -> Result:
    """One message after the other, each acknowledged; the caller sleeps in its socket."""
    queue = make_topic(namesrv_addr, "BenchSync")
    result = Result("sync send, one producer")
    with Producer(PRODUCER_GROUP, namesrv_addr=namesrv_addr) as producer:
        message_of = _messages(queue.topic)
        for _ in range(WARM_UP):
            producer.send(message_of(), queue=queue)
        times = []
        started = before = time.perf_counter_ns()
        end = started + int(seconds * 1e9)
        while before < end:
            producer.send(message_of(), queue=queue)
            now = time.perf_counter_ns()
            times.append(now - before)
            before = now
        result.rate = len(times) / ((before - started) / 1e9)
        result.latency.record_all(times)
    return result


def async_send(namesrv_addr: str, seconds: float) -> Result:
    """Single messages without waiting; the client makes batches of them."""
    queue = make_topic(namesrv_addr, "BenchAsync")
    result = Result("async send, one producer")
    with Producer(PRODUCER_GROUP, namesrv_addr=namesrv_addr) as producer:
        message_of = _messages(queue.topic)
        waiting: deque = deque()
        started = time.perf_counter()
        sent, end = 0, started + seconds
        while sent % 64 or time.perf_counter() < end:
            waiting.append(producer.send_async(message_of(), queue=queue))
            sent += 1
            if len(waiting) >= ASYNC_IN_FLIGHT:
                waiting.popleft().result()
        while waiting:
            waiting.popleft().result()
        result.rate = sent / (time.perf_counter() - started)
    return result


def batch_send(namesrv_addr: str, seconds: float, topic: str = "BenchBatch") -> Result:
    """Lists of 1,000 messages, two in flight."""
    queue = make_topic(namesrv_addr, topic)
    result = Result(f"batch send, {BATCH:,} a batch, {BATCHES_IN_FLIGHT} in flight")
    with Producer(PRODUCER_GROUP, namesrv_addr=namesrv_addr) as producer:
        message_of = _messages(topic)
        waiting: deque = deque()
        sent, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            batch = [message_of() for _ in range(BATCH)]
            before = time.perf_counter_ns()
            waiting.append((before, producer.send_async(batch, queue=queue)))
            if len(waiting) >= BATCHES_IN_FLIGHT:
                _settle(waiting, result)
            sent += BATCH
        while waiting:
            _settle(waiting, result)
        result.rate = sent / (time.perf_counter() - started)
        result.bytes_s = result.rate * BODY_BYTES
    return result


def _settle(waiting: deque, result: Result) -> None:
    before, future = waiting.popleft()
    future.result()
    result.latency.record(time.perf_counter_ns() - before)


def _messages(topic: str) -> Callable[[], Message]:
    """A maker of fresh messages, as a program would make them."""
    return lambda: Message(topic, BODY)


def pull(namesrv_addr: str, topic: str, *, direct: bool) -> Result:
    """Read a whole queue, 1,000 messages a call, and take every body.

    The direct reader checks each body's CRC itself; a pull through the socket leaves that to the caller.
    """
    result = Result("direct pull, body CRC checked" if direct else "pull through the socket")
    with PullConsumer(CONSUMER_GROUP, namesrv_addr=namesrv_addr, direct_pull=direct) as consumer:
        queue = consumer.fetch_subscribe_message_queues(topic)[0]
        offset, end = consumer.min_offset(queue), consumer.max_offset(queue)
        consumer.pull(queue, "*", offset, 1)  # the grant, or the connection, is not part of the rate
        read, started = 0, time.perf_counter()
        while offset < end:
            found = consumer.pull(queue, "*", offset, PULL_COUNT)
            for message in found.messages:
                if len(message.body) != BODY_BYTES:
                    raise SystemExit(f"damaged message at queue offset {message.queue_offset}")
            read += len(found.messages)
            offset = found.next_begin_offset
        seconds = time.perf_counter() - started
    result.rate, result.bytes_s = read / seconds, read * BODY_BYTES / seconds
    return result


def end_to_end(namesrv_addr: str, count: int) -> Result:
    """From the call of send() to the listener of an idle consumer in another process, one at a time."""
    queue = make_topic(namesrv_addr, "BenchLatency")
    result = Result("end to end, idle consumer woken")
    command = [sys.executable, "-m", "bench.latency_consumer", namesrv_addr, queue.topic]
    consumer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert consumer.stdin and consumer.stdout
    try:
        if consumer.stdout.readline().strip() != "ready":
            raise SystemExit("the latency consumer did not start")
        with Producer(PRODUCER_GROUP, namesrv_addr=namesrv_addr) as producer:
            for place in range(count + WARM_UP // 10):
                producer.send(Message(queue.topic, str(time.monotonic_ns()).encode()), queue=queue)
                nanoseconds = int(consumer.stdout.readline())
                if place >= WARM_UP // 10:
                    result.latency.record(nanoseconds)
                time.sleep(0.002)  # so that the consumer is idle again; the pause is the workload
    finally:
        consumer.stdin.close()
        consumer.wait(20)
    return result


def start_up(workers: int, rounds: int = 3) -> Result:
    """From starting the broker's command on an empty store to the first acknowledged send."""
    result = Result("start to first acknowledged send, empty store")
    for _ in range(rounds):
        started = time.perf_counter_ns()
        with (
            Broker(brokerName="bench-start", brokerWorkers=workers) as broker,
            Producer(PRODUCER_GROUP, namesrv_addr=broker.namesrv_addr) as producer,
        ):
            producer.send(Message("BenchStart", BODY))
            result.latency.record(time.perf_counter_ns() - started)
    return result
