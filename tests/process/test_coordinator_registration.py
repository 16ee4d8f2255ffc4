"""A real coordinator and real name servers in threads of the test: registering, again and again; leaving."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shmq.model.route import TopicRoute
from shmq.model.settings import NamesrvSettings
from shmq.naming.name_server import NameServer
from shmq.net.listener import bind_tcp, bind_unix
from shmq.protocol.bodies.route import decode_route
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder
from shmq.protocol.headers.admin import CreateTopicHeader
from shmq.protocol.headers.naming import GetRouteInfoHeader
from tests.helpers.coordinator_rig import SMALL, CoordinatorRig
from tests.helpers.waiting import wait_until


class NamingThread:
    """A name server on one listening socket."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._loop = asyncio.new_event_loop()
        self._server = NameServer(NamesrvSettings())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server.start(self._loop, [self._listening])
        self._loop.run_forever()
        self._server.stop()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._listening.close()


def route(address: tuple[str, int] | str, topic: str) -> TopicRoute | None:
    """What a client hears of a topic; None when nothing."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(5)
        sock.connect(address)
        request = Command.request(RequestCode.GET_ROUTEINFO_BY_TOPIC, GetRouteInfoHeader(topic))
        sock.sendall(b"".join(bytes(part) for part in encode_command(request)))
        decoder, frames = FrameDecoder(), list[memoryview]()
        while not frames:
            frames = decoder.feed(sock.recv(1 << 16))
        answer = decode_frame(frames[0])
    return decode_route(answer.body) if answer.code == ResponseCode.SUCCESS else None


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


@pytest.fixture
def rig(tmp_path: Path, port: int) -> Iterator[CoordinatorRig]:
    addresses = f"127.0.0.1:{port};unix:{tmp_path / 'ns.sock'};127.0.0.1:1"
    made = CoordinatorRig(tmp_path, replace(SMALL, namesrv_addr=addresses))
    try:
        yield made
    finally:
        made.close()


@pytest.mark.long
def test_every_name_server_knows_the_broker_until_it_leaves(
    rig: CoordinatorRig, tmp_path: Path, port: int
) -> None:
    tcp, unix = ("127.0.0.1", port), str(tmp_path / "ns.sock")
    servers = [NamingThread(bind_tcp(*tcp)), NamingThread(bind_unix(Path(unix)))]
    try:
        rig.start()
        for address in (tcp, unix):
            found = wait_until(lambda address=address: route(address, "TBW102"), 10, "TBW102 registered")
            assert found.broker_datas[0].broker_addrs == {0: "127.0.0.1:10911"}
            assert found.broker_datas[0].unix_socket == str(tmp_path / "rig.sock")
            assert (found.queue_datas[0].perm, found.queue_datas[0].write_queue_nums) == (7, 8)
        worker = rig.worker()
        header = CreateTopicHeader("orders", "TBW102", 3, 3, 6)
        assert worker.forward(1, RequestCode.UPDATE_AND_CREATE_TOPIC, header).code == 0
        for address in (tcp, unix):
            known = route(address, "orders")
            assert known is not None and known.queue_datas[0].read_queue_nums == 3
        assert rig.stop() == 0
        for address in (tcp, unix):
            assert route(address, "TBW102") is None
    finally:
        for server in servers:
            server.stop()


@pytest.mark.long
def test_topics_made_in_the_same_moment_are_all_known(rig: CoordinatorRig, tmp_path: Path, port: int) -> None:
    """A name server ignores a registration whose DataVersion it has: topics must not share one."""
    server = NamingThread(bind_tcp("127.0.0.1", port))
    try:
        rig.start()
        wait_until(lambda: route(("127.0.0.1", port), "TBW102"), 10, "registered")
        worker = rig.worker()
        forwards = [
            worker.start_forward(
                1,
                Command.request(
                    RequestCode.UPDATE_AND_CREATE_TOPIC, CreateTopicHeader(f"t{n}", "TBW102", 1, 1, 6)
                ),
            )
            for n in range(30)
        ]
        assert {worker.finish(forward).code for forward in forwards} == {0}
        unknown = [n for n in range(30) if route(("127.0.0.1", port), f"t{n}") is None]
        assert unknown == []
    finally:
        server.stop()


@pytest.mark.long
def test_a_name_server_that_was_away_is_told_again_soon(rig: CoordinatorRig, port: int) -> None:
    address = ("127.0.0.1", port)
    rig.start()
    worker = rig.worker()
    header = CreateTopicHeader("orders", "TBW102", 3, 3, 6)
    assert worker.forward(1, RequestCode.UPDATE_AND_CREATE_TOPIC, header).code == 0
    for _ in range(2):
        server = NamingThread(bind_tcp(*address))
        try:
            wait_until(lambda: route(address, "orders"), 10, "orders registered")
        finally:
            server.stop()
