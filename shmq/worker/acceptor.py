"""Accept connections on the shared fronts and spread them over the workers.

Runs in the worker's event loop: every worker watches the same listening sockets, whoever wakes first accepts.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

from shmq.base import log
from shmq.net.connection import Connection
from shmq.net.connection_table import ConnectionTable
from shmq.net.listener import accept_some
from shmq.worker.handoff import Handoff, Spread

_logger = log.get(__name__)

RETRY_S = 1.0
"""Pause after an accept that failed for want of descriptors or memory."""


class Acceptor:
    """Owns the listening sockets and the hand-off; makes Connections of what stays here."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[socket.socket],
        handoff: Handoff,
        spread: Spread,
        table: ConnectionTable,
        *,
        own: int,
        connections_max: int,
        publish: Callable[[int], None],
        count_taken_over: Callable[[int], None],
        count: Callable[[str, int], None],
    ) -> None:
        """``publish(connections)`` stores this worker's page word.

        ``count_taken_over(n)`` adds to its page counter at once: other workers look there to see what they
        sent arrive.
        """
        self._loop = loop
        self._listeners = listeners
        self._handoff = handoff
        self._spread = spread
        self._table = table
        self._own = own
        self._connections_max = connections_max
        self._publish = publish
        self._count = count
        self._count_taken_over = count_taken_over
        self._greeting: set[asyncio.Task[None]] = set()
        self._stopped = True

    def start(self) -> None:
        """Begin to accept, and to take what other workers hand over."""
        self._stopped = False
        self.publish()
        for listening in self._listeners:
            self._loop.add_reader(listening, self._on_connects, listening)
        if self._handoff.fileno() >= 0:
            self._loop.add_reader(self._handoff.fileno(), self._on_handoff)

    def stop(self) -> None:
        """Accept no more; what other workers hand over now waits for this worker's successor."""
        if self._stopped:
            return
        self._stopped = True
        for listening in self._listeners:
            self._loop.remove_reader(listening)
        if self._handoff.fileno() >= 0:
            self._loop.remove_reader(self._handoff.fileno())

    def publish(self) -> None:
        """Store the number of connections where the other workers look for it."""
        self._publish(len(self._table))

    def _on_connects(self, listening: socket.socket) -> None:
        self._on_handoff()  # what others sent here counts before this worker chooses
        try:
            taken = accept_some(listening)
        except OSError as error:
            self._pause(listening, error)
            return
        for connection in taken:
            target = self._spread.choose()
            if target != self._own and self._pass_on(target, connection):
                continue
            self._keep(connection)

    def _pass_on(self, target: int, connection: socket.socket) -> bool:
        """Hand a connection to another worker; False when its socketpair is full."""
        self._spread.handed_to(target)
        if not self._handoff.send(target, connection):
            self._spread.not_handed_to(target)
            return False
        self._count("connections_passed_on", 1)
        return True

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Stop watching a front that cannot be accepted from, for a moment: it would stay readable."""
        self._count("accepts_failed", 1)
        log.event(_logger, logging.ERROR, "accept_failed", reason=error.strerror or str(error))
        self._loop.remove_reader(listening)
        self._loop.call_later(RETRY_S, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if not self._stopped and listening.fileno() >= 0:
            self._loop.add_reader(listening, self._on_connects, listening)

    def _on_handoff(self) -> None:
        for connection in self._handoff.receive_some():
            # One by one: whoever handed it over counts it as under way until then, besides as kept.
            self._count_taken_over(1)
            self._keep(connection)

    def _keep(self, sock: socket.socket) -> None:
        """Serve this connection here. It counts at once, not only when it is greeted."""
        if len(self._table) >= self._connections_max:
            self._count("connections_refused", 1)
            sock.close()
            return
        connection = self._table.make()
        self.publish()
        task = self._loop.create_task(self._greet(connection, sock))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    async def _greet(self, connection: Connection, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except OSError as error:
            sock.close()
            self._table.discard(connection)
            self.publish()
            log.event(_logger, logging.INFO, "connection_lost_while_greeting", reason=str(error))
