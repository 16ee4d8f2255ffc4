"""How soon a message is found by its key: at once enough for a person, whatever else is sent."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import psutil
import pytest

from shmq import Message, Producer
from shmq.client.admin_client import AdminClient
from shmq.embedded import Broker
from tests.helpers.waiting import wait_until

TOPIC = "KeyTopic"


def found_after_s(producer: Producer, admin: AdminClient, key: str) -> float:
    """Send one message; return how long after its acknowledgement a query finds it."""
    result = producer.send(Message(TOPIC, b"probe", keys=key))
    acknowledged = time.monotonic()
    wait_until(lambda: bool(admin.query_message(TOPIC, key)), 60, f"key {key} is found")
    (found,) = admin.query_message(TOPIC, key)
    assert found.offset_msg_id == result.offset_msg_id
    return time.monotonic() - acknowledged


def behind(admin: AdminClient, broker: Broker) -> tuple[int, int]:
    """(bytes, ms) the index is behind, by brokerStatus."""
    info = admin.broker_runtime_info(broker.tcp_addr)
    return int(info["dispatchBehindBytes"]), int(info["indexBehindMillis"])


@pytest.mark.long
def test_keys_of_a_batch_are_found_and_the_lag_ends() -> None:
    with Broker() as broker, Producer("PG", namesrv_addr=broker.namesrv_addr) as producer:
        admin = AdminClient(broker.namesrv_addr)
        producer.send([Message(TOPIC, b"x", keys=f"k{n} many") for n in range(2_000)])
        found_after_s(producer, admin, "probe")
        assert [m.key_list[0] for m in admin.query_message(TOPIC, "k1999")] == ["k1999"]
        assert len(admin.query_message(TOPIC, "many", 64)) == 64
        wait_until(lambda: behind(admin, broker) == (0, 0), 20, "the index is complete")
        admin.close()


def coordinator_of(broker: Broker) -> psutil.Process:
    children = psutil.Process(broker.pid).children(recursive=True)
    (found,) = [child for child in children if "coordinator" in " ".join(child.cmdline())]
    return found


@pytest.mark.long
@pytest.mark.parametrize("items", [20_000_000, 40_000], ids=["files as configured", "tiny files"])
def test_keys_are_found_soon_at_full_rate(items: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the figures, which depend on the machine: only that all is found is asserted."""
    sizes = {"mappedFileSizeCommitLog": 256 << 20, "maxIndexNum": items, "maxHashSlotNum": items // 4}
    with Broker(**sizes) as broker, Producer("PG", namesrv_addr=broker.namesrv_addr) as producer:
        admin = AdminClient(broker.namesrv_addr)
        producer.send(Message(TOPIC, b"first"))
        coordinator = coordinator_of(broker)
        used = sum(coordinator.cpu_times()[:2])
        began = time.monotonic()
        loads = [start_load(broker, f"load{n}") for n in range(2)]
        waits, behinds = [], []
        while any(load.poll() is None for load in loads):
            waits.append(found_after_s(producer, admin, f"probe-{len(waits)}"))
            behinds.append(behind(admin, broker)[1])
        share = (sum(coordinator.cpu_times()[:2]) - used) / (time.monotonic() - began)
        wait_until(lambda: behind(admin, broker) == (0, 0), 60, "the index is complete")
        rate = 0.0
        for n, load in enumerate(loads):
            sent, seconds = load.communicate()[0].split()
            assert load.returncode == 0
            assert len(admin.query_message(TOPIC, f"load{n}-{int(sent) - 1}")) == 1
            rate += int(sent) / float(seconds)
        admin.close()
    with capsys.disabled():
        print(
            f"\n{rate:,.0f} messages/s with 2 keys each; a key is found after {milliseconds(waits)}"
            f" ({len(waits)} probes); indexBehindMillis at most {max(behinds)}; "
            f"coordinator {share:.0%} of a core"
        )


def start_load(broker: Broker, prefix: str) -> subprocess.Popen[str]:
    arguments = (broker.namesrv_addr, TOPIC, prefix, "10", "100000")
    command = [sys.executable, "-m", "tests.helpers.key_load", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def milliseconds(waits: list[float]) -> str:
    return f"median {statistics.median(waits) * 1000:.0f} ms, at most {max(waits) * 1000:.0f} ms"
