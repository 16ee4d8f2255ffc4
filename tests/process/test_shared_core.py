"""A sync sender and its worker on one core: asked for, given up, and no trace left of it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from shmq import AdminClient, Message, Producer
from shmq.base.runtime_dir import page_name
from shmq.embedded import Broker
from shmq.model.subscription import FUNCTION_EXPRESSION
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.share_core import ShareCoreHeader
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import totals
from tests.helpers.waiting import wait_until
from tests.helpers.whole_broker import process_of
from tests.helpers.worker_rig import Client, pull_request

CORES = os.sched_getaffinity(0)
pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="one core: everybody is on it anyway")


def counts(broker: Broker) -> dict[str, int]:
    """What the broker has counted; workers add to it once a second."""
    page = ControlPage.attach(page_name(broker.store_root), readonly=True)
    try:
        return totals(page)
    finally:
        page.close()


def shared(broker: Broker) -> int:
    """How often a worker has come."""
    return counts(broker)["cores_shared"]


def send(producer: Producer, count: int) -> None:
    for n in range(count):
        producer.send(Message("Shared", b"%d" % n))


@pytest.mark.parametrize("mode", ["ASYNC_FLUSH", "SYNC_FLUSH"])
def test_a_worker_comes_and_goes_home(mode: str) -> None:
    with Broker(brokerWorkers=1, flushDiskType=mode) as broker:
        worker = psutil.Process(process_of(broker, "worker 0"))
        with Producer("Sharer", namesrv_addr=broker.namesrv_addr) as producer:
            wait_until(lambda: send(producer, 100) or shared(broker), 30, "the worker was asked")
            assert os.sched_getaffinity(0) == CORES, "nothing is left of it between two calls"
        wait_until(lambda: set(worker.cpu_affinity()) == CORES, 10, "the worker may run anywhere again")


@pytest.mark.parametrize("who", ["broker", "client"])
def test_who_does_not_want_it_is_left_alone(who: str) -> None:
    with Broker(brokerWorkers=1, shareClientCore=who != "broker") as broker:
        with Producer("Alone", namesrv_addr=broker.namesrv_addr, share_core=who != "client") as producer:
            send(producer, 300)
        wait_until(lambda: counts(broker)["frames_in"] >= 300, 10, "the worker has told what it counted")
        assert not shared(broker)


def test_others_take_the_worker_from_it() -> None:
    with (
        Broker(brokerWorkers=1) as broker,
        Producer("First", namesrv_addr=broker.namesrv_addr) as first,
        Producer("Second", namesrv_addr=broker.namesrv_addr, share_core=False) as second,
    ):
        worker = psutil.Process(process_of(broker, "worker 0"))
        wait_until(lambda: send(first, 100) or shared(broker), 30, "the worker was asked")
        send(second, 200)
        assert set(worker.cpu_affinity()) == CORES
        send(first, 100)


def test_a_filter_function_may_run_anywhere() -> None:
    """Its process is started while the worker keeps to one core."""
    with Broker(brokerWorkers=1, filterServerNums=1) as broker:
        with Producer("Filtered", namesrv_addr=broker.namesrv_addr, share_core=False) as producer:
            queue = producer.send(Message("Filtered", b"x")).message_queue
        with AdminClient(broker.namesrv_addr) as admin:
            admin.install_filter(broker.tcp_addr, "all", b"def wants(message):\n    return True\n")
        with Client(Path(broker.unix_socket)) as client:
            client.send(Command.request(RequestCode.SHARE_CORE, ShareCoreHeader(min(CORES))))
            client.send(
                pull_request(
                    "Filtered", queue_id=queue.queue_id, expression="all", expression_type=FUNCTION_EXPRESSION
                )
            )
            assert client.receive().code == 0, "the worker came"
            assert client.receive().code == 0, "the function was asked"
        (function,) = psutil.Process(process_of(broker, "worker 0")).children()
        assert set(function.cpu_affinity()) == CORES
