"""Connections on their way to a worker when it dies are served by another; their clients notice nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base.runtime_dir import page_name
from shmq.protocol.codes import ResponseCode
from shmq.shm.boot import FIRST_WORKER_SLOT
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import SlotCounters
from shmq.shm.worker_slots import SlotTable
from tests.helpers.supervised_broker import BrokerMaker
from tests.helpers.waiting import wait_until

CLIENTS = 8


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


@pytest.mark.long
def test_what_was_handed_to_a_worker_that_dies_goes_to_another(make: BrokerMaker, tmp_path: Path) -> None:
    broker = make(tmp_path, brokerWorkers="2").start()
    page = ControlPage.attach(page_name(Path(broker.places["store"])), readonly=True)
    other = SlotCounters(page, FIRST_WORKER_SLOT + 1)
    with broker.connect() as first:
        assert first.send("t", b"first").code == ResponseCode.SUCCESS
    victim = broker.children()["shmq: worker 0 broker-t"]
    before = other.value("connections_taken_over")
    os.kill(victim, signal.SIGSTOP)  # it takes nothing of what it is handed from here on
    clients = [broker.connect() for _ in range(CLIENTS)]
    served = SlotTable(page)[FIRST_WORKER_SLOT + 1]
    wait_until(lambda: served.connections >= CLIENTS // 2, 10, "half of them are accepted and kept")
    os.kill(victim, signal.SIGKILL)
    for client in clients:
        assert client.send("t", b"here").code == ResponseCode.SUCCESS
    assert other.value("connections_taken_over") > before
    for client in clients:
        client.sock.close()
    page.close()
    assert broker.stop() == 0
