"""All sends of one event loop turn, appended in one call of the store.

Runs in the worker's event loop. Handlers add requests while the turn's input is read; ``run`` is scheduled
once per turn. A request the store could not take because the next log segment is not ready (outcome None)
is kept, in order, and tried again when the doorbell rings; new ones queue behind it, up to a bound.

A turn of one send that waits for the disk, in a worker where nothing else does, is flushed here and now
(`store/turn_flush.py`); all others wait for the flusher, one sync of which settles many of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from shmq.base import faults, log
from shmq.base.errors import Bug, ShmqError, SystemBusy
from shmq.broker import limits
from shmq.handlers.context import AppendReply
from shmq.net.outbox import Outbox
from shmq.protocol.codes import ResponseCode
from shmq.store.append_request import AppendOutcome, AppendRequest
from shmq.worker.pending_acks import PendingAcks

_logger = log.get(__name__)

faults.declare({"worker.before_reply": "the turn's sends are appended and published, none is answered"})


class Appender(Protocol):
    """The part of the store that a turn uses."""

    def append(
        self, requests: list[AppendRequest], *, rings_flusher: bool = True
    ) -> list[AppendOutcome | None]:
        """Append what fits; None for what has to wait for the next segment."""


class OwnFlush(Protocol):
    """How a turn brings its one send to the disk itself."""

    def may(self) -> bool:
        """Whether that is worth trying now."""

    def flush(self, end: int) -> int:
        """Sync the log; return up to where it is on the disk as far as this can tell."""

    def leave(self) -> None:
        """Leave it to the flusher."""


class AppendTurn:
    """Collects requests and settles their replies; at most one turn is scheduled at any time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: Appender,
        acks: PendingAcks,
        monotonic_ms: Callable[[], int],
        *,
        outbox: Outbox,
        sync_flush: bool,
        own_flush: OwnFlush | None,
        wake_by: Callable[[int], None],
        count: Callable[[str, int], None],
        took: Callable[[int], None],
    ) -> None:
        """``took(ms)`` hears how long each append took; ``wake_by(deadline_ms)`` arms the timer.

        ``own_flush`` is for workers whose appends the flusher follows one by one (SYNC_FLUSH), else None.
        """
        self._loop = loop
        self._store = store
        self._acks = acks
        self._monotonic_ms = monotonic_ms
        self._outbox = outbox
        self._sync_flush = sync_flush
        self._own_flush = own_flush
        self._wake_by = wake_by
        self._count = count
        self._took = took
        self._requests: list[AppendRequest] = []
        self._replies: list[AppendReply] = []
        self._bytes = 0
        self._scheduled = False
        self._kept_until_ms: int | None = None

    def __len__(self) -> int:
        """Count the requests that are not appended yet."""
        return len(self._requests)

    def add(self, request: AppendRequest, reply: AppendReply) -> None:
        """Append ``request`` at the end of this turn and answer through ``reply``.

        Raises SystemBusy when too much waits for the next log segment already.
        """
        if self._kept_until_ms is None:
            if not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._run)
        elif self._bytes + len(request.data) > limits.APPEND_WAITING_BYTES_MAX:
            self._count("busy_refused", 1)
            raise SystemBusy(
                "[OVERLOAD] the next log segment is not ready and too much waits for it: send again later"
            )
        self._requests.append(request)
        self._replies.append(reply)
        self._bytes += len(request.data)

    def _run(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Append everything collected now. Called at the end of a turn, after a ring, and when draining."""
        if (
            len(self._requests) == 1 and not self._acks
        ):  # there will be nothing to collect: one answer at most
            self._append()
            return
        with self._outbox:
            self._append()

    def _append(self) -> None:
        requests, replies = self._requests, self._replies
        if not requests:
            return
        self._requests, self._replies, self._bytes = [], [], 0
        own = self._own_flush
        if own is None or len(replies) > 1 or self._acks or not self._waits(replies[0]) or not own.may():
            self._carry_out(requests, replies, None)
            return
        flushed = 0
        try:
            flushed = self._carry_out(requests, replies, own)
        finally:
            if not flushed:
                own.leave()

    def _waits(self, reply: AppendReply) -> bool:
        """Whether a send is answered when the disk has it, and not before."""
        return self._sync_flush if (disk := reply.wait.disk) is None else disk

    def _carry_out(
        self, requests: list[AppendRequest], replies: list[AppendReply], own: OwnFlush | None
    ) -> int:
        """Append and settle; with ``own``, flush one send in between. Returns up to where that is known."""
        began_ms = self._monotonic_ms()
        try:
            outcomes = self._store.append(requests, rings_flusher=own is None)
        except ShmqError as error:
            self._refuse_all(replies, error)
            return 0
        except Exception as error:  # the edge of a turn: its senders must hear that nothing was acknowledged
            self._count("requests_failed", len(replies))
            log.event(_logger, logging.ERROR, "append_failed", exc_info=True, requests=len(requests))
            self._refuse_all(replies, Bug(f"the append failed: {error!r}"))
            return 0
        faults.reach("worker.before_reply")
        self._took(self._monotonic_ms() - began_ms)
        flushed = 0
        if own is not None and (outcome := outcomes[0]) is not None and outcome.error is None:
            flushed = own.flush(outcome.end)
        self._settle(requests, replies, outcomes, flushed)
        return flushed

    def _settle(
        self,
        requests: list[AppendRequest],
        replies: list[AppendReply],
        outcomes: list[AppendOutcome | None],
        flushed: int,
    ) -> None:
        """Answer, let wait for the flush, or keep for later: one look at each outcome.

        Everything below ``flushed`` is on the disk, and perhaps more.
        """
        now_ms = 0
        for request, reply, outcome in zip(requests, replies, outcomes, strict=True):
            if outcome is None:
                self._requests.append(request)
                self._replies.append(reply)
                self._bytes += len(request.data)
            elif outcome.error is not None:
                reply.refuse(outcome.error)
            elif outcome.end > flushed and self._waits(reply):
                now_ms = now_ms or self._monotonic_ms()
                self._acks.add(reply, outcome, now_ms)
            else:
                reply.settle(outcome, ResponseCode.SUCCESS)
        if self._requests:
            self._keep()
        else:
            self._kept_until_ms = None
        if self._acks and (deadline_ms := self._acks.step(now_ms or self._monotonic_ms())) is not None:
            self._wake_by(deadline_ms)

    def _refuse_all(self, replies: list[AppendReply], error: ShmqError) -> None:
        self._kept_until_ms = None
        for reply in replies:
            reply.refuse(error)

    def _keep(self) -> None:
        """Start the time limit of what waits for the next segment, if it does not run yet."""
        if self._kept_until_ms is None:
            self._kept_until_ms = self._monotonic_ms() + limits.APPEND_WAITING_MS_MAX
            log.event(_logger, logging.WARNING, "append_waits_for_segment", requests=len(self._requests))
        self._wake_by(self._kept_until_ms)

    def step(self, now_ms: int) -> int | None:
        """Try again what was kept; refuse it when it waited too long (it was certainly not stored)."""
        if self._kept_until_ms is None:
            return None
        if now_ms >= self._kept_until_ms:
            replies = self._replies
            self._requests, self._replies, self._bytes = [], [], 0
            self._count("busy_refused", len(replies))
            late = SystemBusy("[TIMEOUT_CLEAN_QUEUE] no log segment was ready in time: send again later")
            self._refuse_all(replies, late)
            return None
        self.flush()
        return self._kept_until_ms
