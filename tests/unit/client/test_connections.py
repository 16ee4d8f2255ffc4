"""Channels and links against a scripted server: answers, time-outs, hang-ups, pushed requests."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmq.base.errors import BrokerError, FrameFault
from shmq.client.addresses import Address
from shmq.client.channel import Channel, ChannelPool
from shmq.client.config import ClientConfig
from shmq.client.core_sharing import SAMPLE
from shmq.client.duplex import DuplexChannel
from shmq.client.errors import ConnectFailed, RemotingError, RemotingTimeout
from shmq.client.links import BrokerLink
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, Serialization, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder
from tests.helpers.waiting import wait_until

CORES = os.sched_getaffinity(0)
Answer = Callable[[socket.socket, Command], None]


def reply(connection: socket.socket, command: Command, body: bytes = b"") -> None:
    """Answer with success."""
    response = command.response(ResponseCode.SUCCESS, body=body)
    connection.sendall(b"".join(bytes(part) for part in encode_command(response)))


class Server:
    """A Unix server that does with each request what the test says."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path = str(path)
        self.answer = answer
        self.received: list[Command] = []
        self.connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        decoder = FrameDecoder()
        with contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                for frame in decoder.feed(data):
                    command = decode_frame(frame)
                    self.received.append(command)
                    self.answer(connection, command)

    def hang_up(self) -> None:
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "server.sock", reply)
    yield made
    made.close()


def request(body: bytes | None = None) -> Command:
    return Command.request(RequestCode.GET_BROKER_RUNTIME_INFO, None, body)


def test_a_channel_sends_and_reads_in_the_calling_thread(server: Server) -> None:
    channel = Channel(Address(server.path), 1.0)
    for size in (1, 15_000, 20_000, 3_000_000):
        server.answer = lambda connection, command, size=size: reply(connection, command, b"x" * size)  # type: ignore[misc]
        response = channel.call(request(b"y" * size), 5.0)
        assert response.body_bytes() == b"x" * size
    assert {command.serialization for command in server.received} == {Serialization.CBOR}
    channel.close()


def test_an_answer_in_small_pieces_is_put_together(server: Server) -> None:
    def dribble(connection: socket.socket, command: Command) -> None:
        whole = b"".join(bytes(p) for p in encode_command(command.response(0, body=b"0123456789")))
        for start in range(0, len(whole), 5):
            connection.sendall(whole[start : start + 5])
            time.sleep(0.001)

    server.answer = dribble
    channel = Channel(Address(server.path), 1.0)
    assert channel.call(request(), 5.0).body_bytes() == b"0123456789"
    channel.close()


def test_no_answer_in_time_ends_the_channel(server: Server) -> None:
    server.answer = lambda connection, command: None
    channel = Channel(Address(server.path), 1.0)
    started = time.monotonic()
    with pytest.raises(RemotingTimeout, match="100 ms"):
        channel.call(request(), 0.1)
    assert 0.05 < time.monotonic() - started < 2 and channel.closed


@pytest.mark.parametrize("garbage", [b"\0\0\0\1", b"\xff" * 64, b"\0\0\0\x08\x02\0\0\x04\xff\xff\xff\xff"])
def test_garbage_ends_the_channel(server: Server, garbage: bytes) -> None:
    def answer(connection: socket.socket, command: Command) -> None:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)

    server.answer = answer
    channel = Channel(Address(server.path), 1.0)
    with pytest.raises((FrameFault, RemotingError)):
        channel.call(request(), 1.0)
    assert channel.closed


