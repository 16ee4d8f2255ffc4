"""From a decoded command to its handler and back: the worker's one place that knows what an answer can be.

Runs in the worker's event loop. A request is served here, passed on to the coordinator, or refused; the one
table of codes is ``handlers/table.py``. Every error becomes a response code and a sentence; a defect in a
handler costs one answer, never the worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from shmq.base import log
from shmq.base.errors import Bug, ShmqError
from shmq.handlers.context import Ask, Need, WorkerContext
from shmq.handlers.table import HANDLERS, Place, Route
from shmq.net.connection import Connection
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command
from shmq.worker.coordinator_calls import CoordinatorCalls

_logger = log.get(__name__)

VERSION_GO_AWAY = 475
"""Clients above this wire version (V5_3_1) understand GO_AWAY."""

ASKS_MAX = 4
"""How often one request may need something from the coordinator; each need is asked for only once."""


class Dispatcher:
    """Serves the commands of all connections of this worker."""

    def __init__(
        self, ctx: WorkerContext, coordinator: CoordinatorCalls, on_request: Callable[[int], None]
    ) -> None:
        """Bind what handlers get, where the other requests go, and who hears on which connection."""
        self._on_request = on_request
        self._ctx = ctx
        self._coordinator = coordinator
        self.draining = False
        """Set while the worker stops: new requests are sent elsewhere."""

    def on_command(self, connection: Connection, command: Command) -> None:
        """Serve one command; called by the connection in the order of arrival."""
        if command.is_response:
            self._coordinator.client_response(connection, connection.last_frame)
            return
        if self.draining and command.version > VERSION_GO_AWAY and not command.is_oneway:
            connection.send(
                command.response(ResponseCode.GO_AWAY, "this broker is shutting down: connect again")
            )
            return
        self._on_request(connection.id)
        route = HANDLERS.get(command.code)
        if route is None:
            self._ctx.count("requests_unknown", 1)
            self._answer(
                connection,
                command,
                command.response(
                    ResponseCode.REQUEST_CODE_NOT_SUPPORTED, f"request type {command.code} is not supported"
                ),
            )
        elif route.place is Place.COORDINATOR:
            self._ctx.count("forwards", 1)
            self._coordinator.forward(connection, command, connection.last_frame)
        else:
            self._serve(connection, command, route, None, ())

    def _serve(
        self, connection: Connection, command: Command, route: Route, header: Any, asked: tuple[Need, ...]
    ) -> None:
        """Run the handler; ask for what it needs and run it again."""
        try:
            if header is None and route.header is not None:
                header = command.read_header(route.header)
            reply = route.function(self._ctx, connection, command, header)
        except Ask as ask:
            self._ask(connection, command, route, header, (*asked, ask.need))
            return
        except ShmqError as error:
            reply = command.refusal(error)
        except Exception as error:  # the edge of handlers: one answer is lost, not the worker
            self._ctx.count("requests_failed", 1)
            log.event(_logger, logging.ERROR, "handler_failed", exc_info=True, code=command.code)
            reply = command.response(ResponseCode.SYSTEM_ERROR, f"internal error: {error!r}")
        if reply is not None:
            self._answer(connection, command, reply)

    def _ask(
        self, connection: Connection, command: Command, route: Route, header: Any, asked: tuple[Need, ...]
    ) -> None:
        """Get what the handler needs from the coordinator, then serve again, unless the client has gone."""
        need = asked[-1]
        if need in asked[:-1] or len(asked) > ASKS_MAX:
            error = Bug(f"the coordinator provided {need}, but it is still missing")
            log.event(_logger, logging.ERROR, "need_not_met", need=str(need))
            self._answer(connection, command, command.response(ResponseCode.SYSTEM_ERROR, str(error)))
            return

        def resolved(error: ShmqError | None) -> None:
            if not connection.is_open:
                return
            if error is None:
                connection.when_writable(lambda: self._serve(connection, command, route, header, asked))
            else:
                self._answer(connection, command, command.refusal(error))

        self._coordinator.ask(need, resolved)

    def _answer(self, connection: Connection, command: Command, reply: Command) -> None:
        if not command.is_oneway:
            connection.send(reply)
