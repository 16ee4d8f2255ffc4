"""What the store promises, seen from outside a broker: rebuilt files, keys found in time, many queues."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import psutil
import pytest

from shmq import AdminClient, Message, MessageExt, Producer, PullConsumer, PullStatus
from shmq.base.runtime_dir import page_name
from shmq.embedded import Broker
from shmq.model.message_queue import MessageQueue
from shmq.model.topic_config import TopicConfig
from shmq.shm.control_page import ControlPage
from shmq.store.check import check_store
from shmq.testing import BrokerMaker
from tests.helpers.waiting import wait_until

MIB = 1 << 20


def everything(broker: Broker, topic: str) -> dict[int, list[MessageExt]]:
    """All messages of a topic by queue, read through the socket."""
    found: dict[int, list[MessageExt]] = {}
    with PullConsumer("Everything", namesrv_addr=broker.namesrv_addr, direct_pull=False) as consumer:
        for queue in consumer.fetch_subscribe_message_queues(topic):
            mine = found[queue.queue_id] = []
            while (result := consumer.pull(queue, "*", len(mine), 500)).status is PullStatus.FOUND:
                mine += result.messages
    return found


def keyed(first: int, last: int) -> list[Message]:
    return [Message("Facts", b"%d" % n, keys=f"key{n}", tags=f"T{n % 3}") for n in range(first, last)]


def test_deleted_queues_and_indexes_are_rebuilt_and_everything_is_found_again(broker: Broker) -> None:
    with Producer("Facts", namesrv_addr=broker.namesrv_addr) as producer:
        producer.send(keyed(0, 1)[0])
        queues = producer.fetch_publish_message_queues("Facts")
        for part in range(20):
            producer.send(keyed(1 + part * 100, 101 + part * 100), queue=queues[part % 4])
    before = everything(broker, "Facts")
    assert sum(map(len, before.values())) == 2001
    broker.stop()
    shutil.rmtree(broker.store_root / "consumequeue")
    shutil.rmtree(broker.store_root / "index")
    broker.start()
    after = everything(broker, "Facts")
    assert {q: [m.msg_id for m in its] for q, its in after.items()} == {
        q: [m.msg_id for m in its] for q, its in before.items()
    }
    with (
        AdminClient(broker.namesrv_addr) as admin,
        Producer("Facts", namesrv_addr=broker.namesrv_addr) as more,
    ):
        wait_until(lambda: found_by(admin, "key2000"), 10)
        for number in range(0, 2001, 97):
            assert [bytes(m.body) for m in found_by(admin, f"key{number}")] == [b"%d" % number]
        again = more.send(Message("Facts", b"goes on"), queue=MessageQueue("Facts", broker.broker_name, 0))
    assert again.queue_offset == len(before[0])
    for its in everything(broker, "Facts").values():
        times = [message.store_timestamp for message in its]
        assert times == sorted(times), "store timestamps never go back, restarts included"
    broker.stop()
    assert list(check_store(broker.store_root)) == []


def found_by(admin: AdminClient, key: str) -> list[MessageExt]:
    try:
        return admin.query_message("Facts", key)
    except Exception:  # not there yet
        return []


@pytest.mark.long
@pytest.mark.parametrize(
    "seconds", [1.5, pytest.param(10.0, marks=[pytest.mark.long, pytest.mark.timeout(120)])]
)
def test_a_key_is_found_within_a_second_of_its_acknowledgement_while_others_send(
    make_broker: BrokerMaker, seconds: float
) -> None:
    broker = make_broker(maxIndexNum=2_000_000, maxHashSlotNum=500_000)
    stop = threading.Event()
    sent = 0
    with Producer("Facts", namesrv_addr=broker.namesrv_addr) as producer:
        producer.send(keyed(0, 1)[0])

        def send_much() -> None:
            nonlocal sent
            while not stop.is_set():
                producer.send(keyed(10_000, 11_000))
                sent += 1000

        with AdminClient(broker.namesrv_addr) as admin:
            load = threading.Thread(target=send_much)
            load.start()
            wait_until(lambda: found_by(admin, "key10000"), 10, "the index has seen that others send")
            began = time.monotonic()
            delays: list[float] = []
            while (now := time.monotonic()) - began < seconds:
                key = f"single{len(delays)}"
                producer.send(Message("Facts", b"x", keys=key))
                acknowledged = time.monotonic()
                wait_until(lambda key=key: found_by(admin, key), 5, "the key is found")
                delays.append(time.monotonic() - acknowledged)
            stop.set()
            load.join()
    print(f"{sent / (now - began):.0f} messages/s, found after {max(delays) * 1000:.0f} ms at most")
    assert max(delays) < 1.0


@pytest.mark.long
@pytest.mark.timeout(300)
def test_ten_thousand_queues_cost_little_disk_and_few_maps_and_descriptors(make_broker: BrokerMaker) -> None:
    broker = make_broker(mappedFileSizeConsumeQueue=6_000_000, mappedFileSizeCommitLog=64 * MIB)
    topics, queues = 20, 500
    with AdminClient(broker.namesrv_addr) as admin:
        for number in range(topics):
            admin.create_topic(broker.tcp_addr, TopicConfig(f"Wide{number}", queues, queues))
    peak_maps = peak_files = 0
    with Producer("Facts", namesrv_addr=broker.namesrv_addr, send_msg_timeout_ms=20_000) as producer:
        for number in range(topics):
            topic = f"Wide{number}"
            for queue_id in range(queues):
                queue = MessageQueue(topic, broker.broker_name, queue_id)
                producer.send([Message(topic, b"%d" % n) for n in range(10)], queue=queue)
            for process in [psutil.Process(broker.pid), *psutil.Process(broker.pid).children(recursive=True)]:
                peak_maps = max(peak_maps, Path(f"/proc/{process.pid}/maps").read_text().count("\n"))
                files, limit = process.num_fds(), process.rlimit(psutil.RLIMIT_NOFILE)[0]
                peak_files = max(peak_files, files)
                assert files < limit * 0.9
    used = sum(
        path.stat().st_blocks * 512
        for path in broker.store_root.rglob("*")
        if path.is_file() and "commitlog" not in path.parts
    )
    print(f"{used / MIB:.0f} MiB beside the log, {peak_maps} maps, {peak_files} descriptors")
    assert used < 1 << 30
    assert peak_maps < int(Path("/proc/sys/vm/max_map_count").read_text()) / 2
    with PullConsumer("Facts", namesrv_addr=broker.namesrv_addr) as consumer:
        for number in range(topics):
            for queue_id in range(0, queues, 50):
                queue = MessageQueue(f"Wide{number}", broker.broker_name, queue_id)
                assert len(consumer.pull(queue, "*", 0, 32).messages) == 10
    page = ControlPage.attach(page_name(broker.store_root), readonly=True)
    try:
        assert list(check_store(broker.store_root, page)) == []
    finally:
        page.close()
    began = time.monotonic()
    broker.stop()
    assert time.monotonic() - began < 6, "a stop has five seconds, many queues or few"
    os.sync()
    began = time.monotonic()
    broker.start()
    print(f"restarted in {time.monotonic() - began:.1f} s")
