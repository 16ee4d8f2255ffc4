"""Parked pulls of one worker: long polling, by queue, with a deadline each.

Runs in the worker's event loop; no locks. Parking follows the page's park protocol: this worker's byte in
the queue's ring word is set, then a fence, then the queue is looked at again; only then may the worker
sleep. An appender publishes first and loads the ring word afterwards, so one of the two always sees the
other.

A hold waits for one queue, or a client's shared wait for many. It is looked at only when the max of one has
passed the offset it has read up to. Messages that its filter refuses move that offset on without an answer;
then the hold is answered within ``limits.FILTERED_HOLD_MS_MAX``, so that the consumer's offset advances too.

What idle consumers cost are the worker's wake-ups and the system calls of each answer. So holds end on
common ticks (``hold_until``): the many that are due leave together, all of one client in one write, and its
next pulls come together, too. RocketMQ looks at its holds every 5 s.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable, Sequence
from enum import Enum, auto
from typing import Protocol, TypeVar

from shmq.broker import limits
from shmq.shm.queue_table import QueueRef

K = TypeVar("K")


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
    """One held request as its handler sees it."""

    @property
    def queues(self) -> Sequence[QueueRef]:
        """The queues it waits for; always the same."""

    @property
    def group(self) -> str:
        """The consumer group it reads for."""

    @property
    def key(self) -> Hashable:
        """What a request has in common with this one that may go on with it."""

    def is_behind(self, queue: QueueRef, max_offset: int) -> bool:
        """Tell whether one of its queues has messages that it has not looked at."""

    def wake(self, why: Wake, now_ms: int) -> int | None:
        """Try again: None when it is over, else the (perhaps earlier) deadline in monotonic ms.

        Who stays when its time is over has answered its client, which mostly asks the same again at once:
        then `prolong` goes on with what is watched already. Else it ends at that deadline.
        """


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
    """A hold, its deadline and its owner; ``done`` once it is over (the heap may still hold it)."""

    __slots__ = ("deadline_ms", "done", "hold", "owner", "stays")

    def __init__(self, hold: PullHold, owner: int, deadline_ms: int) -> None:
        self.hold = hold
        self.owner = owner
        self.deadline_ms = deadline_ms
        self.done = False
        self.stays = False


class _Parked:
    """One queue with holds."""

    __slots__ = ("entries", "passed", "queue")

    def __init__(self, queue: QueueRef) -> None:
        self.queue = queue
        self.entries: set[_Entry] = set()
        self.passed = -1
        """Max offset up to which every hold has looked; -1: look at each of them."""


class PullHolds:
    """All held requests of this worker."""

    def __init__(self, parking: RingParking, count: Callable[[str, int], None]) -> None:
        """``count`` receives ``pulls_held``, ``pulls_held_refused`` and ``pulls_timed_out``."""
        self._parking = parking
        self._count = count
        self._entries: dict[PullHold, _Entry] = {}
        self._by_queue: dict[int, _Parked] = {}
        self._by_owner: dict[int, set[_Entry]] = {}
        self._by_group: dict[str, set[_Entry]] = {}
        self._staying: dict[tuple[int, Hashable], _Entry] = {}
        """Answered, as their time was over; by owner and key."""
        self._deadlines: list[tuple[int, int, _Entry]] = []
        self._sequence = itertools.count()
        self._held = 0
        self._looked_at: tuple[int, int] | None = None
        """`positions` before the last look."""

    def __len__(self) -> int:
        """Count the queues that holds wait for, once for each hold."""
        return self._held

    def park(self, hold: PullHold, owner: int, deadline_ms: int, now_ms: int) -> bool:
        """Hold a request of connection ``owner`` until messages come or ``deadline_ms``.

        Messages that came since the caller read are seen here: then the hold is woken, and perhaps
        answered, before this returns. False when a bound is reached: the caller answers at once.
        """
        owned = self._by_owner.get(owner)
        if self._held >= limits.HOLDS_MAX or (owned and len(owned) >= limits.HOLDS_PER_CONNECTION_MAX):
            self._count("pulls_held_refused", 1)
            return False
        entry = self._entries[hold] = _Entry(hold, owner, deadline_ms)
        self._by_owner.setdefault(owner, set()).add(entry)
        self._by_group.setdefault(hold.group, set()).add(entry)
        self._set_deadline(entry, deadline_ms)
        self._held += len(hold.queues)
        self._count("pulls_held", 1)
        is_behind = False
        for queue in hold.queues:
            parked = self._by_queue.get(queue.slot)
            if parked is None:
                self._parking.park(queue)
                parked = self._by_queue[queue.slot] = _Parked(queue)
            parked.entries.add(entry)
            if hold.is_behind(queue, self._parking.max_offset(queue)):
                is_behind = True
                parked.passed = -1
        if is_behind:
            self._looked_at = None
            self._parking.await_flush(True)
            self._look(entry, Wake.NEW_MESSAGES, now_ms)
        return True

    def staying(self, owner: int, key: Hashable) -> PullHold | None:
        """Return the hold of that connection and key that stayed when its time was over."""
        entry = self._staying.get((owner, key))
        return None if entry is None else entry.hold

    def prolong(self, hold: PullHold, deadline_ms: int) -> None:
        """Go on with a hold that stayed."""
        entry = self._entries[hold]
        self._stay_no_more(entry)
        self._set_deadline(entry, deadline_ms)
        self._count("pulls_held", 1)

    def _stay(self, entry: _Entry, until_ms: int) -> None:
        place = entry.owner, entry.hold.key
        former = self._staying.get(place)
        if former is not None:
            self._remove(former)
        self._staying[place] = entry
        entry.stays = True
        self._set_deadline(entry, until_ms)

    def _stay_no_more(self, entry: _Entry) -> None:
        if entry.stays:
            entry.stays = False
            del self._staying[entry.owner, entry.hold.key]

    def _set_deadline(self, entry: _Entry, deadline_ms: int) -> None:
        entry.deadline_ms = deadline_ms
        heapq.heappush(self._deadlines, (deadline_ms, next(self._sequence), entry))

    def next_deadline_ms(self) -> int | None:
        """Return the earliest deadline, None when nothing is held."""
        while self._deadlines and (
            self._deadlines[0][2].done or self._deadlines[0][2].deadline_ms != self._deadlines[0][0]
        ):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def step(self, now_ms: int) -> int | None:
        """Wake what has news or is due; return the next deadline."""
        if self._entries:
            self._wake_by_news(now_ms)
            self._wake_by_deadline(now_ms)
            if len(self._deadlines) > 64 + 4 * len(self._entries):
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
        for parked in list(self._by_queue.values()):
            max_offset = self._parking.max_offset(parked.queue)
            if parked.passed == max_offset:
                continue
            behind = False
            for entry in list(parked.entries):
                if not entry.done and entry.hold.is_behind(parked.queue, max_offset):
                    self._look(entry, Wake.NEW_MESSAGES, now_ms)
                    behind = behind or (not entry.done and entry.hold.is_behind(parked.queue, max_offset))
            if not behind:
                parked.passed = max_offset
            unseen = unseen or behind
        return unseen

    def _wake_by_deadline(self, now_ms: int) -> None:
        """End what is due, a turn's share of it."""
        ended = 0
        while self._deadlines and self._deadlines[0][0] <= now_ms and ended < limits.HOLDS_ENDED_PER_TURN:
            deadline_ms, _, entry = heapq.heappop(self._deadlines)
            if entry.done or entry.deadline_ms != deadline_ms:
                continue
            until_ms = None if entry.stays else entry.hold.wake(Wake.TIMED_OUT, now_ms)
            if until_ms is None:
                self._remove(entry)
            else:
                self._stay(entry, until_ms)
            ended += 1
        if ended:
            self._count("pulls_timed_out", ended)

    def _look(self, entry: _Entry, why: Wake, now_ms: int) -> None:
        """Let one hold try again; it is over, or waits on until its deadline."""
        deadline_ms = None if entry.stays else entry.hold.wake(why, now_ms)
        if deadline_ms is None:
            self._remove(entry)
        elif deadline_ms < entry.deadline_ms:
            self._set_deadline(entry, deadline_ms)

    def _remove(self, entry: _Entry) -> None:
        """Forget one hold; the last one of a queue takes the ring back."""
        if entry.done:
            return
        entry.done = True
        self._stay_no_more(entry)
        hold = entry.hold
        del self._entries[hold]
        self._held -= len(hold.queues)
        for queue in hold.queues:
            parked = self._by_queue[queue.slot]
            parked.entries.discard(entry)
            if not parked.entries:
                del self._by_queue[queue.slot]
                self._parking.unpark(queue)
        _discard(self._by_owner, entry.owner, entry)
        _discard(self._by_group, hold.group, entry)

    def look_again(self, topic: str | None, group: str | None, now_ms: int) -> None:
        """Judge holds again: a topic or a group has changed, or (both None) anything may have."""
        if topic is None and group is None:
            concerned = list(self._entries.values())
        else:
            concerned = list(self._by_group.get(group or "", ()))
            alike = [parked for parked in self._by_queue.values() if parked.queue.topic == topic]
            concerned += {entry for parked in alike for entry in parked.entries}
        for entry in concerned:
            if not entry.done:
                self._look(entry, Wake.RULES_CHANGED, now_ms)

    def end(self, hold: PullHold, now_ms: int) -> None:
        """Answer one hold as if its time were over; nothing when it is over already."""
        entry = self._entries.get(hold)
        if entry is not None:
            self._end(entry, now_ms)

    def _end(self, entry: _Entry, now_ms: int) -> None:
        if not entry.stays:
            entry.hold.wake(Wake.TIMED_OUT, now_ms)
        self._remove(entry)

    def drop_owner(self, owner: int) -> None:
        """Forget the holds of a connection that has closed."""
        for entry in list(self._by_owner.get(owner, ())):
            self._remove(entry)

    def release_all(self, now_ms: int) -> None:
        """Answer every hold as if its time were over: the worker is draining."""
        for entry in list(self._entries.values()):
            self._end(entry, now_ms)


def _discard(index: dict[K, set[_Entry]], key: K, entry: _Entry) -> None:
    """Take an entry out of an index."""
    alike = index[key]
    alike.discard(entry)
    if not alike:
        del index[key]
