"""One name server: a connection that is made when needed and kept open, and requests over it.

Addresses are `host:port` or `unix:/path`. Requests of one channel are sent in the order they were made.
Coordinator's loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shmq.base.errors import RemoteFault, Unavailable
from shmq.net.connection import Connection
from shmq.net.limits import ConnectionLimits
from shmq.protocol.command import Command

CONNECT_LIMIT_S = 3.0
_LIMITS = ConnectionLimits(idle_s=float("inf"))


class NamesrvChannel:
    """The way to one name server."""

    def __init__(self, address: str, on_lost: Callable[[], None]) -> None:
        """Name the server; nothing is opened yet. `on_lost` is called when its connection ends."""
        self.address = address
        self._on_lost = on_lost
        self.registered = False
        """Whether the server has taken a full registration over the present connection."""
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[Command]] = {}

    async def call(self, request: Command, limit_s: float) -> Command:
        """Send a request and await its answer. Unavailable: not reached, or no answer in time."""
        answer: asyncio.Future[Command] = asyncio.get_running_loop().create_future()
        self._waiting[request.opaque] = answer
        try:
            async with asyncio.timeout(limit_s):
                connection = await self._connected()
                connection.send(request)
                command = await answer
            if connection is not self._connection:
                raise RemoteFault(f"name server {self.address} answered and closed the connection")
            return command
        except TimeoutError:
            raise Unavailable(f"name server {self.address} did not answer within {limit_s:g} s") from None
        except OSError as error:
            raise Unavailable(f"name server {self.address} cannot be reached: {error}") from None
        finally:
            self._waiting.pop(request.opaque, None)

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is None or not self._connection.is_open:  # it may end while it is being made
                async with asyncio.timeout(CONNECT_LIMIT_S):
                    self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self.address.startswith("unix:"):
            _, unix = await loop.create_unix_connection(self._make, self.address.removeprefix("unix:"))
            return unix
        host, _, port = self.address.rpartition(":")
        _, tcp = await loop.create_connection(self._make, host.strip("[]"), int(port))
        return tcp

    def _make(self) -> Connection:
        return Connection(self._on_command, self._on_close, _LIMITS)

    def _on_command(self, connection: Connection, command: Command) -> None:
        """Take an answer; requests of a name server (905 and the like) are of no use here."""
        del connection
        waiting = self._waiting.get(command.opaque) if command.is_response else None
        if waiting is not None and not waiting.done():
            waiting.set_result(command)

    def _on_close(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connection = None
            if self.registered:
                self.registered = False
                self._on_lost()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(RemoteFault(f"name server {self.address} closed the connection"))

    def close(self) -> None:
        """Close the connection. Twice is harmless."""
        if self._connection is not None:
            self._connection.close("broker stops")
