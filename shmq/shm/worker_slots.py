"""Worker slots: one row per process that appends, reads or rings, so that a death can be seen and cleaned up.

    PID START_TIME    who it is, as a pid alone may have been given out again; by the supervisor, before "go"
    STATE             SlotState, by the owner
    PHASE CLAIM_SEQ   the AppendLock's, by the owner
    CONNECTIONS       clients it serves, by the owner
    BEAT_MS           monotonic ms of its last turn, by the owner

Slots are fixed: 0 flusher thread (only its bell and ring bytes), 1 coordinator, 2.. workers, 31 segment
allocator thread (only its bell). One slot belongs to one thread. The supervisor fills a slot only when its
phase is IDLE.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

from shmq.base.errors import Bug
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage

FLUSHER_SLOT = 0
COORDINATOR_SLOT = 1
FIRST_WORKER_SLOT = 2
ALLOCATOR_SLOT = at.SLOT_COUNT - 1
WORKERS_MAX = ALLOCATOR_SLOT - FIRST_WORKER_SLOT


class Phase(IntEnum):
    """Where a slot's owner is in the AppendLock's protocol (word PHASE)."""

    IDLE = 0
    WANTING = 1
    HOLDING = 2


class SlotState(IntEnum):
    """What a slot's process does (word STATE)."""

    FREE = 0
    STARTING = 1
    SERVING = 2
    DRAINING = 3


class WorkerSlot:
    """One row; hot callers keep the word index `phase_word` instead of calling."""

    __slots__ = ("_first", "_words", "number", "phase_word")

    def __init__(self, page: ControlPage, number: int) -> None:
        """Look at slot `number` of the page."""
        if not 0 <= number < at.SLOT_COUNT:
            raise Bug(f"there is no slot {number}")
        self.number = number
        self._words = page.words
        self._first = at.WORKER_SLOTS + number * at.SLOT_WORDS
        self.phase_word = self._first + at.SLOT_PHASE

    def fill(self, pid: int, start_time: int) -> None:
        """Give the slot to a new process. The supervisor's spawning thread, before the child may append."""
        if self.phase != Phase.IDLE:
            raise Bug(f"slot {self.number} is filled again before its last owner was repaired")
        words, first = self._words, self._first
        words[first + at.SLOT_CONNECTIONS] = 0
        words[first + at.SLOT_STATE] = SlotState.STARTING
        words[first + at.SLOT_START_TIME] = start_time
        words[first + at.SLOT_PID] = pid

    def empty(self) -> None:
        """Take the slot back from a dead process whose phase is IDLE (again). Supervisor only."""
        self._words[self._first + at.SLOT_STATE] = SlotState.FREE
        self._words[self._first + at.SLOT_CONNECTIONS] = 0
        self._words[self._first + at.SLOT_PID] = 0

    @property
    def pid(self) -> int:
        """The owner's pid, 0 when the slot is free."""
        return self._words[self._first + at.SLOT_PID]

    @property
    def start_time(self) -> int:
        """The owner's start time as `process_start_time` returns it."""
        return self._words[self._first + at.SLOT_START_TIME]

    @property
    def phase(self) -> Phase:
        """Where the owner is in the AppendLock's protocol."""
        return Phase(self._words[self.phase_word])

    @property
    def claim_seq(self) -> int:
        """How often the slot has held the AppendLock."""
        return self._words[self._first + at.SLOT_CLAIM_SEQ]

    @property
    def state(self) -> SlotState:
        """What the owner does."""
        return SlotState(self._words[self._first + at.SLOT_STATE])

    @state.setter
    def state(self, state: SlotState) -> None:
        self._words[self._first + at.SLOT_STATE] = state

    @property
    def connections(self) -> int:
        """How many client connections the owner serves."""
        return self._words[self._first + at.SLOT_CONNECTIONS]

    @connections.setter
    def connections(self, count: int) -> None:
        self._words[self._first + at.SLOT_CONNECTIONS] = count

    @property
    def beat_ms(self) -> int:
        """Monotonic milliseconds of the owner's last turn."""
        return self._words[self._first + at.SLOT_BEAT_MS]

    @beat_ms.setter
    def beat_ms(self, now_ms: int) -> None:
        self._words[self._first + at.SLOT_BEAT_MS] = now_ms


class SlotTable:
    """All slots of a page, by number."""

    def __init__(self, page: ControlPage) -> None:
        """Look at the rows of `page`."""
        self._slots = [WorkerSlot(page, number) for number in range(at.SLOT_COUNT)]

    def __getitem__(self, number: int) -> WorkerSlot:
        """Return slot `number`."""
        return self._slots[number]

    def taken(self) -> list[WorkerSlot]:
        """Return the slots that belong to a process."""
        return [slot for slot in self._slots if slot.pid]


def process_start_time(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot; ProcessLookupError when it is gone."""
    return int(_stat_fields(pid)[19])


def process_state(pid: int) -> str:
    """Return the kernel's state letter of a process: R S D T t Z X ...; X when it is gone."""
    try:
        return _stat_fields(pid)[0]
    except ProcessLookupError:
        return "X"


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat behind the name, which may itself hold blanks and parentheses."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"there is no process {pid}") from None
    return text.rpartition(")")[2].split()
