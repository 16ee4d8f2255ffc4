"""Members that come, go and are killed: who owns which queue afterwards, and how long that takes.

The times are printed (`-s`), in the way an operator would measure them; they decide nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from shmq import (
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    ConsumeOrderlyStatus,
    Message,
    MessageQueue,
    Producer,
    PushConsumer,
)
from shmq.embedded import Broker
from tests.helpers.waiting import wait_until

MEMBER = """
import sys, signal
from shmq import PushConsumer, ConsumeOrderlyStatus, ConsumeConcurrentlyStatus
namesrv, group, topic, orderly = sys.argv[1:]
consumer = PushConsumer(group, namesrv_addr=namesrv)
consumer.subscribe(topic)
if orderly == "True":
    consumer.register_message_listener_orderly(lambda messages, _: ConsumeOrderlyStatus.SUCCESS)
else:
    consumer.register_message_listener(lambda messages, _: ConsumeConcurrentlyStatus.CONSUME_SUCCESS)
with consumer:
    print("ready", flush=True)
    sys.stdin.read()
"""


class Group:
    """Members of one group: some in this process, some in their own."""

    def __init__(self, broker: Broker, topic: str, orderly: bool) -> None:
        self.broker = broker
        self.topic = topic
        self.orderly = orderly
        self.members: list[PushConsumer] = []

    def join(self) -> PushConsumer:
        member = PushConsumer(
            f"{self.topic}Group",
            namesrv_addr=self.broker.namesrv_addr,
            instance_name=f"{self.topic}{len(self.members)}",
            consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        )
        member.subscribe(self.topic)
        if self.orderly:
            member.register_message_listener_orderly(lambda messages, _: ConsumeOrderlyStatus.SUCCESS)
        else:
            member.register_message_listener(lambda messages, _: ConsumeConcurrentlyStatus.CONSUME_SUCCESS)
        member.start()
        self.members.append(member)
        return member

    def owned(self) -> list[MessageQueue]:
        """Queues that members of this process own, with repetitions."""
        queues = [queue for member in self.members for queue in member.assigned_queues]
        return sorted(queue for queue in queues if queue.topic == self.topic)

    @contextmanager
    def process(self) -> Iterator[subprocess.Popen[str]]:
        arguments = (self.broker.namesrv_addr, f"{self.topic}Group", self.topic, str(self.orderly))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.Popen(
            [sys.executable, "-c", MEMBER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            assert child.stdout and child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()
            child.communicate()

    def shutdown(self) -> None:
        for member in self.members:
            member.shutdown()


@pytest.fixture(
    params=[pytest.param(False, id="concurrent", marks=pytest.mark.long), pytest.param(True, id="orderly")]
)
def group(request: pytest.FixtureRequest, shared_broker: Broker) -> Iterator[Group]:
    topic = f"Rebalance{request.param}"
    with Producer("Rebalances", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.create_topic(topic, 8)
        for number in range(64):
            producer.send(Message(topic, b"%d" % number))
    made = Group(shared_broker, topic, request.param)
    yield made
    made.shutdown()


def settled(what: str, condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    wait_until(condition, 30, what)
    print(f"rebalance settled {time.monotonic() - began:.3f} s after {what}")


def test_queues_have_one_owner_each_whoever_comes_goes_or_is_killed(group: Group) -> None:
    """Checklist 118 to 121: nobody waits for a period, and a killed member's locks are free at once."""
    group.join()
    settled("the first joined", lambda: len(group.owned()) == 8)
    everything = group.owned()
    second = group.join()
    settled("a second joined", lambda: _shares(group) == [4, 4] and group.owned() == everything)
    with group.process() as killed:
        settled("a process joined", lambda: len(group.owned()) in (5, 6))
        killed.kill()
        settled("it was killed", lambda: group.owned() == everything)
    group.members.remove(second)
    second.shutdown()
    settled("the second left", lambda: group.owned() == everything)
    many = [group.join() for _ in range(9)]
    settled("ten are there", lambda: group.owned() == everything and _shares(group) == [0, 0, *[1] * 8])
    assert len(many) == 9


def _shares(group: Group) -> list[int]:
    return sorted(
        sum(queue.topic == group.topic for queue in member.assigned_queues) for member in group.members
    )
