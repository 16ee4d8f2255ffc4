"""Where the requests of one claim go: positions, BLANKs and queue offsets. Pure arithmetic, under the
AppendLock.

Requests are placed in order up to the first that has no room, and nothing behind it is placed either: so
requests of one queue keep their order whatever stops a claim. Those tied together (`with_next`) are placed
all, or the plan goes back to where the first of them would have gone.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from shmq.model.record import BLANK_BYTES_MIN
from shmq.shm.queue_table import QueueRef, QueueTable
from shmq.store.append_maps import AppendMaps
from shmq.store.append_request import AppendRequest
from shmq.store.mapped_file import MappedFile


class Stop(enum.Enum):
    """What ended a plan."""

    DONE = enum.auto()
    """All requests are placed."""
    END_OF_LOG = enum.auto()
    """The next request needs log that is not allocated or not zeroed yet."""
    NOT_READY = enum.auto()
    """The next request needs maps or disk blocks that this process has to get first."""


class Placed(NamedTuple):
    """Where one request goes."""

    request: AppendRequest
    queue_offset: int
    physical_offset: int
    segment: MappedFile


class Mark(NamedTuple):
    """How far a plan was: before the first of some requests that are tied together."""

    end: int
    placed: int
    blanks: int
    maxima: dict[int, tuple[QueueRef, int, int]]


class ClaimPlan:
    """What one claim will do: bytes `[start, end)` of the log, and units.

    `blanks` are (segment, file position); `maxima` gives (queue, old maximum, new maximum) by queue slot.
    """

    __slots__ = ("blanks", "end", "maxima", "placed", "start", "stop")

    def __init__(self, start: int) -> None:
        """An empty plan at the log's end."""
        self.start = self.end = start
        self.placed: list[Placed] = []
        self.blanks: list[tuple[MappedFile, int]] = []
        self.maxima: dict[int, tuple[QueueRef, int, int]] = {}
        self.stop = Stop.DONE

    def mark(self) -> Mark:
        """Remember how far the plan is."""
        return Mark(self.end, len(self.placed), len(self.blanks), dict(self.maxima))

    def go_back(self, mark: Mark) -> None:
        """Forget what was planned since."""
        self.end = mark.end
        del self.placed[mark.placed :]
        del self.blanks[mark.blanks :]
        self.maxima = mark.maxima


def plan_claim(
    requests: Sequence[AppendRequest],
    position: int,
    ready: int,
    segment_bytes: int,
    table: QueueTable,
    maps: AppendMaps,
) -> ClaimPlan:
    """Place requests from `position` on; the claim may not reach beyond `ready`.

    A record leaves at least 8 bytes behind it in its segment; a request that does not fit so is preceded by a
    BLANK, and where the next segment is not ready the claim ends with that BLANK.
    """
    plan = ClaimPlan(position)
    mark: Mark | None = None
    for request in requests:
        if request.with_next and mark is None:
            mark = plan.mark()
        size = len(request.data)
        at = position % segment_bytes
        start = position - at
        if at + size + BLANK_BYTES_MIN > segment_bytes:
            segment = maps.segments.get(start)
            if segment is None or start + segment_bytes > ready:
                plan.stop = Stop.END_OF_LOG if start + segment_bytes > ready else Stop.NOT_READY
                break
            plan.blanks.append((segment, at))
            start = position = plan.end = start + segment_bytes
        if position + size > ready:
            plan.stop = Stop.END_OF_LOG
            break
        segment = maps.segments.get(start)
        queue = request.queue
        known = plan.maxima.get(queue.slot)
        old = first = table.max(queue.slot)
        if known is not None:
            _, old, first = known
        end = first + len(request.sizes)
        if segment is None or not maps.has_unit_files(queue, first, end):
            plan.stop = Stop.NOT_READY
            break
        plan.maxima[queue.slot] = (queue, old, end)
        plan.placed.append(Placed(request, first, position, segment))
        position = plan.end = position + size
        if not request.with_next:
            mark = None
    if mark is not None:
        plan.go_back(mark)
    return plan
