"""The worker's connection to the coordinator: requests with answers, oneway calls, and life without a
coordinator.

Runs in the worker's event loop. While the coordinator is away (it is restarted within a second) requests
wait in order, bounded in number, bytes and time, and are then refused with SYSTEM_BUSY. A request whose
link broke before its answer is sent again once to the next coordinator (every request of the internal
protocol may be repeated), but not twice: it might be what killed the first. What the messages mean is in
``coordinator_calls.py``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shmq.base import log
from shmq.base.errors import ShmqError, SystemBusy
from shmq.broker import limits
from shmq.net.connection import Connection
from shmq.net.limits import ConnectionLimits
from shmq.net.outbox import Outbox
from shmq.protocol.codes import ResponseCode, error_of
from shmq.protocol.command import Command

_logger = log.get(__name__)

RECONNECT_S = 0.05
"""Pause between two attempts to reach a coordinator that is not there."""

LINK_LIMITS = ConnectionLimits(
    frame_bytes_max=128 * 1024 * 1024,
    write_pause_bytes=64 * 1024 * 1024,
    write_resume_bytes=16 * 1024 * 1024,
    write_bytes_max=512 * 1024 * 1024,
    idle_s=float("inf"),
)
"""Our own process is at the other end: generous, so that a large snapshot passes."""

Answer = Callable[[Command | None, ShmqError | None], None]


class _Call:
    """One request on its way: how to answer it, by when, and how often it may still be sent."""

    __slots__ = ("command", "deadline_ms", "sendings_left", "size", "then")

    def __init__(self, command: Command, then: Answer, deadline_ms: int, size: int) -> None:
        self.command = command
        self.then = then
        self.deadline_ms = deadline_ms
        self.sendings_left = 2
        self.size = size


class CoordinatorLink:
    """Keeps one connection to ``<broker>.internal.sock``; ``greet`` runs on each new one before anything
    waits no more.

    ``greet(link)`` is a coroutine that says HELLO and replays; ``on_command`` gets the coordinator's own
    requests.
    """

    def __init__(
        self,
        path: Path,
        *,
        greet: Callable[[], Any],
        on_command: Callable[[Connection, Command], None],
        outbox: Outbox,
        monotonic_ms: Callable[[], int],
        wake_by: Callable[[int], None],
        count: Callable[[str, int], None],
    ) -> None:
        """Bind the callbacks; ``start`` connects."""
        self._path = path
        self._greet = greet
        self._on_request = on_command
        self._outbox = outbox
        self._monotonic_ms = monotonic_ms
        self._wake_by = wake_by
        self._count = count
        self._connection: Connection | None = None
        self._ready = False
        self._opaque = 0
        self._sent: dict[int, _Call] = {}
        self._waiting: list[_Call] = []
        self._bytes = 0
        self._look_ms: int | None = None
        """No call has its deadline before; None: there is no call."""
        self._task: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        self._stopping = False

    # -- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and connect again whenever the link breaks."""
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    async def stop(self) -> None:
        """Break the link; what waits is refused."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            self._connection.close("worker is stopping")
        self._refuse(list(self._sent.values()) + self._waiting, SystemBusy("this broker is shutting down"))
        self._sent.clear()
        self._waiting.clear()

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping:
            self._closed.clear()
            try:
                _, self._connection = await loop.create_unix_connection(self._make, str(self._path))
                await self._greet()
            except (OSError, ShmqError) as error:
                log.event(_logger, logging.DEBUG, "coordinator_not_reached", reason=str(error))
                if self._connection is not None:
                    self._connection.abort("greeting failed")
                    self._connection = None
                await asyncio.sleep(RECONNECT_S)
                continue
            self._ready = True
            log.event(_logger, logging.INFO, "coordinator_linked", waiting=len(self._waiting))
            self._send_waiting()
            await self._closed.wait()

    def _make(self) -> Connection:
        return Connection(self._on_command, self._on_close, LINK_LIMITS, outbox=self._outbox)

    def _on_close(self, connection: Connection) -> None:
        """Let what was sent wait for the next coordinator, in its order, before what waits already."""
        if connection is not self._connection and self._connection is not None:
            return
        self._connection = None
        self._ready = False
        self._closed.set()
        calls = list(self._sent.values())
        self._sent.clear()
        again = [call for call in calls if call.sendings_left > 0]
        self._waiting[:0] = again
        deadline_ms = self._monotonic_ms() + limits.LINK_DOWN_MS_MAX
        for call in again:
            call.deadline_ms = min(call.deadline_ms, deadline_ms)
        lost = [call for call in calls if call.sendings_left == 0]
        self._refuse(lost, SystemBusy("the coordinator was lost twice with this request: try again later"))
        if again:
            self._due_by(deadline_ms)
        if not self._stopping:
            log.event(_logger, logging.WARNING, "coordinator_lost", reason=connection.close_reason)

    @property
    def is_ready(self) -> bool:
        """Tell whether the coordinator is there and has been told what it must know."""
        return self._ready

    # -- calls ---------------------------------------------------------------------------------------------

    def request(self, code: int, header: object, body: Any, then: Answer) -> None:
        """Ask the coordinator; ``then(answer, None)`` or ``then(None, error)`` follows, once."""
        size = 256 if body is None else 256 + len(body)
        if len(self._sent) + len(self._waiting) >= limits.LINK_REQUESTS_MAX or (
            self._bytes + size > limits.LINK_BYTES_MAX
        ):
            self._count("busy_refused", 1)
            then(None, SystemBusy("[OVERLOAD] too many requests wait for the coordinator: send again later"))
            return
        command = Command.request(code, header, body)
        now_ms = self._monotonic_ms()
        limit_ms = limits.LINK_ANSWER_MS_MAX if self._ready else limits.LINK_DOWN_MS_MAX
        call = _Call(command, then, now_ms + limit_ms, size)
        self._bytes += size
        if self._ready:
            self._send(call)
        else:
            self._waiting.append(call)
        self._due_by(call.deadline_ms)

    def request_now(self, code: int, header: object, take: Callable[[Command], None]) -> asyncio.Future[None]:
        """Ask while the link is not ready yet (HELLO); fails with the answer's error or the link.

        `take` gets the answer at once, before anything that was sent behind it is looked at.
        """
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def then(answer: Command | None, error: ShmqError | None) -> None:
            if answered.done():
                return
            if answer is not None:
                take(answer)
                answered.set_result(None)
            else:
                answered.set_exception(error or SystemBusy("the coordinator did not answer"))

        command = Command.request(code, header)
        call = _Call(command, then, self._monotonic_ms() + limits.LINK_ANSWER_MS_MAX, 0)
        call.sendings_left = 1
        self._send(call)
        self._due_by(call.deadline_ms)
        return answered

    def oneway(self, code: int, header: object, body: Any = None) -> bool:
        """Tell the coordinator something; False when there is no link (what matters is replayed)."""
        if self._connection is None or not self._connection.is_open:
            return False
        command = Command.request(code, header, body, oneway=True)
        self._connection.send(command)
        return True

    def _due_by(self, deadline_ms: int) -> None:
        if self._look_ms is None or deadline_ms < self._look_ms:
            self._look_ms = deadline_ms
        self._wake_by(deadline_ms)

    def _send(self, call: _Call) -> None:
        assert self._connection is not None
        self._opaque = (self._opaque + 1) & 0x7FFFFFFF
        call.command.opaque = self._opaque
        call.sendings_left -= 1
        self._sent[self._opaque] = call
        self._connection.send(call.command)

    def _send_waiting(self) -> None:
        calls, self._waiting = self._waiting, []
        deadline_ms = self._monotonic_ms() + limits.LINK_ANSWER_MS_MAX
        for call in calls:
            call.deadline_ms = deadline_ms
            self._send(call)

    def _on_command(self, connection: Connection, command: Command) -> None:
        if not command.is_response:
            self._on_request(connection, command)
            return
        call = self._sent.pop(command.opaque, None)
        if call is None:
            return
        self._bytes -= call.size
        if command.code == ResponseCode.SUCCESS:
            call.then(command, None)
        else:
            call.then(None, error_of(command.code, command.remark or ""))

    def _refuse(self, calls: list[_Call], error: ShmqError) -> None:
        for call in calls:
            self._bytes -= call.size
            call.then(None, error)

    def step(self, now_ms: int) -> int | None:
        """Refuse what has waited too long; return the next deadline."""
        if self._look_ms is None or now_ms < self._look_ms:
            return self._look_ms  # this runs after every request, and thousands may wait
        late = [call for call in self._waiting if call.deadline_ms <= now_ms]
        if late:
            self._waiting = [call for call in self._waiting if call.deadline_ms > now_ms]
        for opaque in [o for o, call in self._sent.items() if call.deadline_ms <= now_ms]:
            late.append(self._sent.pop(opaque))
        if late:
            self._count("forwards_failed", len(late))
            self._refuse(late, SystemBusy("[TIMEOUT_CLEAN_QUEUE] the coordinator did not answer in time"))
        deadlines = [call.deadline_ms for call in self._waiting]
        deadlines += [call.deadline_ms for call in self._sent.values()]
        self._look_ms = min(deadlines, default=None)
        return self._look_ms
