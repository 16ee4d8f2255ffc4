"""Clients as processes of their own: members of a group, and producers that number what they send."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from shmq import AdminClient
from shmq.embedded import Broker
from shmq.model.topic_config import TopicConfig

_MEMBER = """
import sys, threading
from shmq import ConsumeConcurrentlyStatus, ConsumeFromWhere, PushConsumer
namesrv, group, topic, path, direct, threads = sys.argv[1:]
lock = threading.Lock()
with open(path, "a", buffering=1) as log:
    def consume(messages, context):
        with lock:
            log.write("".join(f"{m.queue_id} {m.queue_offset} {bytes(m.body).decode()}\\n" for m in messages))
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS
    consumer = PushConsumer(group, namesrv_addr=namesrv, direct_pull=direct == "True",
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        consume_thread_min=int(threads), consume_thread_max=int(threads),
        persist_consumer_offset_interval_ms=500, await_termination_millis_when_shutdown=1000)
    consumer.subscribe(topic)
    consumer.register_message_listener(consume)
    with consumer:
        print("ready", flush=True)
        sys.stdin.read()
"""

_PRODUCER = """
import sys
from shmq import Message, Producer
namesrv, topic, name, count, way = sys.argv[1:]
with Producer("Numbered", namesrv_addr=namesrv, send_msg_timeout_ms=30_000) as producer:
    queues = producer.fetch_publish_message_queues(topic)
    def part(first, last):
        return [(queues[n % len(queues)], Message(topic, f"{name} {n}".encode())) for n in range(first, last)]
    for first in range(0, int(count), 500):
        messages = part(first, min(first + 500, int(count)))
        if way == "sync":
            for queue, message in messages:
                producer.send(message, queue=queue)
        elif way == "async":
            for future in [producer.send_async(message, queue=queue) for queue, message in messages]:
                future.result(60)
        else:
            for queue in queues:
                producer.send([message for its, message in messages if its == queue], queue=queue)
"""


class Got(NamedTuple):
    """One delivery, as a member wrote it down."""

    queue_id: int
    queue_offset: int
    body: str


class Member:
    """A push consumer process that writes down what it gets, in the order in which it gets it.

    With one thread that is the order of consumption too.
    """

    def __init__(
        self, broker: Broker, group: str, topic: str, path: Path, *, direct: bool = True, threads: int = 20
    ) -> None:
        self.path = path
        path.touch()
        arguments = (broker.namesrv_addr, group, topic, str(path), str(direct), str(threads))
        self.process = _python(_MEMBER, *arguments)

    def wait_ready(self) -> None:
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    @property
    def deliveries(self) -> list[Got]:
        """Whole lines only: the last one may be under way."""
        lines = self.path.read_text().rpartition("\n")[0].splitlines()
        rows = [line.split(" ", 2) for line in lines]
        return [Got(int(queue), int(offset), body) for queue, offset, body in rows]

    @property
    def got(self) -> list[tuple[int, int]]:
        """Queue and offset of each delivery."""
        return [(one.queue_id, one.queue_offset) for one in self.deliveries]

    def stop(self) -> None:
        self.process.communicate(timeout=20)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)


@contextmanager
def ended_members() -> Iterator[list[Member]]:
    """A list for members; those that the test did not stop are killed."""
    started: list[Member] = []
    try:
        yield started
    finally:
        for member in started:
            if member.process.poll() is None:
                member.kill()


def numbered_producer(broker: Broker, topic: str, name: str, count: int, way: str) -> subprocess.Popen[str]:
    """A process that sends bodies "name 0", "name 1" ... to the topic's queues in turn.

    `way` is sync, async or batch; whichever it is, the numbers rise in every queue.
    """
    return _python(_PRODUCER, broker.namesrv_addr, topic, name, str(count), way)


def make_topic(broker: Broker, topic: str, queues: int) -> None:
    """Create a topic that can be read and written."""
    with AdminClient(broker.namesrv_addr) as admin:
        admin.create_topic(broker.tcp_addr, TopicConfig(topic, queues, queues))


def owners(broker: Broker, group: str, topic: str) -> Counter[str]:
    """How many queues of the topic each member says it owns."""
    found: Counter[str] = Counter()
    with AdminClient(broker.namesrv_addr) as admin:
        for connection in admin.consumer_connections(group).connections:
            queues = admin.client_queues(group, connection.client_id)
            found[connection.client_id] = sum(queue.topic == topic for queue in queues)
    return found


def _python(program: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
