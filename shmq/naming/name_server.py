"""NameServer: routes for clients, registrations of brokers. One event loop; on disk only the KV settings.

Runs in a thread of the supervisor (`supervisor/naming_service.py`) or alone (`shmq-namesrv`). It knows only
what living brokers told it: after a restart every broker registers again within its period, so its crash
costs clients nothing but new routes for that long.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from shmq.base import log
from shmq.base.clock import monotonic_ms
from shmq.base.errors import RequestNotSupported, ShmqError
from shmq.model.settings import NamesrvSettings
from shmq.naming.kv_config import KvConfig
from shmq.naming.registrations import Registrations
from shmq.naming.route_table import RouteTable
from shmq.naming.state import NamingState
from shmq.naming.table import HANDLERS
from shmq.net.connection import Connection
from shmq.net.limits import ConnectionLimits
from shmq.net.listener import serve
from shmq.protocol.command import Command

_logger = log.get("shmq.naming")


class NameServer:
    """One name server; everything runs in the loop given to `start`."""

    def __init__(self, settings: NamesrvSettings, kept_broker: tuple[str, str] | None = None) -> None:
        """Load the KV configuration. StoreDamaged when its file cannot be read.

        `kept_broker`: (cluster, address) of the broker this name server lives and dies with.
        """
        table = RouteTable()
        self.state = NamingState(
            settings=settings,
            kv=KvConfig(kv_config_file(settings)),
            table=table,
            registrations=Registrations(
                table, settings.delete_topic_with_broker_registration, kept=kept_broker
            ),
            started_ms=monotonic_ms(),
        )
        self._limits = ConnectionLimits(
            frame_bytes_max=settings.max_frame_size, idle_s=settings.server_channel_max_idle_time_seconds
        )
        self._connections: set[Connection] = set()
        self._stop_accepting: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scan: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop, listening: Iterable[socket.socket]) -> None:
        """Accept on the listening sockets as soon as the loop runs."""
        self._loop = loop
        self._stop_accepting = [serve(loop, one, self._new_connection) for one in listening]
        self._look_for_silent()

    def stop(self) -> None:
        """Stop accepting and close every connection. The loop may end after its next turn."""
        for stop_accepting in self._stop_accepting:
            stop_accepting()
        self._stop_accepting.clear()
        if self._scan is not None:
            self._scan.cancel()
        for connection in list(self._connections):
            connection.close("name server stops")

    # -- called by the loop --------------------------------------------------------------------------------

    def _new_connection(self) -> Connection:
        connection = Connection(self._on_command, self._on_close, self._limits)
        self._connections.add(connection)
        return connection

    def _on_close(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.state.registrations.connection_closed(connection.id)

    def _on_command(self, connection: Connection, command: Command) -> None:
        """Answer one request; a response nobody asked for is dropped."""
        if command.is_response:
            return
        try:
            answer = self._answer(connection, command)
        except ShmqError as fault:
            answer = command.refusal(fault)
        if not command.is_oneway:
            connection.send(answer)

    def _answer(self, connection: Connection, command: Command) -> Command:
        route = HANDLERS.get(command.code)
        if route is None:
            raise RequestNotSupported(f"request type {command.code} not supported by a name server")
        header = None if route.header is None else command.read_header(route.header)
        return route.handle(self.state, connection, command, header)

    def _look_for_silent(self) -> None:
        """Expire silent brokers and close silent TCP connections, again and again."""
        assert self._loop is not None
        self.state.registrations.expire(monotonic_ms())
        oldest = self._loop.time() - self._limits.idle_s
        for connection in list(self._connections):
            if not connection.peer.is_unix and connection.last_active_s < oldest:
                log.event(_logger, logging.INFO, "connection_idle", peer=connection.peer.text)
                connection.close("silent for too long")
        period_s = self.state.settings.scan_not_active_broker_interval / 1000
        self._scan = self._loop.call_later(period_s, self._look_for_silent)


def kv_config_file(settings: NamesrvSettings) -> Path:
    """Where the KV configuration is kept."""
    if settings.kv_config_path:
        return Path(settings.kv_config_path).expanduser()
    return Path.home() / ".local" / "share" / "shmq" / "namesrv" / "kvConfig.json"
