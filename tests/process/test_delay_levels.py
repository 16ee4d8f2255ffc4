"""Delay levels on a real broker: when, where and how often a delayed message is delivered."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from shmq import (
    AdminClient,
    ClientFault,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    MessageExt,
    Producer,
    PushConsumer,
)
from shmq.embedded import Broker
from shmq.model.names import SCHEDULE_TOPIC
from shmq.store.check import check_store
from tests.helpers.waiting import wait_until
from tests.helpers.whole_broker import coordinator_of, read_all

LEVELS = "1s 2s 3s"


class Arrivals:
    """A listener that notes what came, and when."""

    def __init__(self) -> None:
        self.found: list[tuple[MessageExt, float]] = []

    def __call__(self, messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        self.found += [(message, time.time() * 1000) for message in messages]
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message, _ in self.found]


def consumer(broker: Broker, topic: str, arrivals: Arrivals, expression: str = "*") -> PushConsumer:
    made = PushConsumer(
        f"{topic}Group",
        namesrv_addr=broker.namesrv_addr,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    )
    made.subscribe(topic, expression)
    made.register_message_listener(arrivals)
    return made


def delayed(topic: str, body: bytes, level: int, tags: str | None = None) -> Message:
    message = Message(topic, body, tags=tags)
    message.delay_level = level
    return message


def test_each_level_waits_its_time_and_no_longer(tmp_path: Path) -> None:
    """Checklist 72 to 77: never early, in its own topic and queue, found by its tag, DELAY gone."""
    arrivals = Arrivals()
    with Broker(brokerWorkers="1", messageDelayLevel=LEVELS) as broker:
        with (
            Producer("Delays", namesrv_addr=broker.namesrv_addr) as producer,
            consumer(broker, "Delayed", arrivals, "TagA"),
        ):
            producer.create_topic("Delayed", 2)
            queue = producer.fetch_publish_message_queues("Delayed")[1]
            for level in (3, 1, 2, 99, 0):
                producer.send(delayed("Delayed", b"%d" % level, level, "TagA"), queue=queue)
            producer.send(delayed("Delayed", b"other", 1, "TagB"), queue=queue)
            wait_until(lambda: len(arrivals.found) == 5, 20, "all levels are delivered")
        assert arrivals.bodies == [b"0", b"1", b"2", b"3", b"99"]
        waits = {b"0": 0, b"1": 1000, b"2": 2000, b"3": 3000, b"99": 3000}
        for message, at_ms in arrivals.found:
            assert message.store_timestamp - message.born_timestamp >= waits[message.body]
            assert at_ms - message.born_timestamp >= waits[message.body]
            assert (message.topic, message.queue_id) == ("Delayed", queue.queue_id)
            assert "DELAY" not in message.properties
        assert b"other" in [message.body for message in read_all(broker, "Delayed")]
        assert list(check_store(Path(broker.store_root), levels=LEVELS)) == []


def test_a_waiting_message_stands_in_the_queue_of_its_level(shared_broker: Broker) -> None:
    """Checklist 76: in SCHEDULE_TOPIC_XXXX, with its own topic and queue as properties."""
    with (
        Producer("Delays", namesrv_addr=shared_broker.namesrv_addr) as producer,
        AdminClient(shared_broker.namesrv_addr) as admin,
    ):
        producer.create_topic("DelayStands", 2)
        queue = producer.fetch_publish_message_queues("DelayStands")[1]
        for level, taken in ((17, 17), (18, 18), (19, 18)):
            sent = producer.send(delayed("DelayStands", b"waits", level), queue=queue)
            stored = admin.view_message(sent.offset_msg_id)
            assert (stored.topic, stored.queue_id) == (SCHEDULE_TOPIC, taken - 1)
            assert stored.properties["REAL_TOPIC"] == queue.topic
            assert stored.properties["REAL_QID"] == str(queue.queue_id)
    assert not read_all(shared_broker, "DelayStands")


@pytest.mark.long
def test_a_clean_restart_delivers_the_rest_and_nothing_twice(tmp_path: Path) -> None:
    settings = {"brokerWorkers": "1", "messageDelayLevel": LEVELS}
    broker = Broker(tmp_path / "store", **settings)
    broker.start()
    with Producer("Delays", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic("Kept", 1)
        for number in range(20):
            producer.send(delayed("Kept", b"%d" % number, 1 if number < 10 else 3))
        wait_until(lambda: len(read_all(broker, "Kept")) == 10, 20, "the first level is delivered")
    broker.stop()
    saved = (tmp_path / "store/config/delayOffset.json").read_text()
    assert '"offsetTable":{1:10,2:0,3:0' in saved, saved
    broker.start()
    try:
        wait_until(lambda: len(read_all(broker, "Kept")) == 20, 20, "the rest is delivered")
        assert sorted(m.body for m in read_all(broker, "Kept")) == sorted(b"%d" % n for n in range(20))
    finally:
        broker.close()


@pytest.mark.long
@pytest.mark.parametrize("victim", ["coordinator", pytest.param("all", marks=pytest.mark.long)])
def test_kills_while_messages_become_due_deliver_each_once(tmp_path: Path, victim: str) -> None:
    """The cursor moves in the claim that delivers: it is in the log once, whoever dies."""
    count = 400
    broker = Broker(tmp_path / "store", brokerWorkers="1", messageDelayLevel=LEVELS)
    broker.start()
    try:
        with Producer("Delays", namesrv_addr=broker.namesrv_addr) as producer:
            producer.create_topic("Once", 4)
            sends = [producer.send_async(delayed("Once", b"%d" % n, 1 + n % 2)) for n in range(count)]
            for send in sends:
                send.result(20)

        def done() -> int:
            return len(read_all(broker, "Once"))

        for _ in range(5 if victim == "coordinator" else 2):
            before = done()
            if before < count:
                wait_until(lambda before=before: done() > before, 20, "some more are delivered")
            if victim == "coordinator":
                os.kill(coordinator_of(broker), signal.SIGKILL)
            else:
                for child in psutil.Process(broker.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):  # the supervisor clears away, too
                        child.kill()
                broker.kill()
                broker.start()
        wait_until(lambda: done() >= count, 30, "all are delivered")
        assert sorted(m.body for m in read_all(broker, "Once")) == sorted(b"%d" % n for n in range(count))
    finally:
        broker.close()


@pytest.mark.long
def test_a_death_between_reading_and_appending_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHMQ_FAULTS", "delay.due=kill")
    monkeypatch.setenv("SHMQ_FAULTS_DIR", str(tmp_path))
    with Broker(brokerWorkers="1", messageDelayLevel=LEVELS) as broker:
        with Producer("Delays", namesrv_addr=broker.namesrv_addr) as producer:
            producer.create_topic("Died", 1)
            producer.send(delayed("Died", b"1", 1))
        wait_until((tmp_path / "delay.due").exists, 20, "the coordinator dies")
        wait_until(lambda: [m.body for m in read_all(broker, "Died")] == [b"1"], 20, "the next one delivers")


def test_what_cannot_be_delayed_is_refused_and_what_has_no_topic_any_more_is_dropped(
    shared_broker: Broker,
) -> None:
    with Producer("Delays", namesrv_addr=shared_broker.namesrv_addr) as producer:
        with pytest.raises(ClientFault, match="delay"):
            producer.send([delayed("DelayRefused", b"1", 1), delayed("DelayRefused", b"2", 1)])
        with pytest.raises(ClientFault):
            producer.send(Message(SCHEDULE_TOPIC, b"direct"))
        address = f"127.0.0.1:{shared_broker.tcp_port}"
        producer.create_topic("DelayGone", 1)
        producer.send(delayed("DelayGone", b"lost", 1))
        with AdminClient(shared_broker.namesrv_addr) as admin:
            admin.delete_topic_in_broker(address, "DelayGone")
            admin.delete_topic_in_namesrv("DelayGone")
        producer.create_topic("DelayAfter", 1)
        producer.send(delayed("DelayAfter", b"kept", 1))
        wait_until(
            lambda: [m.body for m in read_all(shared_broker, "DelayAfter")] == [b"kept"],
            20,
            "what comes behind a dropped one is delivered",
        )
