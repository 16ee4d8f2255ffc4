"""How far the timers are: eight words of the page, and `config/timercheck`.

    taken      queue offset in rmq_sys_wheel_timer: below: in the wheel, or delivered when it came
    kept       queue offset: what is below is over, or was appended once more; the wheel is made from here on
    fired      (ms, physical offset) of the timer delivered last, in the order in which they are due. A timer
               is over when it is not behind it
    before     the same from before the clock was set back, for timers below a physical offset

So the wheel and its log need never be believed: a timer that they name is delivered only if it is not over. A
claim that delivers moves `fired`, or `taken` when the timer was overdue as it came: it is in the log once,
whoever dies. The file is for a start without the page (power loss); it only says what the disk covers.

    timercheck  4096 bytes, big-endian i64: +0 lastReadTimeMs  +8 lastTimerLogFlushPos (0)
                +16 lastTimerQueueOffset  +24 the same  +32 data version (state, time, counter)
                +64 mark of shmq  +72 kept  +80 fired, at  +88 before, ms  +96 at  +104 end

(Apache RocketMQ 5.3, TimerCheckpoint.java, up to +56.) Coordinator's loop only; `export` waits for the disk.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from shmq.base.clock import SYSTEM_CLOCK, Clock
from shmq.base.files import write_durably
from shmq.shm import page_layout as at
from shmq.shm.append_journal import AppendJournal
from shmq.shm.append_lock import AppendLock
from shmq.shm.control_page import ControlPage

FILE_BYTES = 4096
_MARK = int.from_bytes(b"shmqtime")
_FILE = struct.Struct(">7q8x6q")

Due = tuple[int, int]
"""(ms, physical offset): the order in which timers are delivered."""


class _State(NamedTuple):
    """What the file keeps."""

    taken: int
    kept: int
    fired: Due
    before: Due
    before_end: int


class TimerCursors:
    """The timers' words."""

    def __init__(self, path: Path, page: ControlPage, lock: AppendLock, clock: Clock = SYSTEM_CLOCK) -> None:
        """Nothing is looked at before `open`."""
        self._path = path
        self._page = page
        self._words = page.words
        self._lock = lock
        self._clock = clock
        self._counter = 0
        self._saved: _State | None = None
        self._noted: tuple[int, _State] | None = None

    def open(self) -> bool:
        """On a new page the words become what the file says; tell whether it is new."""
        self._saved = self._load()
        if any(self._words[word] for word in range(at.TIMER_TAKEN, at.TIMER_LOG_END + 1)):
            return False
        taken, kept, fired, before, before_end = self._saved
        self._claim(
            (
                (at.TIMER_TAKEN, taken),
                (at.TIMER_KEPT, kept),
                (at.TIMER_FIRED_MS, fired[0]),
                (at.TIMER_FIRED_AT, fired[1]),
                (at.TIMER_BEFORE_MS, before[0]),
                (at.TIMER_BEFORE_AT, before[1]),
                (at.TIMER_BEFORE_END, before_end),
            )
        )
        return True

    # -- words --

    @property
    def taken(self) -> int:
        """The next queue offset to take into the wheel."""
        return self._words[at.TIMER_TAKEN]

    @taken.setter
    def taken(self, queue_offset: int) -> None:
        self._words[at.TIMER_TAKEN] = queue_offset

    @property
    def kept(self) -> int:
        """The first queue offset that may still be waited for."""
        return self._words[at.TIMER_KEPT]

    @kept.setter
    def kept(self, queue_offset: int) -> None:
        self._words[at.TIMER_KEPT] = queue_offset

    @property
    def fired(self) -> Due:
        """The timer delivered last."""
        return self._words[at.TIMER_FIRED_MS], self._words[at.TIMER_FIRED_AT]

    @property
    def log_end(self) -> int:
        """Where the next unit of the timer log goes."""
        return self._words[at.TIMER_LOG_END]

    @log_end.setter
    def log_end(self, position: int) -> None:
        self._words[at.TIMER_LOG_END] = position

    def is_over(self, due: Due) -> bool:
        """Tell whether a timer that was taken in has been delivered, or passed over."""
        words = self._words
        if due <= (words[at.TIMER_FIRED_MS], words[at.TIMER_FIRED_AT]):
            return True
        return due[1] < words[at.TIMER_BEFORE_END] and due <= self._before

    @property
    def _before(self) -> Due:
        return self._words[at.TIMER_BEFORE_MS], self._words[at.TIMER_BEFORE_AT]

    @staticmethod
    def fires(due: Due) -> tuple[tuple[int, int], tuple[int, int]]:
        """The words, with new values, for the claim that delivers a timer."""
        return (at.TIMER_FIRED_MS, due[0]), (at.TIMER_FIRED_AT, due[1])

    @staticmethod
    def takes(queue_offset: int) -> tuple[int, int]:
        """The word, with its new value, for the claim that delivers a timer as it comes."""
        return at.TIMER_TAKEN, queue_offset

    @staticmethod
    def keeps(queue_offset: int) -> tuple[int, int]:
        """The word, with its new value, for the claim that appends a timer once more."""
        return at.TIMER_KEPT, queue_offset

    def can_set_back(self) -> bool:
        """Whether `set_back` may be called: the clock has made up for the last time."""
        return self.fired >= self._before

    def set_back(self, now_ms: int, end: int) -> None:
        """The clock was set back: what is over below physical offset `end` stays over, and later timers are
        counted from now on. One claim without a record: all words, or none."""
        fired = self.fired
        self._claim(
            (
                (at.TIMER_BEFORE_MS, fired[0]),
                (at.TIMER_BEFORE_AT, fired[1]),
                (at.TIMER_BEFORE_END, end),
                (at.TIMER_FIRED_MS, now_ms),
                (at.TIMER_FIRED_AT, 0),
            )
        )

    def _claim(self, pairs: tuple[tuple[int, int], ...]) -> None:
        journal = AppendJournal(self._page)
        with self._lock:
            position = self._words[at.WRITE_POSITION]
            journal.prepare(position, position, self._words[at.LAST_STORE_TIME], (), pairs)
            journal.committed()
            journal.publish()

    # -- the file --

    def export(self) -> bool:
        """Write what was noted last time when the disk covers it, and note what is now.

        True when the file says what the page says.
        """
        words = self._words
        if self._noted is not None and words[at.FLUSHED_POSITION] >= self._noted[0]:
            self._save(self._noted[1])
            self._noted = None
        current = _State(self.taken, self.kept, self.fired, self._before, words[at.TIMER_BEFORE_END])
        if self._noted is None and current != self._saved:
            self._noted = (words[at.WRITE_POSITION], current)
        return current == self._saved

    def _save(self, state: _State) -> None:
        self._counter += 1
        data = _FILE.pack(
            *(state.fired[0], 0, state.taken, state.taken),
            *(0, self._clock.now_ms(), self._counter),
            *(_MARK, state.kept, state.fired[1], *state.before, state.before_end),
        )
        write_durably(self._path, data.ljust(FILE_BYTES, b"\0"), backup=False)
        self._saved = state

    def _load(self) -> _State:
        """What the file says; of RocketMQ's own only what it knows; nothing of one that makes no sense."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            data = b""
        if len(data) < _FILE.size:
            return _State(0, 0, (0, 0), (0, 0), 0)
        fired_ms, _, taken, _, _, _, self._counter, mark, kept, fired_at, *before = _FILE.unpack_from(data)
        if mark != _MARK:
            return _State(max(0, taken), 0, (max(0, fired_ms), 0), (0, 0), 0)
        return _State(taken, kept, (fired_ms, fired_at), (before[0], before[1]), before[2])
