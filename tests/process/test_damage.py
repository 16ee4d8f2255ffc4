"""A running broker finds damage in its own log, tells, and goes on delivering everything else.

Also where nobody had found it before somebody asked for the message.
"""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shmq import AdminClient, Message, MessageQueue, Producer, PullConsumer
from shmq.embedded import Broker
from shmq.store.check import check_store
from shmq.store.checksums import summed_end
from shmq.store.damage_table import MARKED, MENDED, REPLACED, DamageTable
from shmq.store.names import file_name
from shmq.store.scrub_progress import damage_facts
from shmq.store.store_view import StoreView, layout_of
from tests.helpers.supervised_broker import BrokerMaker
from tests.helpers.waiting import wait_until

COUNT = 300


def bodies(consumer: PullConsumer, queue: MessageQueue) -> list[bytes]:
    """Everything the queue gives out."""
    found: list[bytes] = []
    offset, deadline = 0, time.monotonic() + 30
    while True:
        result = consumer.pull(queue, "*", offset, 32)
        found += [bytes(message.body) for message in result.messages]
        if result.next_begin_offset >= COUNT:
            return found
        assert result.next_begin_offset > offset or time.monotonic() < deadline, "it goes on"
        offset = result.next_begin_offset


def send_all(namesrv_addr: str) -> tuple[MessageQueue, list[bytes]]:
    """`COUNT` messages in one batch, and the queue they went to."""
    sent = [b"%04d " % n * 40 for n in range(COUNT)]
    with Producer("damage", namesrv_addr=namesrv_addr) as producer:
        producer.create_topic("Damaged", 1)
        (queue,) = producer.fetch_publish_message_queues("Damaged")
        producer.send([Message("Damaged", body) for body in sent], queue=queue)
    return queue, sent


def overwrite(root: Path, position: int, data: bytes) -> None:
    layout = layout_of(root)
    start = layout.segment_start(position)
    fd = os.open(layout.commit_log / file_name(start), os.O_RDWR)
    os.pwrite(fd, data, position - start)
    os.close(fd)


def read(root: Path, position: int, count: int) -> bytes:
    layout = layout_of(root)
    start = layout.segment_start(position)
    with open(layout.segment_path(start), "rb") as segment:
        segment.seek(position - start)
        return segment.read(count)


@pytest.mark.long
@pytest.mark.parametrize(
    "direct", [pytest.param(False, id="socket", marks=pytest.mark.long), pytest.param(True, id="direct")]
)
def test_the_scrub_of_a_running_broker_finds_and_tells_and_consumers_go_on(
    tmp_path: Path, direct: bool
) -> None:
    root = tmp_path / "store"
    settings = {"scrubPassInterval": 1, "flushDiskType": "SYNC_FLUSH"}
    with Broker(store_root=root, **settings) as broker:
        with (
            Producer("damage", namesrv_addr=broker.namesrv_addr) as producer,
            PullConsumer("readers", namesrv_addr=broker.namesrv_addr, direct_pull=direct) as consumer,
            AdminClient(namesrv_addr=broker.namesrv_addr) as admin,
        ):
            producer.create_topic("Damaged", 1)
            (queue,) = producer.fetch_publish_message_queues("Damaged")
            sent = [b"%04d " % n * 40 for n in range(COUNT)]
            for body in sent:
                producer.send(Message("Damaged", body), queue=queue)
            assert bodies(consumer, queue) == sent
            units = list(StoreView(root).units("Damaged", 0, 0, COUNT))
            flipped, spoiled = units[50].physical_offset, units[200].physical_offset
            overwrite(root, flipped + 120, b"#")
            overwrite(root, spoiled + 100, b"not what was sent")

            def told() -> dict[str, int]:
                return damage_facts(layout_of(root))

            wait_until(lambda: told()["damageMarked"] and told()["damageMended"], 30, "both are found")
            assert bodies(consumer, queue) == sent[:200] + sent[201:]
            shown = admin.broker_runtime_info(broker.tcp_addr)
            assert shown["damageMarked"] == "1" and int(shown["scrubPassBegan"]) > 0
        broker.stop()
        assert len(list((root / "quarantine").glob(file_name(flipped) + "-*"))) == 1
        broker.start()
        assert (
            damage_facts(layout_of(root))["damageMarked"],
            damage_facts(layout_of(root))["damageReplaced"],
        ) == (0, 1)
        with PullConsumer("again", namesrv_addr=broker.namesrv_addr, direct_pull=direct) as consumer:
            queue = next(iter(consumer.fetch_subscribe_message_queues("Damaged")))
            assert bodies(consumer, queue) == sent[:200] + sent[201:]
        broker.stop()
        assert list(check_store(root)) == []


