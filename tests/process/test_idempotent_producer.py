"""Idempotent producers on a real broker: however often a send is tried, its message is stored once."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from shmq import (
    AdminClient,
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    Message,
    MessageExt,
    MessageQueue,
    Producer,
    PullConsumer,
    PushConsumer,
    ShmqError,
)
from shmq.embedded import Broker
from shmq.model.properties import SHMQ_SEQUENCE
from shmq.protocol.codes import ResponseCode
from tests.helpers.waiting import wait_until


def read_all(broker: Broker, topic: str) -> list[bytes]:
    """Every body of a topic."""
    found: list[bytes] = []
    with PullConsumer("ReadAll", namesrv_addr=broker.namesrv_addr) as consumer:
        for queue in consumer.fetch_subscribe_message_queues(topic):
            offset, end = consumer.min_offset(queue), consumer.max_offset(queue)
            while offset < end:
                result = consumer.pull(queue, "*", offset, 500)
                found += [message.body for message in result.messages]
                offset = result.next_begin_offset
    return found


@pytest.mark.parametrize(
    ("kind", "idempotent"),
    [
        ("sync", True),
        *(
            pytest.param(kind, idempotent, marks=pytest.mark.long)
            for kind in ("sync", "async", "batch", "delayed")
            for idempotent in (True, False)
            if (kind, idempotent) != ("sync", True)
        ),
    ],
)
def test_a_death_between_publish_and_reply(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, idempotent: bool
) -> None:
    """The retry goes through another worker: stored once, the first place answered. A plain one stores twice:
    so the window is really met."""
    monkeypatch.setenv("SHMQ_FAULTS", "worker.before_reply=kill")
    monkeypatch.setenv("SHMQ_FAULTS_DIR", str(tmp_path))
    count = 30 if kind == "batch" else 1
    with Broker(brokerWorkers="2", messageDelayLevel="1s 2s") as broker:
        with Producer(
            "Once",
            namesrv_addr=broker.namesrv_addr,
            enable_idempotence=idempotent,
            send_msg_timeout_ms=20_000,
        ) as producer:
            producer.create_topic("Once", 4)
            messages = [Message("Once", b"%d" % n) for n in range(count)]
            if kind == "delayed":
                messages[0].delay_level = 1
            sent = messages if kind == "batch" else messages[0]
            result = producer.send_async(sent).result(20) if kind == "async" else producer.send(sent)
            assert (tmp_path / "worker.before_reply").exists()
            last = producer.send(Message("Once", b"last"))
            assert last.send_status.name == "SEND_OK"
        expected = Counter([b"last", *(b"%d" % n for n in range(count))])
        if not idempotent:
            expected.update(b"%d" % n for n in range(count))
        wait_until(lambda: len(read_all(broker, "Once")) >= sum(expected.values()), 20, "all are stored")
        assert Counter(read_all(broker, "Once")) == expected
        if idempotent and kind != "delayed":
            with PullConsumer("Look", namesrv_addr=broker.namesrv_addr) as consumer:
                (message, *_) = consumer.pull(result.message_queue, "*", result.queue_offset, 1).messages
            assert message.body == b"0" and message.msg_id == result.msg_id.split(",")[0]


@pytest.mark.long
@pytest.mark.parametrize("idempotent", [True, False])
def test_a_timer_whose_send_was_tried_again_is_taken_back_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, idempotent: bool
) -> None:
    """The second try's moment is a later one: its handle must be the first's, or take both copies back."""
    monkeypatch.setenv("SHMQ_FAULTS", "worker.before_reply=kill")
    monkeypatch.setenv("SHMQ_FAULTS_DIR", str(tmp_path))
    with Broker(brokerWorkers="2") as broker:
        with Producer(
            "Back",
            namesrv_addr=broker.namesrv_addr,
            enable_idempotence=idempotent,
            send_msg_timeout_ms=20_000,
        ) as producer:
            producer.create_topic("Back", 1)
            sent = producer.send(Message("Back", b"back", delay=timedelta(seconds=6)))
            assert (tmp_path / "worker.before_reply").exists() and sent.recall_handle
            with AdminClient(broker.namesrv_addr) as admin:
                waiting = list(admin.waiting_messages(broker.tcp_addr, "Back"))
            assert len(waiting) == (1 if idempotent else 2)
            assert sent.recall_handle in [row.recall_handle for row in waiting]
            assert producer.recall_message("Back", sent.recall_handle) == sent.msg_id
            producer.send(Message("Back", b"stays", delay=timedelta(seconds=7)))
        wait_until(lambda: read_all(broker, "Back") == [b"stays"], 30, "only the other one is delivered")


def _children(broker: Broker) -> list[int]:
    """The workers and the coordinator that live now."""
    found = []
    for child in psutil.Process(broker.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(role in " ".join(child.cmdline()) for role in ("shmq: worker", "shmq: coordinator")):
                found.append(child.pid)
    return found


@pytest.mark.long
def test_kills_under_load_store_each_message_once(tmp_path: Path) -> None:
    """Workers and the coordinator die at random; every send that was acknowledged is there exactly once."""
    dice = random.Random(7)
    acknowledged: list[bytes] = []
    tried: set[bytes] = set()
    over = threading.Event()

    with Broker(brokerWorkers="2") as broker:

        def load(number: int) -> None:
            with Producer(
                f"Load{number}",
                namesrv_addr=broker.namesrv_addr,
                enable_idempotence=True,
                send_msg_timeout_ms=30_000,
                retry_times_when_send_failed=20,
                instance_name=str(number),
            ) as producer:
                n = 0
                while not over.is_set():
                    bodies = [b"%d %d %d" % (number, n, m) for m in range(1 + 19 * (n % 7 == 0))]
                    messages = [Message("Killed", body) for body in bodies]
                    tried.update(bodies)
                    producer.send(messages if len(messages) > 1 else messages[0])
                    acknowledged.extend(bodies)
                    n += 1

        with Producer("Setup", namesrv_addr=broker.namesrv_addr) as setup:
            setup.create_topic("Killed", 4)
        threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(12):
            goal = len(acknowledged) + 20
            wait_until(functools.partial(lambda goal: len(acknowledged) > goal, goal), 20, "sends go on")
            time.sleep(dice.random() * 0.05)  # a random moment, not a wait for something
            os.kill(dice.choice(_children(broker)), signal.SIGKILL)
        over.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        stored = Counter(read_all(broker, "Killed"))
        assert max(stored.values()) == 1
        assert set(acknowledged) <= stored.keys() <= tried


def test_a_message_that_is_passed_on_with_all_its_properties_is_a_new_one(shared_broker: Broker) -> None:
    address = shared_broker.namesrv_addr
    with Producer("PassOn", namesrv_addr=address, enable_idempotence=True) as producer:
        producer.create_topic("PassOn", 1)
        message = Message("PassOn", b"original")
        producer.send(message)
        assert SHMQ_SEQUENCE in message.properties
        producer.send(message)  # sent again by the program: a send of its own
        with Producer("PassOnPlain", namesrv_addr=address) as plain:
            plain.send(message)
            assert SHMQ_SEQUENCE not in message.properties
    assert len(read_all(shared_broker, "PassOn")) == 3


@pytest.mark.long
def test_a_message_that_failed_comes_again() -> None:
    """Its copy in the retry topic has the sequence, too, and is not taken for a second send."""
    seen: list[int] = []

    def consume(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> ConsumeConcurrentlyStatus:
        seen.append(messages[0].reconsume_times)
        done = messages[0].reconsume_times
        return (
            ConsumeConcurrentlyStatus.CONSUME_SUCCESS if done else ConsumeConcurrentlyStatus.RECONSUME_LATER
        )

    with Broker(brokerWorkers="1", messageDelayLevel="1s 1s 1s 1s") as broker:
        with Producer("Comes", namesrv_addr=broker.namesrv_addr, enable_idempotence=True) as producer:
            producer.create_topic("ComesAgain", 1)
            producer.send(Message("ComesAgain", b"x"))
        consumer = PushConsumer("ComesGroup", namesrv_addr=broker.namesrv_addr)
        consumer.subscribe("ComesAgain")
        consumer.register_message_listener(consume)
        with consumer:
            wait_until(lambda: seen == [0, 1], 30, "it is consumed twice")


def test_a_refused_sequence_is_told_and_the_next_send_begins_anew(shared_broker: Broker) -> None:
    with Producer("Refused", namesrv_addr=shared_broker.namesrv_addr, enable_idempotence=True) as producer:
        producer.create_topic("Refused", 1)
        queue: MessageQueue = producer.send(Message("Refused", b"0")).message_queue
        sequencer = producer._path._sequencer
        assert sequencer is not None
        for _ in range(1500):
            sequencer.next(queue.broker_name)
        with pytest.raises(ShmqError, match="ahead") as refusal:
            producer.send(Message("Refused", b"far ahead"), queue=queue)
        assert refusal.value.code == ResponseCode.SEQUENCE_REFUSED  # type: ignore[attr-defined]
        producer.send(Message("Refused", b"1"), queue=queue)
    assert read_all(shared_broker, "Refused") == [b"0", b"1"]


def test_nonsense_for_a_sequence_is_refused(shared_broker: Broker) -> None:
    with Producer("Nonsense", namesrv_addr=shared_broker.namesrv_addr, enable_idempotence=True) as producer:
        producer.create_topic("Nonsense", 1)
        sequencer = producer._path._sequencer
        assert sequencer is not None
        sequencer.next = lambda broker_name: "seven"  # type: ignore[method-assign]
        with pytest.raises(ShmqError, match="SHMQ_SEQUENCE"):
            producer.send(Message("Nonsense", b"x"))
