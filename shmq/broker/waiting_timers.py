"""The timers that wait, in the order in which they are due: wheel, log, and the second that is looked at.

    add    a unit at the log's end, the slot of its second points to it. Later than the wheel's window
           (`timerRollWindowSlot`): a roll unit at the window's end, placed anew when that second comes
    peek   the earliest timer: the chain of one second at a time, sorted; and what was added to seconds that
           were read already

Only that second is in this process's memory; the rest is in the two files' pages. What it gives out may be
over already, or be there twice: the caller compares with the cursors. Coordinator's loop only.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shmq.broker.timer_cursors import Due, TimerCursors
from shmq.model.subscription import java_hash
from shmq.model.timer import WaitingTimer
from shmq.store.timer_log import CANCELS, DEFAULT, ROLL, TimerLog, TimerUnit, pack_unit
from shmq.store.timer_wheel import PRECISION_MS, TimerWheel

AHEAD_MS = 1500
"""A second's chain is read so long before it begins."""
UNITS_PER_LOOK = 4096
"""Units of a chain read at a time: some milliseconds."""
GAP_SECONDS = 64
"""Empty seconds looked at one by one, before the whole wheel is searched for the next."""

_DELAY_MAX = 2**31 - 1
_Chain = tuple[int, int, int, int]
"""A second; first and last timer log position of its chain; how many units."""
_NOTHING: npt.NDArray[np.int64] = np.empty(0, np.int64)


class Timer(NamedTuple):
    """One waiting message, or one that cancels another."""

    due: Due
    cancels: bool

    @property
    def ms(self) -> int:
        """When it is due."""
        return self.due[0]

    @property
    def physical_offset(self) -> int:
        """Where its record is."""
        return self.due[1]