@pytest.mark.long
@pytest.mark.parametrize("direct", [False, True])
def test_damage_that_a_consumer_meets_first_costs_nothing(tmp_path: Path, direct: bool) -> None:
    root, chance = tmp_path / "store", random.Random(direct)
    with Broker(store_root=root, flushDiskType="SYNC_FLUSH", scrubBytesPerSecond=0) as broker:
        queue, sent = send_all(broker.namesrv_addr)
        layout = layout_of(root)
        units = list(StoreView(root).units("Damaged", 0, 0, COUNT))
        with PullConsumer("readers", namesrv_addr=broker.namesrv_addr, direct_pull=direct) as consumer:
            assert bodies(consumer, queue) == sent
            wait_until(lambda: (summed_end(layout) or 0) > units[-1].physical_offset, 30, "all is summed")
            for _ in range(60):
                number = chance.randrange(COUNT)
                position = units[number].physical_offset + chance.choice([2, 5, 9, 14, 26, 34, 86, 150, 280])
                path, at = layout.segment_path(0), position
                if chance.random() < 0.4:
                    path, at = layout.queue_file_path("Damaged", 0, 0), 20 * number + chance.randrange(12)
                with path.open("r+b") as file:
                    file.seek(at)
                    (byte,) = file.read(1)
                    file.seek(at)
                    file.write(bytes([byte ^ chance.randrange(1, 256)]))
                assert bodies(consumer, queue) == sent
        broker.stop()
        assert list(check_store(root)) == []


@pytest.mark.long
def test_damaged_messages_that_wait_are_mended_and_delivered(tmp_path: Path) -> None:
    root, chance = tmp_path / "store", random.Random(3)
    settings = {"flushDiskType": "SYNC_FLUSH", "scrubBytesPerSecond": 0, "messageDelayLevel": "5s 10s"}
    with Broker(store_root=root, **settings) as broker:
        with Producer("damage", namesrv_addr=broker.namesrv_addr) as producer:
            producer.create_topic("Later", 1)
            sent = [b"%02d " % n * 60 for n in range(60)]
            moment = datetime.now(UTC) + timedelta(seconds=6)
            for n, body in enumerate(sent):
                later = {"delay_level": 1} if n % 2 else {"deliver_at": moment}
                producer.send(Message("Later", body, **later))
            layout = layout_of(root)
            waiting = [
                unit
                for topic in ("SCHEDULE_TOPIC_XXXX", "rmq_sys_wheel_timer")
                for unit in StoreView(root).units(topic, 0, 0, 30)
            ]
            assert len(waiting) == 60
            end = max(unit.physical_offset for unit in waiting)
            wait_until(lambda: (summed_end(layout) or 0) > end, 30, "all is summed")
            by_place = sorted(waiting, key=lambda unit: unit.physical_offset)
            for unit in by_place[3::19]:  # far enough apart: each in a piece of its own
                overwrite(root, unit.physical_offset + chance.choice([5, 26, 34, 86, 150]), b"\x7f")
        with PullConsumer("readers", namesrv_addr=broker.namesrv_addr) as consumer:
            queue = next(iter(consumer.fetch_subscribe_message_queues("Later")))
            wait_until(lambda: consumer.max_offset(queue) >= 60, 40, "all are delivered")
            result = consumer.pull(queue, "*", 0, 64)
            assert sorted(bytes(message.body) for message in result.messages) == sorted(sent)
        broker.stop()
        assert list(check_store(root, levels="5s 10s")) == []


@pytest.mark.long
def test_what_waits_and_was_damaged_before_it_was_flushed_is_not_delivered(tmp_path: Path) -> None:
    """Nothing tells what it was; its number is wrong, so it is no good message, and the others go on."""
    root, never = tmp_path / "store", 600_000
    settings = {"flushIntervalCommitLog": never, "flushCommitLogThoroughInterval": never}
    with Broker(store_root=root, scrubBytesPerSecond=0, messageDelayLevel="4s 10s", **settings) as broker:
        with Producer("damage", namesrv_addr=broker.namesrv_addr) as producer:
            producer.create_topic("Later", 1)
            sent = [b"%02d " % n * 60 for n in range(40)]
            moment = datetime.now(UTC) + timedelta(seconds=4)
            for n, body in enumerate(sent):
                later = {"delay_level": 1} if n % 2 else {"deliver_at": moment}
                producer.send(Message("Later", body, **later))
        lost = []
        for topic, number in (("SCHEDULE_TOPIC_XXXX", 7), ("rmq_sys_wheel_timer", 9)):
            (unit,) = StoreView(root).units(topic, 0, number, number + 1)
            (last_byte,) = read(root, unit.physical_offset + 27, 1)
            overwrite(root, unit.physical_offset + 27, bytes([last_byte ^ 1]))
            lost.append((topic, number, unit.physical_offset))
        with PullConsumer("readers", namesrv_addr=broker.namesrv_addr) as consumer:
            queue = next(iter(consumer.fetch_subscribe_message_queues("Later")))
            wait_until(lambda: consumer.max_offset(queue) >= 38, 40, "all others are delivered")
            result = consumer.pull(queue, "*", 0, 64)
            wrong = (sent[2 * 7 + 1], sent[2 * 9])
            found = sorted(bytes(message.body) for message in result.messages)
            assert found == sorted(body for body in sent if body not in wrong)
        rows = DamageTable(layout_of(root)).rows
        assert sorted((row.topic, row.queue_offset, row.position) for row in rows) == sorted(lost)
        broker.stop()
        broker.start()  # what is marked is replaced then
        broker.stop()
        assert {row.state for row in DamageTable(layout_of(root)).rows} == {REPLACED}
        assert list(check_store(root, levels="4s 10s")) == []


