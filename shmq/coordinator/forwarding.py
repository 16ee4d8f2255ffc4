"""Answers the clients' requests that workers pass on: frame in, handler, complete answer frame out.

One request: decode the client's frame, read its typed header, run the handler, encode its answer for the
client's own opaque and serialization. Requests run as tasks that start in the order of arrival; a handler
that waits (for workers' acknowledgements, for a client's answer) holds up nobody else. Coordinator's loop
only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from shmq.base import log
from shmq.base.errors import RequestNotSupported, ShmqError, SystemBusy
from shmq.broker.client_key import ClientKey
from shmq.coordinator.client_calls import ClientCalls
from shmq.coordinator.worker_links import WorkerLink
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Route
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.internal import ForwardAnswerHeader, ForwardHeader

UNDER_WAY_MAX = 20_000
"""Forwarded requests that may wait at the same time; more are refused with SYSTEM_BUSY."""

_logger = log.get(__name__)


class Forwarding:
    """The coordinator's handlers, reached through workers."""

    def __init__(self, ctx: CoordinatorContext, calls: ClientCalls, routes: Mapping[int, Route]) -> None:
        """`routes` lists the requests served here."""
        self._ctx = ctx
        self._calls = calls
        self._routes = routes
        self._under_way = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def forward(self, link: WorkerLink, command: Command) -> Command:
        """Serve one FORWARD; never raises for what the client did wrong: that is in the client's answer."""
        key = ClientKey(link.slot, command.read_header(ForwardHeader).conn_id)
        request = decode_frame(command.body_bytes())
        self._calls.heard(key, request.serialization)
        call = Call(key, self._ctx.clients.peer_of(key))
        answer = await self._serve(call, request)
        frame = None
        if answer is not None and not request.is_oneway:
            frame = list(encode_command(answer))
        note = call.note
        header = ForwardAnswerHeader()
        if note is not None:
            header = ForwardAnswerHeader(keep_key=note.key, keep=note.content, keep_until_ms=note.until_ms)
        return command.response(ResponseCode.SUCCESS, header=header, body=frame)

    async def _serve(self, call: Call, request: Command) -> Command | None:
        self._under_way += 1
        try:
            if self._under_way > UNDER_WAY_MAX:
                raise SystemBusy("the coordinator has too many requests under way: try again later")
            route = self._routes.get(request.code)
            if route is None:
                raise RequestNotSupported(f"request code {request.code} is not served by this broker")
            header = None if route.header is None else request.read_header(route.header)
            answer: Command | None = await route.function(self._ctx, call, request, header)
            return answer
        except ShmqError as error:
            return request.refusal(error)
        except Exception as error:  # the edge of a request: a defect costs this request, not the process
            log.event(
                _logger, logging.ERROR, "request_failed", exc_info=True, code=request.code, peer=call.peer
            )
            return request.response(ResponseCode.SYSTEM_ERROR, f"internal error: {error!r}")
        finally:
            self._under_way -= 1

    def members_changed(self, groups: Iterable[str]) -> None:
        """Clients left these consumer groups, or came back to them: tell the members and the workers."""
        for group in groups:
            self.later(self._ctx.announce.membership_changed(group))

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something nobody waits for; its errors are logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.event(_logger, logging.ERROR, "announcement_failed", error=repr(error))

    async def drain(self, limit_s: float) -> None:
        """Wait for what runs in the background, at most `limit_s`."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=limit_s)
