"""Hostile frames to a whole broker: coordinator (through the workers), name server and grant socket.

`test_worker_fuzz.py` does the same to the data path. Here every request that coordinator and name server know
is built with plausible fields, in all three header codecs, and mutated; afterwards every process is still the
one it was, has not grown, and serves.
"""

from __future__ import annotations

import dataclasses
import random
import socket
import typing
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from shmq import AdminClient, Message, Producer
from shmq.embedded import Broker
from shmq.handlers.table import HANDLERS, Place
from shmq.naming.table import HANDLERS as NAMING_HANDLERS
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command, encode_command
from shmq.protocol.grant import FileRequest, GrantReaderHeader, encode_file_requests
from shmq.shm.page_layout import LAYOUT_VERSION_NOW
from shmq.store.check import check_store
from tests.helpers.mutants import mutate
from tests.helpers.waiting import is_readable

GROWTH_BYTES_MAX = 12 << 20
LEFT_OUT = {RequestCode.UPDATE_AND_CREATE_TOPIC, RequestCode.UPDATE_AND_CREATE_TOPIC_LIST}
"""A mutant of these may well be a good request for a topic of thousands of queues, which takes memory."""

BODIES = (
    None,
    b'{"clientID":"c","consumerDataSet":[{"groupName":"g","subscriptionDataSet":[{"topic":"T"}]}]}',
    b'{"consumerGroup":"g","clientId":"c","mqSet":[{"topic":"T","brokerName":"broker-a","queueId":0}]}',
    b'{"groupName":"g","retryQueueNums":1}',
    b"brokerPermission=6\nflushDelayOffsetInterval=5",
)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(queueSlots=4096, offsetSlots=4096) as running:
        with Producer("Fuzz", namesrv_addr=running.namesrv_addr) as producer:
            for number in range(20):
                producer.send(Message("T", b"%d" % number))
        yield running
        running.stop()
        assert list(check_store(running.store_root)) == []


def frame(command: Command) -> bytes:
    return b"".join(bytes(buffer) for buffer in encode_command(command))


def filled(header: type | None) -> Any:
    """A header of that class with something plausible in every field, but not this broker's own name: a good
    frame may unregister it. None for none.
    """
    if header is None:
        return None
    kinds = typing.get_type_hints(header)
    values = {"topic": "T", "group": "g", "consumer_group": "g", "broker_name": "another"}
    return header(
        **{
            field.name: values.get(field.name, "T" if kinds[field.name] is str else 0)
            for field in dataclasses.fields(header)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
    )


def corpus(headers: dict[int, type | None]) -> list[bytes]:
    """Every request with every serialization and one body of each kind."""
    return [
        frame(Command.request(code, filled(header), body, serialization=serialization))
        for code, header in headers.items()
        for serialization in (0, 1, 2)
        for body in BODIES
    ]


def coordinators_frames() -> list[bytes]:
    routes = {code: route for code, route in HANDLERS.items() if route.place is Place.COORDINATOR}
    return corpus({code: route.header for code, route in routes.items() if code not in LEFT_OUT})


def name_servers_frames() -> list[bytes]:
    return corpus({code: route.header for code, route in NAMING_HANDLERS.items()})


def grant_frames() -> list[bytes]:
    files = encode_file_requests([FileRequest("log", "", 0, 0), FileRequest("queue", "T", 0, 0)])
    return [
        frame(Command.request(30002, GrantReaderHeader("g", LAYOUT_VERSION_NOW), serialization=2)),
        frame(Command.request(30003, body=files, serialization=2)),
    ]


TARGETS: dict[str, tuple[Callable[[], list[bytes]], Callable[[Broker], str]]] = {
    "coordinator": (coordinators_frames, lambda broker: broker.unix_socket),
    "name server": (name_servers_frames, lambda broker: broker.namesrv_addr.removeprefix("unix:")),
    "grants": (grant_frames, lambda broker: broker.unix_socket.replace(".sock", ".grant.sock")),
}


def bombard(path: str, frames: list[bytes], count: int) -> None:
    """Two mutants behind a good frame on every connection; what is answered within some ms is read."""
    chosen = random.Random(count)
    for _ in range(count // 2):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            data = [chosen.choice(frames), mutate(chosen, frames), mutate(chosen, frames)]
            try:
                connection.sendall(b"".join(data))
                while is_readable(connection.fileno(), 0.002) and connection.recv(1 << 20):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                continue


def processes(broker: Broker) -> dict[int, int]:
    """Private memory by pid."""
    whole = [psutil.Process(broker.pid), *psutil.Process(broker.pid).children(recursive=True)]
    return {process.pid: process.memory_full_info().uss for process in whole}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "count", [400, pytest.param(100_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_mutants_kill_nobody_and_cost_no_memory(broker: Broker, target: str, count: int) -> None:
    make, path = TARGETS[target]
    frames = make()
    bombard(path(broker), frames, count // 3)
    before = processes(broker)
    bombard(path(broker), frames, count)
    after = processes(broker)
    assert after.keys() == before.keys(), "a process died"
    grown = {pid: after[pid] - size for pid, size in before.items()}
    assert max(grown.values()) < GROWTH_BYTES_MAX, grown
    with AdminClient(broker.namesrv_addr) as admin:
        assert admin.cluster_info().broker_addr_table
        admin.broker_runtime_info(broker.tcp_addr)