@pytest.mark.long
def test_a_coordinator_that_dies_with_a_doubt_is_asked_again(tmp_path: Path) -> None:
    """The doubt is taken from the page, nothing is mended yet: who reads tells the next one."""
    root, marks = tmp_path / "store", tmp_path / "marks"
    marks.mkdir()
    armed = {"SHMQ_FAULTS": "doubt.taken=kill", "SHMQ_FAULTS_DIR": str(marks)}
    maker = BrokerMaker()
    try:
        broker = maker(
            tmp_path, environment=armed, flushDiskType="SYNC_FLUSH", scrubBytesPerSecond="0"
        ).start()
        address = f"unix:{broker.places['namesrvUnix']}"
        queue, sent = send_all(address)
        layout = layout_of(root)
        units = list(StoreView(root).units("Damaged", 0, 0, COUNT))
        wait_until(lambda: (summed_end(layout) or 0) > units[-1].physical_offset, 30, "all is summed")
        coordinator = broker.children()["shmq: coordinator broker-t"]
        overwrite(root, units[100].physical_offset + 120, b"#")
        with PullConsumer("readers", namesrv_addr=address) as consumer:
            assert bodies(consumer, queue) == sent
        assert (marks / "doubt.taken").exists()
        assert broker.children()["shmq: coordinator broker-t"] != coordinator
        rows = lambda: [row.state for row in DamageTable(layout).rows]  # noqa: E731
        wait_until(lambda: rows() == [MENDED], 20, "the table says so, too")
        assert broker.stop() == 0
        assert list(check_store(root)) == []
    finally:
        maker.end_all()


@pytest.mark.long
def test_a_coordinator_that_dies_while_it_gives_a_message_up_leaves_that_to_the_next(tmp_path: Path) -> None:
    """The table has the message, its unit does not say so yet: readers doubt it again, the others go on."""
    root, marks = tmp_path / "store", tmp_path / "marks"
    marks.mkdir()
    armed = {"SHMQ_FAULTS": "doubt.noted=kill", "SHMQ_FAULTS_DIR": str(marks)}
    never = {  # no flush, so that nothing tells what the message was
        "flushIntervalCommitLog": "600000",
        "flushCommitLogThoroughInterval": "600000",
        "flushCommitLogLeastPages": "1000000",
    }
    maker = BrokerMaker()
    try:
        broker = maker(tmp_path, environment=armed, scrubBytesPerSecond="0", **never).start()
        address = f"unix:{broker.places['namesrvUnix']}"
        queue, sent = send_all(address)
        (unit,) = StoreView(root).units("Damaged", 0, 100, 101)
        (last_byte,) = read(root, unit.physical_offset + 27, 1)
        overwrite(root, unit.physical_offset + 27, bytes([last_byte ^ 1]))  # of the queue offset
        coordinator = broker.children()["shmq: coordinator broker-t"]
        with PullConsumer("readers", namesrv_addr=address) as consumer:
            assert bodies(consumer, queue) == sent[:100] + sent[101:]
        assert (marks / "doubt.noted").exists()
        assert broker.children()["shmq: coordinator broker-t"] != coordinator
        (row,) = DamageTable(layout_of(root)).rows
        assert (row.state, row.topic, row.queue_offset, row.position) == (
            MARKED,
            "Damaged",
            100,
            unit.physical_offset,
        )
        assert broker.stop() == 0
        assert broker.start().stop() == 0  # what is marked is replaced then
        assert [row.state for row in DamageTable(layout_of(root)).rows] == [REPLACED]
        assert list(check_store(root)) == []
    finally:
        maker.end_all()
