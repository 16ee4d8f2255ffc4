"""Sends that are appended and wait for the disk before they are answered: SYNC_FLUSH, or they asked for it.

Runs in the worker's event loop. One look per turn at the flushed position settles everything that it
covers, so that one fdatasync answers many senders. While anything waits, this worker is parked in the
page's FLUSH_RINGS word: the flusher stores the position, then rings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from shmq.base import faults
from shmq.handlers.context import AppendReply
from shmq.protocol.codes import ResponseCode
from shmq.store.append_request import AppendOutcome

faults.declare({"worker.flushed": "the disk has what a send waits for, which is not answered yet"})


class PendingAck(NamedTuple):
    """One answer that waits: until ``end`` is flushed, or ``deadline_ms`` (monotonic) has come."""

    end: int
    deadline_ms: int
    reply: AppendReply
    outcome: AppendOutcome


class PendingAcks:
    """Answers in the order of their log positions; the log of one worker's appends only grows."""

    def __init__(
        self,
        flushed_position: Callable[[], int],
        timeout_ms: int,
        park: Callable[[bool], None],
        count: Callable[[str, int], None],
        disk_failed: Callable[[], bool],
    ) -> None:
        """``park(True)`` asks the flusher for a ring (with the fence), ``park(False)`` takes that back.

        ``disk_failed`` says that the position will not move any more: nobody waits for it then.
        """
        self._flushed_position = flushed_position
        self._timeout_ms = timeout_ms
        self._park = park
        self._count = count
        self._disk_failed = disk_failed
        self._waiting: deque[PendingAck] = deque()

    def __len__(self) -> int:
        """Count the answers that wait."""
        return len(self._waiting)

    def add(self, reply: AppendReply, outcome: AppendOutcome, now_ms: int) -> None:
        """Let ``reply`` wait until the log is flushed up to ``outcome.end``."""
        if not self._waiting:
            self._park(True)
        self._waiting.append(PendingAck(outcome.end, now_ms + self._timeout_ms, reply, outcome))

    def step(self, now_ms: int) -> int | None:
        """Answer what is flushed or too late; return when to look again, None when nothing waits."""
        waiting = self._waiting
        if not waiting:
            return None
        flushed = self._flushed_position()
        while waiting and waiting[0].end <= flushed:
            faults.reach("worker.flushed")
            ack = waiting.popleft()
            ack.reply.settle(ack.outcome, ResponseCode.SUCCESS)
        failed = bool(waiting) and self._disk_failed()
        while waiting and (failed or waiting[0].deadline_ms <= now_ms):
            ack = waiting.popleft()
            self._count("acks_timed_out", 1)
            ack.reply.settle(ack.outcome, ResponseCode.FLUSH_DISK_TIMEOUT)
        if not waiting:
            self._park(False)
            return None
        return waiting[0].deadline_ms
