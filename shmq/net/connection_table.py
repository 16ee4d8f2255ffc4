"""The connections of one process: makes them, counts them, closes the silent ones.

Lives in the event loop of its process (worker, coordinator, NameServer); no locks.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from shmq.net.connection import Connection, Count, OnClose, OnCommand, OnOpen, Traffic
from shmq.net.limits import ConnectionLimits
from shmq.net.outbox import Outbox

SWEEP_INTERVAL_S = 10.0
"""How often the owner should call ``sweep``; RocketMQ scans its channels at the same pace."""


class ConnectionTable:
    """All open connections by id. ``make`` is the protocol factory for asyncio."""

    def __init__(
        self,
        on_command: OnCommand,
        on_open: OnOpen,
        on_close: OnClose,
        limits: ConnectionLimits,
        count: Count,
        outbox: Outbox | None = None,
    ) -> None:
        """Bind what every connection of this process shares."""
        self._on_command = on_command
        self._on_open = on_open
        self._on_close = on_close
        self._limits = limits
        self._count = count
        self.traffic = Traffic()
        self.outbox = outbox or Outbox()
        self._by_id: dict[int, Connection] = {}

    def make(self) -> Connection:
        """Make the protocol of a connection that is about to open."""
        connection = Connection(
            self._on_command,
            self._forget,
            self._limits,
            on_open=self._on_open,
            count=self._count,
            traffic=self.traffic,
            outbox=self.outbox,
        )
        self._by_id[connection.id] = connection
        return connection

    def _forget(self, connection: Connection) -> None:
        """Take a closed connection out, then tell the owner."""
        self._by_id.pop(connection.id, None)
        self._on_close(connection)

    def discard(self, connection: Connection) -> None:
        """Take out a connection that was made, but whose socket broke before it opened."""
        self._by_id.pop(connection.id, None)

    def get(self, connection_id: int) -> Connection | None:
        """Return the open connection of this id, or None when it has gone."""
        return self._by_id.get(connection_id)

    def __len__(self) -> int:
        """Count the connections, those still being greeted included."""
        return len(self._by_id)

    def __iter__(self) -> Iterator[Connection]:
        """Walk over a snapshot, so that the body may close connections."""
        return iter(list(self._by_id.values()))

    def sweep(self, now_s: float, spared: Set[int] = frozenset()) -> int:
        """Close connections without any read or write for the idle limit; return how many.

        Those whose ids are `spared` wait for something, and are silent therefore.
        """
        deadline_s = now_s - self._limits.idle_s
        silent = [c for c in self._by_id.values() if 0.0 < c.last_active_s < deadline_s]
        silent = [connection for connection in silent if connection.id not in spared]
        for connection in silent:
            connection.abort("idle too long")
        if silent:
            self._count("connections_idle", len(silent))
        return len(silent)

    def close_all(self, reason: str) -> None:
        """Close every connection after its last reply has left."""
        for connection in self:
            connection.close(reason)
