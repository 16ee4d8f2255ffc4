"""Hostile input to real workers: mutated real frames and random bytes.

Whatever arrives, no worker dies or grows, only its own connection suffers, and the store stays sound. A
mutated send may still be a good send; so mutants of requests that only read are separate: after them not a
byte of the log has changed.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shmq.model.record_batch import encode_batch
from shmq.protocol.bodies.batch import BatchElement, encode_batch_elements
from shmq.protocol.command import Command, encode_command
from shmq.protocol.headers.log_batch import SendLogBatchHeader, pack_sizes
from shmq.protocol.headers.offset import (
    GetMaxOffsetHeader,
    QueryConsumerOffsetHeader,
    SearchOffsetHeader,
    UpdateConsumerOffsetHeader,
)
from shmq.protocol.headers.query import QueryMessageHeader, ViewMessageHeader
from shmq.shm.page_layout import WRITE_POSITION
from shmq.store.check import check_store
from tests.helpers.mutants import mutate
from tests.helpers.worker_rig import WorkerRig, pull_request, running_rig, send_request

FEW, MANY = 1_500, 100_000
GROWTH_BYTES_MAX = 12 << 20
"""Allocator slack included; 100,000 frames of a few hundred bytes would be 30 MiB if they were kept."""


@pytest.fixture(scope="module")
def rig() -> Iterator[WorkerRig]:
    with running_rig(workers=2, topics=3) as running:
        running.coordinator.add_group("CG", {"T0": "TagA"})
        running.coordinator.auto_create = False
        with running.client() as client:
            for n in range(50):
                assert client.call(send_request("T0", b"stored %d" % n)).code == 0
        yield running
        assert list(check_store(running.root, running.page)) == []


def frame(command: Command) -> bytes:
    return b"".join(bytes(buffer) for buffer in encode_command(command))


def reading_frames() -> list[bytes]:
    found = []
    for serialization in (0, 1, 2):
        headers = {
            14: QueryConsumerOffsetHeader("CG", "T0", 0),
            15: UpdateConsumerOffsetHeader("CG", "T0", 0, 3),
            29: SearchOffsetHeader("T0", 0, 1_700_000_000_000),
            30: GetMaxOffsetHeader("T0", 0),
            12: QueryMessageHeader("T0", "K1", 10, 0, 2_000_000_000_000),
            33: ViewMessageHeader(0),
        }
        found += [frame(Command.request(c, h, serialization=serialization)) for c, h in headers.items()]
        found.append(frame(pull_request(serialization=serialization)))
        found.append(frame(pull_request("T0", 50, sys_flag=6, suspend_ms=500, serialization=serialization)))
        found.append(frame(Command.request(34, body=b'{"clientID":"c"}', serialization=serialization)))
        found.append(
            frame(Command.request(310, serialization=serialization).response(0, "answer to nothing"))
        )
    return found


def sending_frames() -> list[bytes]:
    data, sizes = encode_batch(
        topic=b"T1",
        queue_id=0,
        bodies=[b"body %d" % n for n in range(20)],
        properties=b"UNIQ_KEY\x01U\x02",
        born_timestamp=1,
    )
    log_batch = SendLogBatchHeader("PG", "T1", 0, len(sizes), pack_sizes(sizes), "TBW102", 4)
    found = [frame(Command.request(30001, log_batch, bytes(data)))]
    batch = encode_batch_elements([BatchElement(b"hi", b"UNIQ_KEY\x01U\x02TAGS\x01A")] * 3)
    for serialization in (0, 1, 2):
        found.append(frame(send_request("T1", serialization=serialization)))
        found.append(frame(send_request("T1", batch, code=320, batch=True, serialization=serialization)))
    return found


def bombard(rig: WorkerRig, corpus: list[bytes], count: int, seed: int) -> None:
    """Send mutants over ever new connections; read whatever comes back.

    Most go alone: what follows a frame that ends its connection would not be looked at.
    """
    chosen = random.Random(seed)
    sent = 0
    while sent < count:
        together = chosen.choice((1, 1, 1, 1, 1, 1, 1, 10))
        sent += together
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(rig.unix_path))
            try:
                connection.sendall(b"".join(mutate(chosen, corpus) for _ in range(together)))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 20):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                continue


def resident(rig: WorkerRig) -> int:
    """Private memory of the workers: maps of the store come and go with the page cache."""
    return sum(psutil.Process(w.pid).memory_full_info().uss for w in rig.workers if w is not None)


def assert_served(rig: WorkerRig) -> None:
    assert all(worker is not None and worker.poll() is None for worker in rig.workers), "a worker died"
    for _ in range(4):
        with rig.client() as client:
            assert client.call(pull_request()).code == 0


@pytest.mark.parametrize(
    "count", [FEW, pytest.param(MANY, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_mutated_reads_kill_nobody_and_leave_the_log_as_it_was(rig: WorkerRig, count: int) -> None:
    bombard(rig, reading_frames(), 500, 1)
    log_end, before = rig.page.words[WRITE_POSITION], resident(rig)
    bombard(rig, reading_frames(), count, 2)
    assert_served(rig)
    assert rig.page.words[WRITE_POSITION] == log_end
    assert resident(rig) - before < GROWTH_BYTES_MAX


@pytest.mark.parametrize(
    "count", [FEW, pytest.param(MANY, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_mutated_sends_kill_nobody_and_the_store_stays_sound(rig: WorkerRig, count: int) -> None:
    bombard(rig, sending_frames(), 500, 3)
    before = resident(rig)
    bombard(rig, sending_frames(), count, 4)
    assert_served(rig)
    assert resident(rig) - before < GROWTH_BYTES_MAX
    assert list(check_store(rig.root, rig.page)) == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200), max_size=4), st.booleans())
def test_random_bytes_cost_one_connection_at_most(rig: WorkerRig, pieces: list[bytes], framed: bool) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(rig.unix_path))
        for piece in pieces:
            data = (len(piece) + 4).to_bytes(4, "big") + b"\x02\0\0" + piece if framed else piece
            try:
                connection.sendall(data)
            except OSError:
                break
    with rig.client() as client:
        assert client.call(pull_request()).code == 0


def test_a_claimed_frame_of_16_mib_costs_no_memory_before_it_arrives(rig: WorkerRig) -> None:
    before = resident(rig)
    liars = []
    for _ in range(100):
        liar = socket.socket(socket.AF_UNIX)
        liar.connect(str(rig.unix_path))
        liar.sendall(((16 << 20) - 4).to_bytes(4, "big") + bytes(100))
        liars.append(liar)
    time.sleep(0.2)
    assert_served(rig)
    assert resident(rig) - before < GROWTH_BYTES_MAX
    for liar in liars:
        liar.close()
