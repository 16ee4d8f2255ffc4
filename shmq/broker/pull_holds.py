"""Parked pulls of one worker: long polling, by queue, with a deadline each.

Runs in the worker's event loop; no locks. Parking follows the page's park protocol: this worker's byte in
the queue's ring word is set, then a fence, then the queue is looked at again; only then may the worker
sleep. An appender publishes first and loads the ring word afterwards, so one of the two always sees the
other.

A hold is looked at only when its queue's max has passed the offset it has read up to. Messages that its
filter refuses move that offset on without an answer; then the hold is answered within
``limits.FILTERED_HOLD_MS_MAX``, so that the consumer's offset advances too.

What idle consumers cost are the worker's wake-ups and the system calls of each answer. So holds end on
common ticks (``hold_until``): the many that are due leave together, all of one client in one write, and its
next pulls come together, too. RocketMQ looks at its holds every 5 s.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol

from shmq.broker import limits
from shmq.shm.queue_table import QueueRef


def hold_until(now_ms: int, hold_ms: int) -> int:
    """Return when a hold of so many ms ends: not earlier, and at most a ``limits.HOLD_GRID``th later."""
    tick_ms = max(1, hold_ms // limits.HOLD_GRID)
    return -(-(now_ms + hold_ms) // tick_ms) * tick_ms


class Wake(Enum):
    """Why a held pull is looked at again."""

    NEW_MESSAGES = auto()
    TIMED_OUT = auto()
    RULES_CHANGED = auto()


class PullHold(Protocol):
    """One held pull as its handler sees it."""

    queue: QueueRef
    scan_offset: int
    """First queue offset that was not looked at yet."""

    @property
    def topic(self) -> str:
        """The topic it reads."""

    @property
    def group(self) -> str:
        """The consumer group it reads for."""

    def wake(self, why: Wake, now_ms: int) -> int | None:
        """Try again: None when it was answered, else the (perhaps earlier) deadline in monotonic ms."""


class RingParking(Protocol):
    """The page words through which appenders learn who waits (see ``shm/rings.py``)."""

    def park(self, queue: QueueRef) -> None:
        """Ask to be rung for this queue; ends with a fence."""

    def unpark(self, queue: QueueRef) -> None:
        """Do not ask any more."""

    def max_offset(self, queue: QueueRef) -> int:
        """Return the queue's max offset, visible or not."""

    def positions(self) -> tuple[int, int] | None:
        """Return where the log ends, and up to where it is visible: no queue has news unless one moved.

        None while a claim is being published: some of its queues may have moved and others not yet.
        """

    def await_flush(self, wanted: bool) -> None:
        """Ask to be rung when the visible position moves (messages are appended, but not visible yet)."""


class _Entry:
    """A hold, its deadline and its owner; ``done`` once answered or dropped (the heap may still hold it)."""

    __slots__ = ("deadline_ms", "done", "hold", "owner")

    def __init__(self, hold: PullHold, owner: int, deadline_ms: int) -> None:
        self.hold = hold
        self.owner = owner
        self.deadline_ms = deadline_ms
        self.done = False


