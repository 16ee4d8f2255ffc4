"""Resting consumers: what they leave out, and that they hear of every change all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shmq import AdminClient, ConsumeFromWhere, Message, Producer, PushConsumer
from shmq.client.broker_calls import BrokerCalls
from shmq.client.instance import ClientInstance
from shmq.client.name_servers import NameServers
from shmq.embedded import Broker
from shmq.model.topic_config import TopicConfig
from shmq.testing import BrokerMaker
from tests.helpers.waiting import wait_until

SOON_MS = 300
"""Hold of the pulls in these tests: a queue is idle after it."""

MEMBER = """
import sys, time
from shmq import ConsumeConcurrentlyStatus, PushConsumer
consumer = PushConsumer(sys.argv[1], namesrv_addr=sys.argv[2], broker_suspend_max_time_ms=300)
consumer.subscribe(sys.argv[3])
consumer.register_message_listener(lambda messages, context: ConsumeConcurrentlyStatus.CONSUME_SUCCESS)
consumer.start()
while not consumer._pulling.is_resting:
    time.sleep(0.01)
print("rests", flush=True)
time.sleep(600)
"""


def consumer_of(broker: Broker, topic: str, seen: list[bytes], **settings: Any) -> PushConsumer:
    consumer = PushConsumer(
        f"{topic}Group",
        namesrv_addr=broker.namesrv_addr,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        broker_suspend_max_time_ms=SOON_MS,
        **settings,
    )
    consumer.subscribe(topic)
    consumer.register_message_listener(lambda messages, _: seen.extend(bytes(m.body) for m in messages))
    return consumer


def made(broker: Broker, topic: str, queues: int) -> None:
    with Producer("Rest", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, queues)


def rests(consumer: PushConsumer) -> bool:
    return consumer.resting_topics() == consumer.subscribed_topics() != set()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often clients of this process asked for what they leave out while they rest."""
    counts: Counter[str] = Counter()

    def counted(owner: type, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any, **settings: Any) -> Any:
            counts[name] += 1
            return real(*args, **settings)

        monkeypatch.setattr(owner, name, call)

    counted(NameServers, "topic_route")
    counted(ClientInstance, "_heartbeat")
    counted(BrokerCalls, "consumer_ids")
    yield counts


@pytest.mark.long
def test_who_rests_asks_for_nothing_and_who_is_awake_asks(shared_broker: Broker, asked: Counter[str]) -> None:
    made(shared_broker, "RestQuiet", 4)
    often = {"poll_name_server_interval_ms": 100, "heartbeat_broker_interval_ms": 100}
    with consumer_of(shared_broker, "RestQuiet", [], **often) as consumer:
        wait_until(lambda: rests(consumer), 20, "it rests")

        def has_been_quiet() -> bool:
            before = asked.copy()
            time.sleep(2.0)  # twenty periods of each
            return asked == before

        wait_until(has_been_quiet, 30, "what had begun before has ended, and nothing is asked any more")
        consumer.suspend()
        with Producer("Rest", namesrv_addr=shared_broker.namesrv_addr) as producer:
            for queue in producer.fetch_publish_message_queues("RestQuiet"):
                producer.send(Message("RestQuiet", b"x"), queue=queue)
        wait_until(lambda: not rests(consumer), 20, "there is something to pull")
        asked.clear()
        wait_until(lambda: asked["topic_route"] > 4, 20, "it asks as ever")


def test_a_resting_consumer_takes_a_new_queue_at_once(shared_broker: Broker) -> None:
    made(shared_broker, "RestGrows", 1)
    seen: list[bytes] = []
    with (
        consumer_of(shared_broker, "RestGrows", seen) as consumer,
        AdminClient(shared_broker.namesrv_addr) as admin,
        Producer("Rest", namesrv_addr=shared_broker.namesrv_addr) as producer,
    ):
        wait_until(lambda: rests(consumer), 20, "it rests")
        began = time.monotonic()
        admin.create_topic(shared_broker.tcp_addr, TopicConfig("RestGrows", 2, 2))
        wait_until(lambda: len(consumer.assigned_queues) == 3, 20, "two queues and the retry topic's")
        print(
            f"taken after {time.monotonic() - began:.2f} s; routes are polled every 30 s, members every 20 s"
        )
        wait_until(lambda: rests(consumer), 20, "it rests again")
        queue = max(queue for queue in consumer.assigned_queues if queue.topic == "RestGrows")
        producer.send(Message("RestGrows", b"in the new one"), queue=queue)
        wait_until(lambda: seen == [b"in the new one"], 20, "it is there")


@pytest.mark.long
def test_a_resting_consumer_takes_the_queues_of_a_killed_one(shared_broker: Broker) -> None:
    made(shared_broker, "RestDeath", 4)
    with consumer_of(shared_broker, "RestDeath", []) as consumer:
        wait_until(lambda: rests(consumer), 20, "it rests")
        command = [sys.executable, "-c", MEMBER, "RestDeathGroup", shared_broker.namesrv_addr, "RestDeath"]
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert other.stdout is not None and other.stdout.readline() == "rests\n"
            shared = lambda: sum(q.topic == "RestDeath" for q in consumer.assigned_queues)  # noqa: E731
            wait_until(lambda: shared() == 2, 20, "half of them were given away")
            wait_until(lambda: consumer._pulling.is_resting, 20, "it rests again")
            os.kill(other.pid, signal.SIGKILL)
            began = time.monotonic()
            wait_until(lambda: shared() == 4, 15, "all of them again, before the next 20 s are over")
            print(f"taken after {time.monotonic() - began:.2f} s")
        finally:
            other.kill()
            other.wait()


@pytest.mark.long
def test_waits_alone_keep_a_client_known(make_broker: BrokerMaker) -> None:
    """Who waits lives, however short the time is for which a client may be silent."""
    broker = make_broker()
    made(broker, "RestAlive", 2)
    with (
        consumer_of(broker, "RestAlive", [], heartbeat_broker_interval_ms=600_000) as consumer,
        AdminClient(broker.namesrv_addr) as admin,
    ):
        wait_until(lambda: rests(consumer), 20, "it rests")
        waits = consumer._pulling._waits
        ((link, wait),) = waits._waits.items()
        wait_until(lambda: wait.number > 0, 20, "its wait is under way")
        before = wait.number
        with waits._lock:  # as when one more queue becomes idle: another wait takes its place
            waits._soon(link, wait)
        wait_until(lambda: wait.number > before, 20, "another wait is under way")
        admin.update_broker_config(broker.tcp_addr, {"channelExpiredTimeout": "2000"})
        end = time.monotonic() + 25  # looked for every 10 s
        while time.monotonic() < end:
            members = admin.consumer_connections("RestAliveGroup")
            assert [one.client_id for one in members.connections] == [consumer.client_id]
            time.sleep(0.5)
            assert rests(consumer), "and its wait went on"
