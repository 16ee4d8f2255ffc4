"""A running broker finds damage in its own log, tells, and goes on delivering everything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shmq import AdminClient, Message, MessageQueue, Producer, PullConsumer
from shmq.embedded import Broker
from shmq.store.check import check_store
from shmq.store.names import file_name
from shmq.store.scrub_progress import damage_facts
from shmq.store.store_view import StoreView, layout_of
from tests.helpers.waiting import wait_until

COUNT = 300


def bodies(consumer: PullConsumer, queue: MessageQueue) -> list[bytes]:
    """Everything the queue gives out."""
    found: list[bytes] = []
    offset = 0
    while True:
        result = consumer.pull(queue, "*", offset, 32)
        found += [bytes(message.body) for message in result.messages]
        if result.next_begin_offset >= COUNT or result.next_begin_offset <= offset:
            return found
        offset = result.next_begin_offset


def overwrite(root: Path, position: int, data: bytes) -> None:
    layout = layout_of(root)
    start = layout.segment_start(position)
    fd = os.open(layout.commit_log / file_name(start), os.O_RDWR)
    os.pwrite(fd, data, position - start)
    os.close(fd)


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
