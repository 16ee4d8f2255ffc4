"""One connection over a real socket pair and a plain event loop: frames, order, back-pressure, faults."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from shmq.net.connection import Connection
from shmq.net.connection_table import ConnectionTable
from shmq.net.limits import ConnectionLimits
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder


class Far:
    """The other end of a connection, and everything the owner of the near end saw."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.commands: list[Command] = []
        self.closed: list[str | None] = []
        self.counts: dict[str, int] = {}
        self.reply: Callable[[Connection, Command], None] = lambda connection, command: None
        self.limits = limits
        self.table = ConnectionTable(self._on_command, lambda c: None, self._on_close, limits, self._count)

    def _count(self, name: str, n: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + n

    def _on_command(self, connection: Connection, command: Command) -> None:
        self.commands.append(command)
        self.reply(connection, command)

    def _on_close(self, connection: Connection) -> None:
        self.closed.append(connection.close_reason)

    async def open(self) -> None:
        near, self.socket = socket.socketpair()
        self.socket.setblocking(False)
        self.loop = asyncio.get_running_loop()
        self.connection = self.table.make()
        await self.loop.connect_accepted_socket(lambda: self.connection, near)

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.socket, data)
        await asyncio.sleep(0.01)

    async def receive(self, count: int) -> list[Command]:
        decoder, found = FrameDecoder(), []
        while len(found) < count:
            found += [decode_frame(f) for f in decoder.feed(await self.loop.sock_recv(self.socket, 1 << 16))]
        return found


def run(scenario: Callable[[Far], Awaitable[None]], limits: ConnectionLimits | None = None) -> None:
    async def main() -> None:
        far = Far(limits or ConnectionLimits())
        await far.open()
        try:
            await scenario(far)
        finally:
            far.socket.close()
            far.connection.abort("test ends")
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 10))


def frame(n: int, body: bytes = b"") -> bytes:
    return b"".join(bytes(b) for b in encode_command(Command.request(n, body=body)))


def test_commands_arrive_whole_and_in_order_however_the_bytes_are_cut() -> None:
    async def scenario(far: Far) -> None:
        data = b"".join(frame(n, b"x" * n) for n in range(20))
        for start in range(0, len(data), 7):
            await far.loop.sock_sendall(far.socket, data[start : start + 7])
        await asyncio.sleep(0.05)
        assert [c.code for c in far.commands] == list(range(20))
        assert far.connection.peer.is_unix and far.connection.peer.pid > 0

    run(scenario)


def test_replies_of_one_turn_arrive_in_their_order() -> None:
    async def scenario(far: Far) -> None:
        far.reply = lambda connection, command: connection.send(
            command.response(0, body=[b"ab", memoryview(b"cd")])
        )
        await far.send(b"".join(frame(n) for n in range(50)))
        answers = await far.receive(50)
        assert [a.body_bytes() for a in answers] == [b"abcd"] * 50

    run(scenario)


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff" * 4, b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\x08\x09\0\0\x04abcd"]
)
def test_bytes_that_are_no_frame_close_the_connection_and_are_counted(data: bytes) -> None:
    async def scenario(far: Far) -> None:
        await far.send(data)
        assert far.closed and "bad frame" in (far.closed[0] or "")
        assert far.counts["frames_bad"] == 1
        assert len(far.table) == 0

    run(scenario)


def test_a_defect_in_a_handler_costs_its_connection_only() -> None:
    async def scenario(far: Far) -> None:
        def fail(connection: Connection, command: Command) -> None:
            raise ZeroDivisionError

        far.reply = fail
        await far.send(frame(1))
        assert "internal error" in (far.closed[0] or "")

    run(scenario)


def test_a_peer_that_takes_no_replies_is_not_read_from_until_it_does() -> None:
    async def scenario(far: Far) -> None:
        far.reply = lambda connection, command: connection.send(command.response(0, body=bytes(100_000)))
        requests = 100
        await far.send(b"".join(frame(n) for n in range(requests)))
        await asyncio.sleep(0.05)
        assert len(far.commands) < 40
        assert far.connection.waiting_bytes < 3 << 20
        assert len(await far.receive(requests)) == requests
        assert [c.code for c in far.commands] == list(range(requests))
        await far.send(frame(7))
        assert far.commands[-1].code == 7

    run(scenario)


def test_a_peer_whose_pending_replies_pass_the_limit_is_dropped() -> None:
    async def scenario(far: Far) -> None:
        await far.send(frame(1))
        for _ in range(200):
            far.connection.send(far.commands[0].response(0, body=bytes(100_000)))
        await asyncio.sleep(0.05)
        assert far.counts["peers_dropped"] == 1
        assert far.closed == ["peer does not read its replies"]

    run(scenario, ConnectionLimits(write_pause_bytes=1 << 20, write_bytes_max=4 << 20))


def test_close_lets_replies_leave_and_delivers_no_more_commands() -> None:
    async def scenario(far: Far) -> None:
        def last(connection: Connection, command: Command) -> None:
            connection.send(command.response(0, "bye"))
            connection.close("enough")

        far.reply = last
        await far.send(frame(1) + frame(2))
        assert [a.remark for a in await far.receive(1)] == ["bye"]
        assert [c.code for c in far.commands] == [1]
        assert far.closed == ["enough"]
        far.connection.send(far.commands[0].response(0))

    run(scenario)


def test_the_sweep_closes_only_what_was_silent_too_long() -> None:
    async def scenario(far: Far) -> None:
        now = far.loop.time()
        assert far.table.sweep(now + 119) == 0
        (open_one,) = far.table
        assert far.table.sweep(now + 121, {open_one.id}) == 0, "it waits for an answer"
        assert far.table.sweep(now + 121) == 1
        await asyncio.sleep(0.01)
        assert far.closed == ["idle too long"]

    run(scenario)


def test_what_is_answered_under_a_cork_leaves_together_and_in_order() -> None:
    async def scenario(far: Far) -> None:
        await far.send(frame(1))
        request = far.commands[0]
        with far.table.outbox:
            for n in range(3):
                far.connection.send(request.response(n))
            with far.table.outbox:
                far.connection.send(request.response(3))
            await asyncio.sleep(0.01)
            with pytest.raises(BlockingIOError):
                far.socket.recv(10)
        assert [decode_frame(f).code for f in FrameDecoder().feed(far.socket.recv(1 << 16))] == [0, 1, 2, 3]
        far.connection.send(request.response(4))
        assert [a.code for a in await far.receive(1)] == [4]

    run(scenario)


def test_a_cork_does_not_hold_back_more_than_the_peer_may_have_waiting() -> None:
    async def scenario(far: Far) -> None:
        await far.send(frame(1))
        with far.table.outbox:
            for _ in range(30):
                far.connection.send(far.commands[0].response(0, body=bytes(100_000)))
            assert far.socket.recv(1 << 16)

    run(scenario)
