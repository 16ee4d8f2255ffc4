"""Heartbeats of a real broker: most are answered by the worker, and all that they promise holds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from shmq import AdminClient, BrokerError
from shmq.base.runtime_dir import page_name
from shmq.client.addresses import Address
from shmq.client.duplex import DuplexChannel
from shmq.embedded import Broker
from shmq.model.subscription import build_subscription
from shmq.protocol.bodies.heartbeat import ConsumerData, HeartbeatData, encode_heartbeat
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.client import UnregisterClientHeader
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import SlotCounters
from shmq.shm.page_layout import SLOT_COUNT
from tests.helpers.waiting import wait_until

GROUP = "BeatGroup"


class Client:
    """A consumer that does nothing but beat."""

    def __init__(self, channel: DuplexChannel, client_id: str) -> None:
        self.channel = channel
        self.client_id = client_id

    def beat(self, *topics: str) -> None:
        subscriptions = [build_subscription(topic, "*", 1) for topic in topics or ("T",)]
        data = HeartbeatData(self.client_id, ["P"], [ConsumerData(GROUP, subscriptions=subscriptions)])
        command = Command.request(RequestCode.HEART_BEAT, None, encode_heartbeat(data))
        assert self.channel.call(command, 20).code == ResponseCode.SUCCESS

    def leave(self) -> None:
        header = UnregisterClientHeader(self.client_id, None, GROUP)
        assert self.channel.call(Command.request(RequestCode.UNREGISTER_CLIENT, header), 20).code == 0


@contextmanager
def client(broker: Broker, client_id: str = "10.0.0.1@beats") -> Iterator[Client]:
    channel = DuplexChannel(
        Address(broker.unix_socket), 5.0, None, on_request=lambda *_: None, on_close=lambda *_: None
    )
    try:
        yield Client(channel, client_id)
    finally:
        channel.close()


def members(broker: Broker) -> list[str]:
    with AdminClient(broker.namesrv_addr) as admin:
        with suppress(BrokerError):
            return [one.client_id for one in admin.consumer_connections(GROUP).connections]
        return []


def forwards(broker: Broker) -> int:
    page = ControlPage.attach(page_name(broker.store_root))
    return sum(SlotCounters(page, slot).value("forwards") for slot in range(SLOT_COUNT))


@pytest.fixture
def beating(make_broker) -> Broker:  # type: ignore[no-untyped-def]
    broker: Broker = make_broker(brokerWorkers=1, channelExpiredTimeout=3000)
    return broker


@pytest.mark.long
def test_repeated_heartbeats_are_answered_by_the_worker_and_keep_the_member(beating: Broker) -> None:
    with client(beating) as one:
        for _ in range(3):
            one.beat()
        began = time.monotonic()
        while time.monotonic() - began < 14:  # over four times the expiry, and two of its looks
            one.beat()
            time.sleep(0.2)
        assert members(beating) == [one.client_id]
        wait_until(lambda: not members(beating), 30, "it is silent, and forgotten")
        one.beat()
        assert members(beating) == [one.client_id], "it is back"


def test_what_changes_is_judged_again(beating: Broker) -> None:
    with client(beating) as one, AdminClient(beating.namesrv_addr) as admin:
        for _ in range(3):
            one.beat()
        before = forwards(beating)
        one.beat()
        assert forwards(beating) == before, "nothing new"
        one.beat("T", "U")
        assert sorted(admin.consumer_connections(GROUP).subscriptions) == ["T", "U"]
        for _ in range(3):
            one.beat("T", "U")
        one.leave()
        assert members(beating) == []
        one.beat("T", "U")
        assert members(beating) == [one.client_id]
        for _ in range(3):
            one.beat("T", "U")
        admin.delete_group(beating.tcp_addr, GROUP, clean_offset=False)
        assert members(beating) == []
        one.beat("T", "U")
        assert members(beating) == [one.client_id], "a heartbeat makes the group again"


@pytest.mark.long
def test_a_new_coordinator_knows_those_that_beat_on(beating: Broker) -> None:
    with client(beating) as one:
        for _ in range(3):
            one.beat()
        (coordinator,) = [
            child
            for child in psutil.Process(beating.pid).children(recursive=True)
            if "coordinator" in " ".join(child.cmdline())
        ]
        os.kill(coordinator.pid, signal.SIGKILL)
        one.beat()
        wait_until(lambda: members(beating) == [one.client_id], 20, "the next coordinator knows it")
        one.beat()
        assert members(beating) == [one.client_id]
