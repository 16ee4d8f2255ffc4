"""What a program may bring along: its own executor, offset store and strategy; and how it ends gracefully."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shmq import (
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    ConsumeOrderlyStatus,
    Message,
    MessageExt,
    MessageQueue,
    Producer,
    PushConsumer,
)
from shmq.client.offset_store import NO_OFFSET, ReadMode
from shmq.embedded import Broker
from tests.helpers.waiting import wait_until

FIRST = ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET


def filled(broker: Broker, topic: str, count: int, queues: int = 1) -> list[MessageQueue]:
    with Producer("OwnParts", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, queues)
        found = sorted(producer.fetch_publish_message_queues(topic))
        for number in range(count):
            producer.send(Message(topic, b"%d" % number), queue=found[number % queues])
    return found


@pytest.mark.parametrize("orderly", [False, True], ids=["concurrent", "orderly"])
def test_a_listener_runs_on_the_programs_own_executor(shared_broker: Broker, orderly: bool) -> None:
    topic = f"OwnThreads{orderly}"
    filled(shared_broker, topic, 40, 4)
    names: list[str] = []

    def consume(messages: list[MessageExt], _: object) -> object:
        names.append(threading.current_thread().name)
        success = ConsumeOrderlyStatus.SUCCESS if orderly else ConsumeConcurrentlyStatus.CONSUME_SUCCESS
        return success

    with ThreadPoolExecutor(3, thread_name_prefix="mine") as executor:
        consumer = PushConsumer(
            f"{topic}Group",
            namesrv_addr=shared_broker.namesrv_addr,
            consume_from_where=FIRST,
            consume_executor=executor,
            await_termination_millis_when_shutdown=2000,
        )
        consumer.subscribe(topic)
        register = (
            consumer.register_message_listener_orderly if orderly else consumer.register_message_listener
        )
        register(consume)  # type: ignore[arg-type]
        with consumer:
            wait_until(lambda: len(names) == 40, 20, "all are consumed")
        assert executor.submit(lambda: 7).result(5) == 7, "it stays the program's"
    assert {name.rpartition("_")[0] for name in names} == {"mine"} and len(set(names)) <= 3


class Notebook:
    """Offsets in memory: the smallest thing that is an OffsetStore."""

    def __init__(self) -> None:
        self.offsets: dict[MessageQueue, int] = {}
        self.persisted: set[MessageQueue] = set()

    def load(self) -> None: ...

    def update(self, queue: MessageQueue, offset: int, *, increase_only: bool = True) -> None:
        if not increase_only or offset > self.offsets.get(queue, NO_OFFSET):
            self.offsets[queue] = offset

    def read(self, queue: MessageQueue, mode: ReadMode) -> int:
        return self.offsets.get(queue, NO_OFFSET)

    def persist(self, queues: Collection[MessageQueue], *, wait: bool = False) -> None:
        self.persisted |= set(queues)

    def remove(self, queue: MessageQueue) -> None: ...

    def count_read(self, queue: MessageQueue, messages: int, size: int) -> None: ...


def test_offsets_may_be_kept_anywhere_and_strategies_be_own_ones(shared_broker: Broker) -> None:
    queues = filled(shared_broker, "OwnOffsets", 20, 4)
    notebook, seen = Notebook(), set[bytes]()
    notebook.offsets = {queues[3]: 4}

    def consume(messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        seen.update(message.body for message in messages)
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    class OddOnes:
        """A strategy that gives everybody the queues with odd numbers."""

        def __call__(
            self, client_id: str, queues: Sequence[MessageQueue], client_ids: Sequence[str]
        ) -> list[MessageQueue]:
            return [queue for queue in queues if queue.queue_id % 2]

    consumer = PushConsumer(
        "OwnOffsetsGroup",
        namesrv_addr=shared_broker.namesrv_addr,
        consume_from_where=FIRST,
        offset_store=notebook,
        allocate_message_queue_strategy=OddOnes(),
    )
    consumer.subscribe("OwnOffsets")
    consumer.register_message_listener(consume)
    with consumer:
        wait_until(lambda: len(seen) == 6, 20, "five of queue 1, the last one of queue 3")
        wait_until(lambda: notebook.offsets == {queues[1]: 5, queues[3]: 5}, 20, "both are at their end")
    assert seen == {b"1", b"5", b"9", b"13", b"17", b"19"}
    assert {queues[1], queues[3]} <= notebook.persisted


PROGRAM = """
import sys, time
from shmq import ConsumeConcurrentlyStatus, ConsumeFromWhere, PushConsumer, stop_on_signals
namesrv, topic, path = sys.argv[1:]
def consume(messages, context):
    with open(path, "a") as log:
        log.write(f"{messages[0].body.decode()}\\n")
    print("busy", flush=True)
    time.sleep(0.5)
    with open(path, "a") as log:
        log.write(f"{messages[0].body.decode()} done\\n")
    return ConsumeConcurrentlyStatus.CONSUME_SUCCESS
consumer = PushConsumer(topic + "Group", namesrv_addr=namesrv, consume_thread_min=1, consume_thread_max=1,
    consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    await_termination_millis_when_shutdown=5000)
consumer.subscribe(topic)
consumer.register_message_listener(consume)
with consumer, stop_on_signals() as stopping:
    stopping.wait()
print("ended", flush=True)
"""


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGTERM, id="term"), pytest.param(signal.SIGINT, id="int", marks=pytest.mark.long)],
)
def test_a_signal_lets_the_running_call_end_and_commits(
    shared_broker: Broker, tmp_path: Path, number: signal.Signals
) -> None:
    topic = f"Graceful{number.name}"
    filled(shared_broker, topic, 5)
    log = tmp_path / "log"
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, shared_broker.namesrv_addr, topic, str(log)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert program.stdout and program.stdout.readline() == "busy\n"
        program.send_signal(number)
        said, _ = program.communicate(timeout=20)
    finally:
        program.kill()
    assert program.returncode == 0 and said.endswith("ended\n")
    lines = log.read_text().splitlines()
    begun = [line for line in lines if not line.endswith("done")]
    assert lines[-1] == f"{begun[-1]} done" and len(lines) == 2 * len(begun)
    seen: list[bytes] = []

    def consume(messages: list[MessageExt], _: object) -> ConsumeConcurrentlyStatus:
        seen.extend(message.body for message in messages)
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    consumer = PushConsumer(
        f"{topic}Group", namesrv_addr=shared_broker.namesrv_addr, consume_from_where=FIRST
    )
    consumer.subscribe(topic)
    consumer.register_message_listener(consume)
    with consumer:
        wait_until(lambda: len(seen) == 5 - len(begun), 20, "the next member goes on behind them")
    assert seen == [b"%d" % number for number in range(len(begun), 5)]
