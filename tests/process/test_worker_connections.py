"""Connections of real workers: spread, bounded, drained; frames that are no frames."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import psutil
import pytest

from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command, encode_command
from shmq.protocol.frame import FrameDecoder
from shmq.shm.boot import FIRST_WORKER_SLOT
from shmq.shm.counters import totals
from tests.helpers.waiting import wait_until
from tests.helpers.worker_rig import SMALL, Client, WorkerRig, pull_request, running_rig, send_request


@pytest.fixture(scope="module")
def pair() -> Iterator[WorkerRig]:
    with running_rig(workers=2) as running:
        yield running


def loads(rig: WorkerRig) -> list[int]:
    return [rig.slots[FIRST_WORKER_SLOT + n].connections for n in range(len(rig.workers))]


def settled_loads(rig: WorkerRig, total: int) -> list[int]:
    wait_until(lambda: sum(loads(rig)) == total, 10, f"{total} connections are counted")
    return loads(rig)


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_sixteen_connections_on_two_workers_are_spread_evenly(pair: WorkerRig, tcp: bool) -> None:
    settled_loads(pair, 0)
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(pair.client(tcp=tcp)) for _ in range(16)]
        found = settled_loads(pair, 16)
        assert min(found) >= 6, found
        assert all(c.call(send_request()).code == 0 for c in clients)
    settled_loads(pair, 0)


def test_two_hundred_connections_arriving_at_once_are_spread_evenly(pair: WorkerRig) -> None:
    settled_loads(pair, 0)
    with ExitStack() as open_ones:
        for _ in range(200):
            connecting = open_ones.enter_context(socket.socket(socket.AF_UNIX))
            connecting.connect(str(pair.unix_path))
        found = settled_loads(pair, 200)
        assert min(found) >= 80, found
    settled_loads(pair, 0)


def test_new_connections_fill_up_the_worker_that_lost_some(pair: WorkerRig) -> None:
    settled_loads(pair, 0)
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(pair.client()) for _ in range(12)]
        settled_loads(pair, 12)
        for client in clients[::2]:
            client.close()
        settled_loads(pair, 6)
        for _ in range(6):
            open_ones.enter_context(pair.client())
        assert min(settled_loads(pair, 12)) >= 4
    settled_loads(pair, 0)


def test_a_thousand_idle_and_two_hundred_active_connections_are_served(pair: WorkerRig) -> None:
    settled_loads(pair, 0)
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(pair.client()) for _ in range(1200)]
        assert min(settled_loads(pair, 1200)) >= 500
        active = clients[1000:]
        for _ in range(3):
            for client in active:
                client.send(send_request())
            assert all(client.receive().code == 0 for client in active)
    settled_loads(pair, 0)


BAD_FRAMES = {
    "negative length": struct.pack(">iI", -5, 0),
    "length of 2 GiB": struct.pack(">iI", 0x7FFFFFFF, 0),
    "length over the limit": struct.pack(">iI", 17 << 20, 0),
    "header longer than its frame": struct.pack(">iI", 8, 100) + bytes(4),
    "unknown serialization": struct.pack(">iI", 8, 9 << 24 | 4) + bytes(4),
    "json that is none": struct.pack(">iI", 8, 4) + b"{{{{",
    "cbor that is none": struct.pack(">iI", 8, 2 << 24 | 4) + b"\xff\xff\xff\xff",
    "text of another protocol": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


def test_a_bad_frame_closes_its_connection_only_and_is_counted(pair: WorkerRig) -> None:
    before = totals(pair.page)["frames_bad"]
    with pair.client() as good:
        for kind, data in BAD_FRAMES.items():
            with pair.client() as bad:
                bad.socket.sendall(data)
                with pytest.raises(ConnectionError):
                    raise AssertionError(f"{kind}: answered {bad.receive(5)}")
            assert good.call(send_request()).code == 0, kind
    due = before + len(BAD_FRAMES)
    wait_until(lambda: totals(pair.page)["frames_bad"] == due, 5, "every bad frame is counted")


def test_an_unknown_code_is_3_and_a_missing_field_is_refused(pair: WorkerRig) -> None:
    with pair.client() as client:
        assert client.call(Command.request(4711)).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
        assert client.call(Command.request(310, ext={"b": "T0"}, serialization=0)).code != 0
        assert client.call(send_request()).code == 0


def test_a_frame_may_arrive_byte_by_byte(pair: WorkerRig) -> None:
    with pair.client() as client:
        for byte in b"".join(bytes(b) for b in encode_command(send_request())):
            client.socket.sendall(bytes([byte]))
        assert client.receive().code == 0


def test_the_answers_of_one_turn_leave_in_one_write(pair: WorkerRig) -> None:
    with pair.client() as client:
        requests = b"".join(bytes(b) for _ in range(50) for b in encode_command(send_request()))
        for _ in range(20):
            client.socket.sendall(requests)
            first = FrameDecoder().feed(client.socket.recv(1 << 16))
            assert len(first) == 50


def test_a_consumer_that_does_not_read_is_bounded_and_others_are_served(pair: WorkerRig) -> None:
    with pair.client() as deaf, pair.client() as other:
        for _ in range(60):
            assert other.call(send_request("T0", bytes(60_000), queue_id=3)).code == 0
        request = b"".join(
            bytes(b)
            for b in encode_command(
                pull_request("T0", queue_id=3, serialization=2, count=64, max_msg_bytes=4 << 20)
            )
        )
        deaf.socket.setblocking(False)
        before = [psutil.Process(w.pid).memory_info().rss for w in pair.workers if w is not None]
        deadline = time.monotonic() + 2
        refused = 0
        while time.monotonic() < deadline and refused < 20:
            try:
                deaf.socket.send(request * 50)
            except BlockingIOError:
                refused += 1
                time.sleep(0.02)
        assert refused == 20, "the worker reads on though its answers are not taken"
        after = [psutil.Process(w.pid).memory_info().rss for w in pair.workers if w is not None]
        grown = sum(after) - sum(before)
        assert grown < 64 << 20, grown
        assert other.call(send_request()).code == 0


@pytest.mark.long
def test_an_idle_connection_is_closed_after_its_time() -> None:
    settings = replace(SMALL, server_channel_max_idle_time_seconds=1)
    with running_rig(settings) as rig, rig.client() as client:
        assert client.call(send_request()).code == 0
        with pytest.raises(ConnectionError):
            client.receive(15)


def test_connections_over_the_limit_are_refused() -> None:
    with running_rig(replace(SMALL, max_connections=16)) as rig:
        clients = [rig.client() for _ in range(16)]
        settled_loads(rig, 16)
        with rig.client() as too_many, pytest.raises(ConnectionError):
            too_many.call(send_request())
        assert clients[0].call(send_request()).code == 0
        for client in clients:
            client.close()


def test_sigterm_answers_what_is_in_hand_and_leaves_within_a_second_or_two() -> None:
    with running_rig() as rig:
        client, holder = rig.client(), rig.client()
        holder.send(pull_request(sys_flag=6, suspend_ms=60_000))
        for _ in range(100):
            client.send(send_request())
        assert client.receive().code == 0
        worker = rig.workers[0]
        assert worker is not None
        began = time.monotonic()
        worker.terminate()
        codes = [client.receive().code for _ in range(99)]
        assert set(codes) <= {0, int(ResponseCode.GO_AWAY)}
        assert holder.receive().code in (0, int(ResponseCode.PULL_NOT_FOUND))
        assert worker.wait(5) == 0
        assert time.monotonic() - began < 3
        assert rig.page.words[24] > 0
        client.close()
        holder.close()


def test_workers_leave_when_the_supervisor_is_gone() -> None:
    with running_rig() as rig:
        os.close(rig._supervisor_write)
        worker = rig.workers[0]
        assert worker is not None
        assert worker.wait(5) == 79
        rig.workers[0] = None
        rig._supervisor_write = os.open("/dev/null", os.O_RDONLY)


@pytest.mark.long
def test_an_idle_worker_wakes_at_most_twice_a_second(pair: WorkerRig) -> None:
    with pair.client() as client:
        assert client.call(send_request()).code == 0
    time.sleep(2.5)
    worker = pair.workers[0]
    assert worker is not None
    process = psutil.Process(worker.pid)
    before = process.num_ctx_switches().voluntary
    time.sleep(3)
    assert process.num_ctx_switches().voluntary - before <= 6


def test_two_clients_of_different_workers_see_the_same_queue(pair: WorkerRig) -> None:
    first, second = Client(pair.unix_path), Client(("127.0.0.1", pair.tcp_port))
    try:
        for client in (first, second, first, second):
            assert client.call(send_request("T0", queue_id=2)).code == 0
        assert second.call(pull_request("T0", queue_id=2)).code == 0
    finally:
        first.close()
        second.close()
