"""Reads the rest of one large frame from the socket right into its memory.

An event loop reads into a buffer of its own, makes bytes of that, and the frame decoder puts those together:
two copies of every byte of a batch. So while a large frame is unfinished, its connection has the transport
use this protocol instead of itself. In the event loop's thread, like the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shmq.protocol.frame import FrameDecoder

DIRECT_BYTES = 32 << 10
"""So many missing bytes are worth two changes of the transport's protocol."""


class FrameFiller(asyncio.BufferedProtocol):
    """Fills an unfinished frame of `decoder`; what is not data goes to the connection as ever."""

    def __init__(
        self, connection: asyncio.Protocol, decoder: FrameDecoder, arrived: Callable[[int], None]
    ) -> None:
        """``arrived(n)`` is told of each read, and takes the transport back when the frame is whole."""
        self._connection = connection
        self._decoder = decoder
        self._arrived = arrived

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go: never nothing, as the frame is unfinished."""
        return self._decoder.room

    def buffer_updated(self, nbytes: int) -> None:
        """So many of them arrived."""
        self._arrived(nbytes)

    def eof_received(self) -> bool | None:
        """The peer sends no more: the frame stays unfinished."""
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer does not read its replies."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._connection.resume_writing()
