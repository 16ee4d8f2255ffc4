"""Large frames are read right into their memory: on both event loops, between small ones, and when the peer
or the handler ends it in the middle."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from shmq.net.connection import Connection
from shmq.net.connection_table import ConnectionTable
from shmq.net.frame_filler import DIRECT_BYTES
from shmq.net.limits import ConnectionLimits
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Near:
    """The served end, and what its owner saw."""

    def __init__(self, on_command: Callable[[Connection, Command], None] | None = None) -> None:
        self.bodies: list[bytes] = []
        self.closed = asyncio.Event()
        self.reason: str | None = None
        self.changed = asyncio.Event()
        self._also = on_command
        limits = ConnectionLimits(write_pause_bytes=1 << 16, write_resume_bytes=1 << 12)
        self._table = ConnectionTable(self._take, lambda c: None, self._close, limits, lambda name, n: None)

    def _take(self, connection: Connection, command: Command) -> None:
        body = command.body
        self.bodies.append(b"" if body is None else bytes(body))
        if self._also is not None:
            self._also(connection, command)
        self.changed.set()

    def _close(self, connection: Connection) -> None:
        self.reason = connection.close_reason
        self.closed.set()
        self.changed.set()

    async def open(self) -> socket.socket:
        near, far = socket.socketpair()
        far.setblocking(False)
        self.connection = self._table.make()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self.connection, near)
        return far

    async def until(self, done: Callable[[], bool]) -> None:
        while not done():
            self.changed.clear()
            if not done():
                await self.changed.wait()


def run(loop_name: str, scenario: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(asyncio.wait_for(scenario(), 20))


def frame(body: bytes) -> bytes:
    return b"".join(bytes(b) for b in encode_command(Command.request(10, body=body)))


both_loops = pytest.mark.parametrize("loop_name", LOOPS)


@both_loops
@pytest.mark.parametrize("seed", range(6))
def test_large_and_small_frames_arrive_whole_and_in_order_however_they_are_cut(
    loop_name: str, seed: int
) -> None:
    rng = random.Random(seed)
    sizes = [rng.choice((0, 1, 300, DIRECT_BYTES - 1, DIRECT_BYTES, 100_000, 900_000)) for _ in range(25)]
    wanted = [rng.randbytes(size) for size in sizes]
    stream = b"".join(map(frame, wanted))

    async def scenario() -> None:
        near = Near()
        far = await near.open()
        loop = asyncio.get_running_loop()
        position = 0
        while position < len(stream):
            size = rng.choice((1, 7, 5_000, 70_000, 1_500_000))
            await loop.sock_sendall(far, stream[position : position + size])
            position += size
        await near.until(lambda: len(near.bodies) == len(wanted))
        assert near.bodies == wanted
        far.close()
        await near.closed.wait()

    run(loop_name, scenario)


@both_loops
def test_the_rest_of_a_large_frame_does_not_pass_the_protocol_s_own_buffer(loop_name: str) -> None:
    async def scenario() -> None:
        near = Near()
        far = await near.open()
        fed = 0
        feed = FrameDecoder.feed

        def counted(self: FrameDecoder, data: bytes) -> list[memoryview]:
            nonlocal fed
            fed += len(data)
            return feed(self, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FrameDecoder, "feed", counted)
            await asyncio.get_running_loop().sock_sendall(far, frame(bytes(3 << 20)))
            await near.until(lambda: len(near.bodies) == 1)
        assert fed < 1 << 20
        far.close()

    run(loop_name, scenario)


@both_loops
def test_a_peer_that_leaves_in_a_large_frame_is_closed_once(loop_name: str) -> None:
    async def scenario() -> None:
        near = Near()
        far = await near.open()
        await asyncio.get_running_loop().sock_sendall(far, frame(bytes(1 << 20))[:-1])
        far.close()
        await near.closed.wait()
        assert near.bodies == [] and near.reason == "peer closed"

    run(loop_name, scenario)


@both_loops
def test_bytes_that_are_no_frame_behind_a_large_one_close_the_connection(loop_name: str) -> None:
    async def scenario() -> None:
        near = Near()
        far = await near.open()
        stream = frame(bytes(1 << 20)) + b"\xff" * 8
        await asyncio.get_running_loop().sock_sendall(far, stream)
        await near.closed.wait()
        assert len(near.bodies) == 1 and near.reason is not None and near.reason.startswith("bad frame")
        far.close()

    run(loop_name, scenario)


@both_loops
def test_a_handler_may_close_at_a_large_frame(loop_name: str) -> None:
    async def scenario() -> None:
        near = Near(lambda connection, command: connection.abort("enough"))
        far = await near.open()
        await asyncio.get_running_loop().sock_sendall(far, frame(bytes(1 << 20)))
        await near.closed.wait()
        assert len(near.bodies) == 1 and near.reason == "enough"
        far.close()

    run(loop_name, scenario)


@both_loops
def test_a_peer_that_takes_no_replies_is_not_read_from_in_a_large_frame_either(loop_name: str) -> None:
    """Replies that fill the peer's buffers pause its reading; its next large frame comes when it reads."""
    reply = bytes(400_000)

    async def scenario() -> None:
        near = Near(lambda connection, command: connection.send(Command.request(1, body=reply)))
        far = await near.open()
        loop = asyncio.get_running_loop()
        count = 12
        sending = asyncio.ensure_future(loop.sock_sendall(far, frame(bytes(200_000)) * count))
        await near.until(lambda: near.connection.is_congested)
        assert len(near.bodies) < count
        decoder, found = FrameDecoder(), 0
        while found < count:
            for raw in decoder.feed(await loop.sock_recv(far, 1 << 16)):
                assert decode_frame(raw).body == reply
                found += 1
        await sending
        assert near.bodies == [bytes(200_000)] * count
        far.close()

    run(loop_name, scenario)