class WaitingTimers:
    """All waiting timers of this broker."""

    def __init__(
        self,
        wheel_path: Path,
        log_folder: Path,
        segment_bytes: int,
        window_seconds: int,
        cursors: TimerCursors,
        describe: Callable[[int], tuple[WaitingTimer, str] | None],
    ) -> None:
        """`describe` reads the record at a physical offset: what the wheel wants to know, and what it cancels
        ("" for nothing)."""
        self._wheel_path = wheel_path
        self._log_folder = log_folder
        self._segment_bytes = segment_bytes
        self._window = window_seconds
        self._cursors = cursors
        self._describe = describe
        self.is_filling = False
        """The wheel is being made again: timers come in the order of their arrival, not before any is due."""
        self._wheel: TimerWheel | None = None
        self._log: TimerLog | None = None
        self._end = 0
        self._reading = 0
        self._run = _Run()
        self._fresh: list[Timer] = []
        self._cancels: dict[tuple[int, str], int] = {}
        self._chain: Iterator[TimerUnit] | None = None

    # -- files --

    def open_kept(self) -> bool:
        """Use the files as they are; False when they are not there, or cannot be trusted."""
        end = self._cursors.log_end
        if end <= 0:
            return False
        try:
            log = TimerLog(self._log_folder, self._segment_bytes, make=False)
            wheel = TimerWheel(self._wheel_path, make=False)
        except OSError:
            return False
        if not log.has(end):
            return False
        self._log, self._wheel, self._end = log, wheel, end
        self._read_from(self._cursors.fired[0] // PRECISION_MS)
        return True

    def _make(self, from_ms: int) -> tuple[TimerWheel, TimerLog]:
        self._cursors.log_end = 0
        self._log = TimerLog(self._log_folder, self._segment_bytes, make=True)
        self._wheel = TimerWheel(self._wheel_path, make=True)
        self._end = 0
        self._reading = from_ms // PRECISION_MS
        return self._wheel, self._log

    def _read_from(self, second: int) -> None:
        self._reading = second
        self._run = _Run()
        self._chain = None
        self._fresh.clear()

    def follow_clock(self, now_ms: int) -> None:
        """When the clock went back behind what was read, read those seconds again."""
        now_s = now_ms // PRECISION_MS
        if self._wheel is not None and self._reading > now_s + 2 + AHEAD_MS // PRECISION_MS:
            head = self._head()
            lowest = now_s if head is None else min(now_s, head.ms // PRECISION_MS)
            self._read_from(max(lowest, 0))

    # -- adding --

    def add(self, timers: Sequence[tuple[Timer, WaitingTimer, int]], now_ms: int) -> None:
        """Add timers with their descriptions and record sizes. OSError when the disk refuses: none counts."""
        if not timers:
            return
        wheel, log = self._wheel, self._log
        if wheel is None or log is None:
            lowest = min(timer.ms for timer, _, _ in timers)
            wheel, log = self._make(self._cursors.fired[0] if self.is_filling else min(lowest, now_ms))
        places = log.places(self._end, len(timers))
        slots: dict[int, _Chain] = {}
        units = []
        behind: list[Timer] = []
        trusted = self._cursors.log_end >= 0
        fired_ms = self._cursors.fired[0]
        for (timer, described, size), place in zip(timers, places, strict=True):
            slot = self._slot_for(wheel, slots, timer.due[0] // PRECISION_MS, now_ms)
            second, first, last, count = slot
            rolls = second != timer.due[0] // PRECISION_MS
            if second < self._reading:
                behind.append(timer)
            trusted &= second * PRECISION_MS + PRECISION_MS > fired_ms
            at_ms = second * PRECISION_MS if rolls else timer.due[0]
            base_ms = now_ms if abs(at_ms - now_ms) < _DELAY_MAX else at_ms
            magic = DEFAULT | (ROLL if rolls else 0) | (CANCELS if timer.cancels else 0)
            topic_hash = java_hash(described.real_topic)
            units.append(pack_unit(last, magic, base_ms, at_ms, timer.due[1], size, topic_hash))
            slots[second] = (second, first if count else place, place, count + 1)
        end = log.write(places, units)
        self._end = end
        self._cursors.log_end = end if trusted else -1
        for second, first, last, count in slots.values():
            wheel.write(second, first, last, count)
        for timer in behind:
            self._note(timer)

    def _slot_for(self, wheel: TimerWheel, slots: dict[int, _Chain], second: int, now_ms: int) -> _Chain:
        """The chain that takes a timer: of its own second, or of an earlier one whose slot is free."""
        second = min(second, max(now_ms // PRECISION_MS + self._window, self._reading))
        while True:
            chain = slots.get(second)
            if chain is not None:
                return chain
            found = wheel.occupant(second)
            if found.second == second and found.units:
                return second, found.first, found.last, found.units
            if found.second < self._reading or not found.units:
                return second, -1, -1, 0
            second -= 1

    def _note(self, timer: Timer) -> None:
        """Remember a timer of a second that was read already."""
        if timer.cancels:
            described = self._describe(timer.physical_offset)
            if described is not None:
                self.cancel(timer.ms, described[1], timer.physical_offset)
        else:
            heapq.heappush(self._fresh, timer)

    def cancel(self, due_ms: int, key: str, physical_offset: int) -> None:
        """Have those timers with that key and moment suppressed that lie before `physical_offset`."""
        self._cancels[due_ms, key] = max(physical_offset, self._cancels.get((due_ms, key), 0))

    def forget_cancels(self, taken_at: int) -> None:
        """Keep only what the wheel does not say, or has said already: cancellations behind a physical offset,
        and those for what is being given out. The others are read again with their second."""
        before_ms, read_ms = self.frontier[0], self._reading * PRECISION_MS
        self._cancels = {
            at: place
            for at, place in self._cancels.items()
            if place >= taken_at or before_ms <= at[0] < read_ms
        }

    def is_cancelled(self, timer: Timer, keys: Sequence[str]) -> bool:
        """Whether one of a timer's keys was cancelled. Known once its second is read."""
        return any(self._cancels.get((timer.ms, key), 0) > timer.physical_offset for key in keys)

    @property
    def has_cancels(self) -> bool:
        """Whether there is any to be compared with."""
        return bool(self._cancels)

    # -- taking --

    @property
    def is_reading(self) -> bool:
        """Whether a chain is being read: `peek` knows more at its next call."""
        return self._chain is not None

    @property
    def frontier(self) -> Due:
        """Every timer before it has been given out."""
        if self._chain is not None:
            return (0, 0)
        head = self._head()
        return head.due if head is not None else (self._reading * PRECISION_MS, 0)

    def peek(self, now_ms: int) -> Timer | None:
        """The earliest timer; None when none is near, or its second is still being read."""
        wheel, log = self._wheel, self._log
        if wheel is None or log is None:
            return None
        empty = 0
        while True:
            if self._chain is not None:
                try:
                    whole = self._read_on(self._chain, now_ms)
                except OSError:
                    self._read_from(self._reading - 1)
                    raise
                if not whole:
                    return None
            head = self._head()
            limit = (now_ms + AHEAD_MS) // PRECISION_MS
            if self._reading > limit or (head is not None and head.ms // PRECISION_MS < self._reading):
                return head
            slot = wheel.read(self._reading)
            if slot is None:
                empty += 1
                self._reading += 1
                if empty > GAP_SECONDS:
                    found = wheel.next_after(self._reading)
                    self._reading = limit + 1 if found is None else min(found, limit + 1)
                    empty = 0
                continue
            self._reading += 1
            self._run = _Run()
            self._chain = log.chain(slot.last)

    def _read_on(self, chain: Iterator[TimerUnit], now_ms: int) -> bool:
        """Read a piece of the chain; True when it is read to its end."""
        rolled: list[tuple[Timer, WaitingTimer, int]] = []
        count = 0
        for unit in islice(chain, UNITS_PER_LOOK):
            count += 1
            if unit.magic == DEFAULT:
                self._run.append(unit.at_ms, unit.physical_offset)
                continue
            described = self._describe(unit.physical_offset)
            if described is None:
                continue
            timer = Timer((described[0].due_ms, unit.physical_offset), described[0].cancels)
            if unit.magic & ROLL:
                if not self._cursors.is_over(timer.due):
                    rolled.append((timer, described[0], unit.size))
            else:
                self.cancel(timer.ms, described[1], timer.physical_offset)
        self.add(rolled, now_ms)
        if count == UNITS_PER_LOOK:
            return False
        self._chain = None
        self._run.sort()
        return True

    def _head(self) -> Timer | None:
        of_run = self._run.head()
        if of_run is None or (self._fresh and self._fresh[0].due < of_run.due):
            return self._fresh[0] if self._fresh else None
        return of_run

    def pop(self) -> None:
        """Take away what `peek` returned."""
        of_run = self._run.head()
        if of_run is None or (self._fresh and self._fresh[0].due < of_run.due):
            heapq.heappop(self._fresh)
        else:
            self._run.pop()

    def push_back(self, timers: Sequence[Timer]) -> None:
        """Give timers back that could not be delivered yet."""
        for timer in timers:
            heapq.heappush(self._fresh, timer)

    def drop_read(self) -> None:
        """Unlink the timer log's segments that nothing waits in."""
        if self._log is not None:
            self._log.drop_before(self._reading - 1, self._end)

    def close(self) -> None:
        """Close the files."""
        for file in (self._wheel, self._log):
            if file is not None:
                file.close()


class _Run:
    """The timers of one second, in their order."""

    def __init__(self) -> None:
        self._ms = array("q")
        self._places = array("q")
        self._due_ms = self._due_at = _NOTHING
        self._next = 0

    def append(self, due_ms: int, physical_offset: int) -> None:
        """Add one; all are added before `sort`."""
        self._ms.append(due_ms)
        self._places.append(physical_offset)

    def sort(self) -> None:
        """Bring them into their order."""
        due_ms, places = np.array(self._ms, np.int64), np.array(self._places, np.int64)
        order = np.lexsort((places, due_ms))
        self._due_ms, self._due_at = due_ms[order], places[order]
        self._ms, self._places = array("q"), array("q")

    def head(self) -> Timer | None:
        """The first that is left."""
        if self._next >= len(self._due_ms):
            return None
        return Timer((int(self._due_ms[self._next]), int(self._due_at[self._next])), False)

    def pop(self) -> None:
        """Take it away."""
        self._next += 1
