"""Flush modes on a real broker whose flusher stands still just before it syncs: who is told what then."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shmq import Durability, Message, MessageQueue, Producer, PullConsumer, SendResult, SendStatus
from shmq.embedded import Broker
from tests.helpers.waiting import wait_until

FLUSHER_STOPS = "flush.before_sync=stop"


@contextmanager
def stopping_broker(monkeypatch: pytest.MonkeyPatch, **settings: object) -> Iterator[Broker]:
    """A broker whose supervisor stops itself when the first message is about to be synced."""
    with monkeypatch.context() as patched:
        patched.setenv("SHMQ_FAULTS", FLUSHER_STOPS)
        broker = Broker(**settings).start()
    try:
        yield broker
    finally:
        os.kill(broker.pid, signal.SIGCONT)
        broker.close()


def stands_still(broker: Broker) -> bool:
    return (Path("/proc") / str(broker.pid) / "stat").read_text().rpartition(")")[2].split()[0] == "T"


def queue_of(producer: Producer, topic: str) -> MessageQueue:
    """The one queue of a new topic; routes are known before the name server stands still with its process."""
    producer.create_topic(topic, 1)
    (queue,) = producer.fetch_publish_message_queues(topic)
    return queue


@pytest.mark.parametrize(
    "uncommitted",
    [
        pytest.param(False, id="committed"),
        pytest.param(True, id="readUnCommitted", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize(
    "direct", [pytest.param(False, marks=pytest.mark.long), True], ids=["socket", "direct"]
)
def test_nothing_is_acknowledged_before_the_sync_nor_seen_without_read_uncommitted(
    monkeypatch: pytest.MonkeyPatch, uncommitted: bool, direct: bool
) -> None:
    settings = {"flushDiskType": "SYNC_FLUSH", "readUnCommitted": uncommitted, "syncFlushTimeout": 60_000}
    with (
        stopping_broker(monkeypatch, **settings) as broker,
        Producer("waiting", namesrv_addr=broker.namesrv_addr) as producer,
        PullConsumer("looking", namesrv_addr=broker.namesrv_addr, direct_pull=direct) as consumer,
    ):
        queue = queue_of(producer, "Waiting")
        assert not consumer.pull(queue, "*", 0, 10).messages
        sent = producer.send_async(Message("Waiting", b"not yet"), timeout_ms=60_000)
        wait_until(lambda: stands_still(broker), what="the flusher stands before its sync")
        assert len(consumer.pull(queue, "*", 0, 10).messages) == uncommitted
        assert not sent.done()
        os.kill(broker.pid, signal.SIGCONT)
        result = sent.result(10)
        assert (result.send_status, result.durability) == (SendStatus.SEND_OK, Durability.FLUSHED)
        assert len(consumer.pull(queue, "*", 0, 10).messages) == 1


def test_who_does_not_wait_for_the_disk_is_not_told_that_it_has_the_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        stopping_broker(monkeypatch, flushDiskType="SYNC_FLUSH") as broker,
        Producer("hurried", namesrv_addr=broker.namesrv_addr) as producer,
    ):
        queue = queue_of(producer, "Hurried")
        result = producer.send(Message("Hurried", b"in a hurry", wait_store_msg_ok=False), queue=queue)
    assert (result.send_status, result.durability) == (SendStatus.SEND_OK, Durability.PAGE_CACHE)


WAYS: dict[str, Callable[[Producer, MessageQueue, Durability | None], SendResult]] = {
    "sync": lambda p, q, wanted: p.send(Message(q.topic, b"1"), queue=q, wait_for=wanted),
    "async": lambda p, q, wanted: p.send_async(Message(q.topic, b"1"), queue=q, wait_for=wanted).result(10),
    "few": lambda p, q, wanted: p.send([Message(q.topic, b"1")] * 3, queue=q, wait_for=wanted),
    "many": lambda p, q, wanted: p.send(
        [Message(q.topic, b"1") for _ in range(50)], queue=q, wait_for=wanted
    ),
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        pytest.param("SYNC_FLUSH", None, id="mode"),
        pytest.param("ASYNC_FLUSH", Durability.FLUSHED, id="asked", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("tcp", [False, pytest.param(True, marks=pytest.mark.long)], ids=["unix", "tcp"])
def test_a_disk_that_is_too_slow_is_named_and_nothing_pretended(
    monkeypatch: pytest.MonkeyPatch, mode: str, wanted: Durability | None, tcp: bool
) -> None:
    """Checklist 38: told after one attempt; 14: who does not wait is answered although nothing is synced."""
    with (
        stopping_broker(monkeypatch, flushDiskType=mode, syncFlushTimeout=200) as broker,
        Producer("slow", namesrv_addr=broker.namesrv_addr, use_unix_socket=not tcp) as producer,
    ):
        queue = queue_of(producer, "Slow")
        found = {way: send(producer, queue, wanted) for way, send in WAYS.items()}
        assert stands_still(broker)
        told = {way: (result.send_status, result.durability) for way, result in found.items()}
        assert told == dict.fromkeys(WAYS, (SendStatus.FLUSH_DISK_TIMEOUT, Durability.PAGE_CACHE))
        careless = producer.send(Message("Slow", b"1", wait_store_msg_ok=False), queue=queue)
        assert (careless.send_status, careless.durability) == (SendStatus.SEND_OK, Durability.PAGE_CACHE)
        os.kill(broker.pid, signal.SIGCONT)
        wait_until(lambda: producer.max_offset(queue) == 1 + 1 + 3 + 50 + 1, 20, "each was stored once")
        again = producer.send(Message("Slow", b"1"), queue=queue, wait_for=Durability.FLUSHED)
        assert (again.send_status, again.queue_offset) == (SendStatus.SEND_OK, 56)