def test_the_pool_reuses_channels_and_replaces_dead_ones(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shmq.client.channel.IDLE_CHECK_S", 0.0)
    pool = ChannelPool(lambda: Channel(Address(server.path), 1.0))
    for _ in range(5):
        pool.call(request(), 1.0)
    assert len(server.connections) == 1
    server.hang_up()
    wait_until(lambda: not pool._idle[0].is_alive())
    pool.call(request(), 1.0)
    assert len(server.connections) == 2
    pool.close()


def test_a_channel_lives_whatever_its_descriptors_number_is(server: Server) -> None:
    """select() knows none above 1023, and a program may have thousands of clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    channel = Channel(Address(server.path), 1.0)
    first = channel._sock
    try:
        channel._sock = socket.socket(fileno=fcntl.fcntl(first.fileno(), fcntl.F_DUPFD_CLOEXEC, 1500))
        assert channel.is_alive()
        wait_until(lambda: server.connections)
        server.hang_up()
        wait_until(lambda: not channel.is_alive())
    finally:
        first.close()
        channel.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_channel_that_shares_a_core_breaks_like_any_other(server: Server) -> None:
    """Each of the first calls may be the one after which the worker is asked."""
    channel = Channel(Address(server.path), 1.0, shares_core=True)
    for _ in range(2 * SAMPLE):
        channel.call(request(), 1.0)
    assert RequestCode.SHARE_CORE in {command.code for command in server.received}
    server.hang_up()
    with pytest.raises(RemotingError):
        channel.call(request(), 2.0)
    assert channel.closed and os.sched_getaffinity(0) == CORES


def test_a_worker_that_hangs_up_when_asked_costs_the_channel_and_no_answer(server: Server) -> None:
    def answer(connection: socket.socket, command: Command) -> None:
        if command.code == RequestCode.SHARE_CORE:
            connection.shutdown(socket.SHUT_RDWR)
        else:
            reply(connection, command)

    server.answer = answer
    pool = ChannelPool(lambda: Channel(Address(server.path), 1.0, shares_core=True))
    for _ in range(3 * SAMPLE):
        assert pool.call(request(), 1.0).code == ResponseCode.SUCCESS
    assert len(server.connections) > 1
    pool.close()


@pytest.mark.parametrize(("idle_close_s", "connections"), [(None, 2), (math.inf, 1)])
def test_a_channel_that_rested_is_used_again_only_where_its_server_lets_it_rest(
    server: Server, idle_close_s: float | None, connections: int
) -> None:
    kept = () if idle_close_s is None else (idle_close_s,)
    pool = ChannelPool(lambda: Channel(Address(server.path), 1.0), *kept)
    pool.call(request(), 1.0)
    pool._idle[0].idle_since -= 1000
    pool.call(request(), 1.0)
    assert len(server.connections) == connections
    pool.close()


def test_a_broken_pipe_is_a_remoting_error(server: Server) -> None:
    server.answer = lambda connection, command: connection.shutdown(socket.SHUT_RDWR)
    pool = ChannelPool(lambda: Channel(Address(server.path), 1.0))
    with pytest.raises(RemotingError):
        pool.call(request(), 1.0)


def make_duplex(server: Server, pushed: list[Command], closed: list[bool]) -> DuplexChannel:
    return DuplexChannel(
        Address(server.path),
        1.0,
        None,
        on_request=lambda channel, command: pushed.append(command),
        on_close=lambda channel: closed.append(True),
    )


def test_many_requests_share_a_duplex_channel_and_answers_may_come_in_any_order(server: Server) -> None:
    held: list[tuple[socket.socket, Command]] = []
    server.answer = lambda connection, command: held.append((connection, command))
    channel = make_duplex(server, [], [])
    got: dict[int, bytes] = {}
    for number in range(10):

        def done(response: Command | None, error: Exception | None, number: int = number) -> None:
            assert response is not None and error is None
            got[number] = response.body_bytes()

        channel.send(request(b"%d" % number), 5.0, done)
    wait_until(lambda: len(held) == 10)
    for connection, command in reversed(held):
        reply(connection, command, b"answer " + command.body_bytes())
    wait_until(lambda: len(got) == 10)
    assert got == {number: b"answer %d" % number for number in range(10)}
    channel.close()


def test_pushed_requests_are_handed_on_even_with_an_opaque_in_use(server: Server) -> None:
    def push_first(connection: socket.socket, command: Command) -> None:
        push = Command.request(RequestCode.NOTIFY_CONSUMER_IDS_CHANGED, oneway=True)
        push.opaque = command.opaque
        connection.sendall(b"".join(bytes(p) for p in encode_command(push)))
        reply(connection, command)

    server.answer = push_first
    pushed: list[Command] = []
    channel = make_duplex(server, pushed, [])
    assert channel.call(request(), 5.0).code == ResponseCode.SUCCESS
    assert [command.code for command in pushed] == [RequestCode.NOTIFY_CONSUMER_IDS_CHANGED]
    channel.close()


def test_a_lost_connection_fails_everything_under_way_once(server: Server) -> None:
    server.answer = lambda connection, command: None
    closed: list[bool] = []
    channel = make_duplex(server, [], closed)
    errors: list[Exception | None] = []
    for _ in range(3):
        channel.send(request(), 30.0, lambda response, error: errors.append(error))
    wait_until(lambda: len(server.received) == 3)
    server.hang_up()
    wait_until(lambda: len(errors) == 3 and channel.closed)
    assert all(isinstance(error, RemotingError) for error in errors)
    channel.send(request(), 30.0, lambda response, error: errors.append(error))
    assert len(errors) == 4
    wait_until(lambda: closed == [True])


def test_a_request_over_its_time_fails_and_its_late_answer_is_dropped(server: Server) -> None:
    late: list[tuple[socket.socket, Command]] = []
    server.answer = lambda connection, command: late.append((connection, command))
    channel = make_duplex(server, [], [])
    errors: list[Exception | None] = []
    channel.send(request(), 0.05, lambda response, error: errors.append(error))
    wait_until(lambda: len(errors) == 1, limit_s=5)
    assert isinstance(errors[0], RemotingTimeout)
    reply(*late[0])
    server.answer = reply
    assert channel.call(request(), 5.0).code == ResponseCode.SUCCESS
    assert len(errors) == 1
    channel.close()


def make_link(unix_socket: str | None, tcp: str, announced: list[str], **settings: object) -> BrokerLink:
    config = ClientConfig(**settings)  # type: ignore[arg-type]
    return BrokerLink(
        "broker-a",
        0,
        tcp,
        unix_socket,
        config,
        on_request=lambda link, command: None,
        on_connected=lambda link, channel: announced.append(str(channel.address)),
        on_lost=lambda link: announced.append("lost"),
    )


def test_what_is_asked_now_and_then_needs_no_connection_of_its_own(server: Server) -> None:
    link = make_link(server.path, "127.0.0.1:1", [])
    link.duplex()
    count = len(server.connections)
    assert link.request_over_duplex(request(), 1.0).code == ResponseCode.SUCCESS
    server.answer = lambda connection, command: connection.sendall(
        b"".join(bytes(part) for part in encode_command(command.response(17, "no")))
    )
    with pytest.raises(BrokerError, match="no"):
        link.request_over_duplex(request(), 1.0)
    assert len(server.connections) == count
    link.close()


def test_a_link_prefers_the_unix_socket_and_announces_itself_once(server: Server) -> None:
    announced: list[str] = []
    link = make_link(server.path, "127.0.0.1:1", announced)
    assert link.is_local and link.request(request(), 1.0).code == ResponseCode.SUCCESS
    assert not link.has_duplex and link.duplex() is link.duplex() and link.has_duplex
    assert announced == [f"unix:{server.path}"]
    server.hang_up()
    wait_until(lambda: "lost" in announced)
    link.duplex()
    assert announced.count(f"unix:{server.path}") == 2
    link.close()
    with pytest.raises(ConnectFailed):
        link.duplex()


@pytest.mark.parametrize(
    ("unix", "tcp", "settings"),
    [
        ("/nowhere/broker.sock", "127.0.0.1:{port}", {}),
        ("{path}", "127.0.0.1:{port}", {"use_unix_socket": False}),
        (None, "127.0.0.1:{port}", {}),
    ],
    ids=["no such socket", "switched off", "no socket named"],
)
def test_otherwise_a_link_uses_tcp_and_json(
    server: Server, unix: str | None, tcp: str, settings: dict[str, object]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        received: list[Command] = []

        def serve() -> None:
            connection, _ = listener.accept()
            frame = connection.recv(65536)
            received.append(decode_frame(frame))
            connection.sendall(b"".join(bytes(p) for p in encode_command(received[0].response(17, "no"))))

        threading.Thread(target=serve, daemon=True).start()
        path = unix.format(path=server.path) if unix else None
        link = make_link(path, tcp.format(port=port), [], **settings)
        with pytest.raises(BrokerError) as caught:
            link.request(request(), 5.0)
        assert caught.value.code == 17 and not link.is_local
        assert received[0].serialization == Serialization.JSON
        link.close()


def test_a_socket_of_the_same_name_on_this_host_is_not_the_remote_brokers(server: Server) -> None:
    link = make_link(server.path, "192.0.2.1:10911", [], connect_timeout_ms=50)
    with pytest.raises(ConnectFailed):
        link.request(request(), 0.1)
    assert not server.connections


def test_only_who_made_the_connection_knows_what_it_announced(server: Server) -> None:
    """Another thread that has waited for it cannot: what that thread has to say may be newer."""
    announcing, may_end, found = threading.Event(), threading.Event(), []
    link = make_link(server.path, "127.0.0.1:1", [])

    def announce(link: BrokerLink, channel: DuplexChannel) -> None:
        announcing.set()
        assert may_end.wait(10)

    link._on_connected = announce
    threads = [threading.Thread(target=lambda: found.append(link.announced_duplex()[1])) for _ in range(2)]
    threads[0].start()
    assert announcing.wait(10)
    threads[1].start()
    may_end.set()
    for thread in threads:
        thread.join(10)
    assert sorted(found) == [False, True]
    link.close()


def test_why_a_unix_socket_is_not_used_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("shmq.base.log.event", lambda log, level, name, **facts: said.append(name))
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(tmp_path / "broker.sock"))  # and does not listen: the broker is down
    link = make_link(str(tmp_path / "broker.sock"), "127.0.0.1:1", [])
    for _ in range(3):
        with pytest.raises(ConnectFailed):
            link.duplex()
    assert said == ["unix_socket_not_used"]