class PullHolds:
    """All held pulls of this worker."""

    def __init__(self, parking: RingParking, count: Callable[[str, int], None]) -> None:
        """``count`` receives ``pulls_held``, ``pulls_held_refused`` and ``pulls_timed_out``."""
        self._parking = parking
        self._count = count
        self._by_queue: dict[int, dict[PullHold, _Entry]] = {}
        self._by_owner: dict[int, set[_Entry]] = {}
        self._by_topic: dict[str, set[_Entry]] = {}
        self._by_group: dict[str, set[_Entry]] = {}
        self._deadlines: list[tuple[int, int, _Entry]] = []
        self._sequence = itertools.count()
        self._held = 0
        self._looked_at: tuple[int, int] | None = None
        """`positions` before the last look."""
        self._passed: dict[int, int] = {}
        """Queue slot -> max offset up to which every hold there has looked."""

    def __len__(self) -> int:
        """Count the held pulls."""
        return self._held

    def park(self, hold: PullHold, owner: int, deadline_ms: int, now_ms: int) -> bool:
        """Hold a pull of connection ``owner`` until messages come or ``deadline_ms``.

        Messages that came since the caller read are seen here: then the hold is woken, and perhaps
        answered, before this returns. False when a bound is reached: the caller answers at once.
        """
        owned = self._by_owner.get(owner)
        if self._held >= limits.HOLDS_MAX or (owned and len(owned) >= limits.HOLDS_PER_CONNECTION_MAX):
            self._count("pulls_held_refused", 1)
            return False
        queue = hold.queue
        entries = self._by_queue.get(queue.slot)
        if entries is None:
            self._parking.park(queue)
            entries = self._by_queue[queue.slot] = {}
        entry = _Entry(hold, owner, deadline_ms)
        entries[hold] = entry
        for index, key in self._places(entry):
            index.setdefault(key, set()).add(entry)
        heapq.heappush(self._deadlines, (deadline_ms, next(self._sequence), entry))
        self._held += 1
        self._count("pulls_held", 1)
        if self._parking.max_offset(queue) > hold.scan_offset:
            self._looked_at = None
            self._passed.pop(queue.slot, None)
            self._parking.await_flush(True)
            self._look(entry, Wake.NEW_MESSAGES, now_ms)
        return True

    def next_deadline_ms(self) -> int | None:
        """Return the earliest deadline, None when nothing is held."""
        while self._deadlines and self._deadlines[0][2].done:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def step(self, now_ms: int) -> int | None:
        """Wake what has news or is due; return the next deadline."""
        if self._held:
            self._wake_by_news(now_ms)
            self._wake_by_deadline(now_ms)
            if len(self._deadlines) > 64 + 4 * self._held:
                self._deadlines = [item for item in self._deadlines if not item[2].done]
                heapq.heapify(self._deadlines)
        return self.next_deadline_ms()

    def _wake_by_news(self, now_ms: int) -> None:
        """Look at queues that moved past a hold; ask for flushes while some of it is not visible.

        Mostly nothing was appended since the last look, then two words say so: thousands of idle pulls must
        not cost anything each time one of them times out.
        """
        positions = self._parking.positions()
        if positions is not None and positions == self._looked_at:
            return
        self._looked_at = positions
        if self._look_at_moved(now_ms):
            self._parking.await_flush(True)
            self._parking.await_flush(self._look_at_moved(now_ms))
        else:
            self._parking.await_flush(False)

    def _look_at_moved(self, now_ms: int) -> bool:
        """Look once at every hold its queue has moved past; True when one could not see all of it yet."""
        unseen = False
        for slot in list(self._by_queue):
            entries = self._by_queue.get(slot)
            if entries is None:  # dropped with another queue's hold
                continue
            max_offset = self._parking.max_offset(next(iter(entries)).queue)
            if self._passed.get(slot) == max_offset:
                continue
            behind = False
            for entry in list(entries.values()):
                if max_offset > entry.hold.scan_offset and not entry.done:
                    self._look(entry, Wake.NEW_MESSAGES, now_ms)
                    behind = behind or (not entry.done and max_offset > entry.hold.scan_offset)
            if slot in self._by_queue and not behind:
                self._passed[slot] = max_offset
            unseen = unseen or behind
        return unseen

    def _wake_by_deadline(self, now_ms: int) -> None:
        """Answer what is due, a turn's share of it."""
        ended = 0
        while self._deadlines and self._deadlines[0][0] <= now_ms and ended < limits.HOLDS_ENDED_PER_TURN:
            deadline_ms, _, entry = heapq.heappop(self._deadlines)
            if entry.done or entry.deadline_ms != deadline_ms:
                continue
            entry.hold.wake(Wake.TIMED_OUT, now_ms)
            self._remove(entry)
            ended += 1
        if ended:
            self._count("pulls_timed_out", ended)

    def _look(self, entry: _Entry, why: Wake, now_ms: int) -> None:
        """Let one hold try again; it is answered, or stays with its deadline."""
        deadline_ms = entry.hold.wake(why, now_ms)
        if deadline_ms is None:
            self._remove(entry)
        elif deadline_ms < entry.deadline_ms:
            entry.deadline_ms = deadline_ms
            heapq.heappush(self._deadlines, (deadline_ms, next(self._sequence), entry))

    def _remove(self, entry: _Entry) -> None:
        """Forget one hold; the last one of a queue takes the ring back."""
        if entry.done:
            return
        entry.done = True
        self._held -= 1
        queue = entry.hold.queue
        entries = self._by_queue[queue.slot]
        del entries[entry.hold]
        if not entries:
            del self._by_queue[queue.slot]
            self._passed.pop(queue.slot, None)
            self._parking.unpark(queue)
        for index, key in self._places(entry):
            alike = index[key]
            alike.discard(entry)
            if not alike:
                del index[key]

    def _places(self, entry: _Entry) -> tuple[tuple[dict[Any, set[_Entry]], int | str], ...]:
        """The indexes that hold an entry, and under which key."""
        hold = entry.hold
        return (
            (self._by_owner, entry.owner),
            (self._by_topic, hold.topic),
            (self._by_group, hold.group),
        )

    def look_again(self, topic: str | None, group: str | None, now_ms: int) -> None:
        """Judge holds again: a topic or a group has changed, or (both None) anything may have."""
        if topic is None and group is None:
            concerned = [entry for entries in self._by_queue.values() for entry in entries.values()]
        else:
            concerned = [*self._by_topic.get(topic or "", ()), *self._by_group.get(group or "", ())]
        for entry in concerned:
            if not entry.done:
                self._look(entry, Wake.RULES_CHANGED, now_ms)

    def drop(self, hold: PullHold) -> None:
        """Forget one hold, which its owner has answered."""
        entry = self._by_queue.get(hold.queue.slot, {}).get(hold)
        if entry is not None:
            self._remove(entry)

    def drop_owner(self, owner: int) -> None:
        """Forget the holds of a connection that has closed."""
        for entry in list(self._by_owner.get(owner, ())):
            self._remove(entry)

    def release_all(self, now_ms: int) -> None:
        """Answer every hold as if its time were over: the worker is draining."""
        for entries in list(self._by_queue.values()):
            for entry in list(entries.values()):
                entry.hold.wake(Wake.TIMED_OUT, now_ms)
                self._remove(entry)
