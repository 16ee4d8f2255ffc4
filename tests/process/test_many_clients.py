"""Many producers and one group of many consumers at once: everything arrives, in order, accounted for."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import pytest

from shmq import AdminClient
from shmq.base.runtime_dir import page_name
from shmq.embedded import Broker
from shmq.protocol.bodies.offsets import ConsumeOffset
from shmq.shm.control_page import ControlPage
from shmq.store.check import check_store
from shmq.testing import BrokerMaker
from tests.helpers.client_processes import Got, Member, ended_members, make_topic, numbered_producer, owners
from tests.helpers.waiting import wait_until

TOPIC, GROUP = "Many", "ManyGroup"
WAYS = ("sync", "async", "batch")


@pytest.mark.parametrize(
    ("workers", "producers", "messages", "queues", "consumers"),
    [
        pytest.param(2, 4, 1000, 8, 2, id="small", marks=pytest.mark.long),
        pytest.param(4, 20, 5000, 16, 8, id="large", marks=[pytest.mark.long, pytest.mark.timeout(300)]),
    ],
)
def test_every_message_of_many_producers_is_delivered_once_and_in_order(
    make_broker: BrokerMaker,
    tmp_path: Path,
    workers: int,
    producers: int,
    messages: int,
    queues: int,
    consumers: int,
) -> None:
    broker = make_broker(brokerWorkers=workers)
    make_topic(broker, TOPIC, queues)
    with ended_members() as members:
        members += [Member(broker, GROUP, TOPIC, tmp_path / str(n), threads=1) for n in range(consumers)]
        for member in members:
            member.wait_ready()
        fair_share = [queues // consumers] * consumers
        wait_until(lambda: sorted(owners(broker, GROUP, TOPIC).values()) == fair_share, 30)

        began = time.monotonic()
        senders = [
            numbered_producer(broker, TOPIC, f"p{n}", messages, WAYS[n % len(WAYS)]) for n in range(producers)
        ]
        for sender in senders:
            sender.communicate(timeout=240)
        assert [sender.returncode for sender in senders] == [0] * producers
        total = producers * messages
        wait_until(lambda: sum(_lines(member.path) for member in members) >= total, 120, "all delivered")
        print(f"{total} messages in {time.monotonic() - began:.1f} s")
        # Whoever leaves before, hands messages on that it has consumed: that is RocketMQ's at least once.
        wait_until(lambda: all(row.consumer_offset == row.broker_offset for row in _offsets(broker)), 20)

    by_queue: dict[int, list[Got]] = defaultdict(list)
    for member in members:
        for one in member.deliveries:
            by_queue[one.queue_id].append(one)
    delivered = [one for its in by_queue.values() for one in its]
    twice = [(place, times) for place, times in Counter(one.body for one in delivered).items() if times > 1]
    assert not twice, "nothing died and the group was settled: no message comes twice"
    assert {one.body for one in delivered} == {f"p{p} {n}" for p in range(producers) for n in range(messages)}
    for its in by_queue.values():
        assert [one.queue_offset for one in its] == list(range(len(its)))
        _assert_each_producers_numbers_rise(its)

    assert sum(row.consumer_offset for row in _offsets(broker)) == total
    root = broker.store_root
    page = ControlPage.attach(page_name(root), readonly=True)
    try:
        assert list(check_store(root, page)) == []
    finally:
        page.close()
    broker.stop()
    assert list(check_store(root)) == []


def _offsets(broker: Broker) -> Collection[ConsumeOffset]:
    with AdminClient(broker.namesrv_addr) as admin:
        return admin.consume_stats(GROUP, TOPIC).offset_table.values()


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def _assert_each_producers_numbers_rise(deliveries: list[Got]) -> None:
    numbers: dict[str, list[int]] = defaultdict(list)
    for one in deliveries:
        name, number = one.body.split()
        numbers[name].append(int(number))
    for name, its in numbers.items():
        assert all(before < after for before, after in pairwise(its)), name
