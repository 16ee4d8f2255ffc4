"""The channel to a name server: a connection that ends while it is being made is not kept."""

from __future__ import annotations

import asyncio

import pytest

from shmq.base.errors import ShmqError
from shmq.coordinator.namesrv_channel import NamesrvChannel
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command, Serialization, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder


async def _answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request with success."""
    decoder = FrameDecoder()
    while data := await reader.read(65536):
        for frame in decoder.feed(data):
            answer = decode_frame(frame).response(ResponseCode.SUCCESS)
            writer.write(b"".join(bytes(part) for part in encode_command(answer)))
    writer.close()


def request() -> Command:
    return Command.request(106, serialization=Serialization.JSON)


def test_a_connection_that_was_lost_while_it_was_made_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        server = await asyncio.start_server(_answering, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        channel = NamesrvChannel(f"127.0.0.1:{port}", lambda: None)
        connect = channel._connect
        lost = []

        async def losing():  # type: ignore[no-untyped-def]
            made = await connect()
            if not lost:
                made.abort("the other side went away")
                await asyncio.sleep(0.05)
                lost.append(made)
            return made

        monkeypatch.setattr(channel, "_connect", losing)
        with pytest.raises(ShmqError):
            await channel.call(request(), 0.5)
        assert (await channel.call(request(), 5)).code == ResponseCode.SUCCESS
        channel.close()
        server.close()

    asyncio.run(run())
