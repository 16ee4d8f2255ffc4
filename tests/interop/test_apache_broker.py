"""shmq's Python client against an Apache broker and name server: the way out when a host is outgrown."""

from __future__ import annotations

import threading

import pytest

from shmq import (
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    Producer,
    PullConsumer,
    PullStatus,
    PushConsumer,
    SendStatus,
)
from tests.helpers import java

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

TOPIC = "FromPython"
COUNT = 6


@pytest.mark.long
def test_python_client_sends_to_and_consumes_from_an_apache_broker(apache: java.ApacheBroker) -> None:
    with Producer("PythonProducer", namesrv_addr=apache.namesrv_addr) as producer:
        sent = [
            producer.send(Message(TOPIC, f"sync {n}".encode(), tags="TagA", keys=f"k{n}"))
            for n in range(COUNT)
        ]
        futures = [producer.send_async(Message(TOPIC, f"async {n}".encode())) for n in range(COUNT)]
        sent += [future.result(10) for future in futures]
        producer.send_oneway(Message(TOPIC, b"oneway"))
        batch = producer.send([Message(TOPIC, f"batch {n}".encode()) for n in range(COUNT)])
    assert all(result.send_status is SendStatus.SEND_OK for result in [*sent, batch])
    assert all(result.message_queue.broker_name == apache.broker_name for result in sent)

    wanted = {f"{mode} {n}" for mode in ("sync", "async", "batch") for n in range(COUNT)} | {"oneway"}
    bodies: list[str] = []
    complete = threading.Event()

    def listen(messages: list, context: object) -> ConsumeConcurrentlyStatus:
        bodies.extend(bytes(message.body).decode() for message in messages)
        if wanted <= set(bodies):
            complete.set()
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    consumer = PushConsumer(
        "PythonConsumer",
        namesrv_addr=apache.namesrv_addr,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    )
    consumer.subscribe(TOPIC, "*")
    consumer.register_message_listener(listen)
    with consumer:
        assert complete.wait(60), sorted(wanted - set(bodies))
    assert sorted(bodies) == sorted(wanted)


@pytest.mark.long
def test_python_pull_consumer_reads_an_apache_broker(apache: java.ApacheBroker) -> None:
    with Producer("PythonProducer", namesrv_addr=apache.namesrv_addr) as producer:
        result = producer.send(Message("PulledFromPython", b"x" * 5000, tags="TagB"))
    with PullConsumer("PythonPuller", namesrv_addr=apache.namesrv_addr) as consumer:
        found = consumer.pull(result.message_queue, "TagB", result.queue_offset, 8)
        beyond = consumer.pull(result.message_queue, "TagB", result.queue_offset + 1, 8)
    assert found.status is PullStatus.FOUND
    assert [bytes(message.body) for message in found.messages] == [b"x" * 5000]
    assert beyond.status is PullStatus.NO_NEW_MSG
