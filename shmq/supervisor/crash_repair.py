"""Repair of the shared state after a process died inside the append protocol, and the finder of those that
hang there.

Runs in the supervisor's main thread, the one that also spawns, so no slot is filled meanwhile. A semaphore
does not know its owner, so the world must stand still: every living appender IDLE, the others dead. Then
nobody but us stores any word of the journal, and what the dead holder left is either undone (PREPARED) or
carried out (COMMITTED).

Every step may be repeated from the start: if the supervisor dies in here, its successor repairs whole,
whatever slots and quiesce say. An error in here must end the supervisor for the same reason: nothing else
would ever let the world go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import posix_ipc

from shmq.base import faults, log
from shmq.base.clock import SYSTEM_CLOCK, Clock
from shmq.shm import page_layout as at
from shmq.shm.append_journal import AppendJournal, Claim, JournalState
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import SlotCounters
from shmq.shm.doorbell import Doorbell
from shmq.shm.rings import clear_slot, ring_all
from shmq.shm.worker_slots import (
    ALLOCATOR_SLOT,
    COORDINATOR_SLOT,
    FLUSHER_SLOT,
    Phase,
    SlotTable,
    WorkerSlot,
    process_state,
)

_log = log.get(__name__)

APPENDER_SLOTS = range(COORDINATOR_SLOT, ALLOCATOR_SLOT)
"""Slots whose owners may take the AppendLock. The others belong to threads of this process."""

STORE_BUFFER_S = 0.002
"""Longer than a core keeps a store to itself: then every appender sees quiesce, and we its phase."""

PAUSE_S = 0.0005

KILL_AFTER_MS = {"T": 0, "t": 0, "D": 10_000}
"""How long an appender may stay inside, by its kernel state: stopped, traced, in disk wait."""

KILL_RUNNING_AFTER_MS = 2_000

faults.declare(
    {
        "repair.quiesced": "quiesce is 1, appenders may still be inside",
        "repair.still": "the world stands still, nothing repaired",
        "repair.log_zeroed": "the claim's bytes are zero, its units not",
        "repair.units_zeroed": "bytes and units are zero, the journal still PREPARED",
        "repair.applied": "all positions stored, the journal still COMMITTED",
        "repair.journal_emptied": "the journal is EMPTY, dead slots not cleared",
        "repair.slots_cleared": "dead slots are IDLE, the semaphore not looked at",
        "repair.semaphore_drained": "the semaphore is 0 and nobody holds it",
        "repair.semaphore_free": "the semaphore is 1, quiesce still 1",
        "repair.resumed": "quiesce is 0, nobody rung",
    }
)


class RepairReport(NamedTuple):
    """What a repair found and did."""

    journal: JournalState
    claim: Claim | None
    killed_slots: list[int]
    stood_still_ms: int


def needs_repair(page: ControlPage, dead_slot: int) -> bool:
    """Tell whether the death of that slot's process asks for a repair, or only for `tidy_dead_slot`."""
    return page.words[at.WORKER_SLOTS + dead_slot * at.SLOT_WORDS + at.SLOT_PHASE] != Phase.IDLE


def tidy_dead_slot(page: ControlPage, dead_slot: int, bells: Sequence[Doorbell]) -> None:
    """Clean up after a death in IDLE: nobody rings it any more; ring all, as it may have owed rings."""
    clear_slot(page, dead_slot)
    ring_all(bells)


def repair(
    page: ControlPage,
    *,
    live_slots: Collection[int],
    kill: Callable[[int], None],
    is_dead: Callable[[int], bool],
    zero_log: Callable[[int, int], None],
    zero_units: Callable[[int, int, int], None],
    bells: Sequence[Doorbell],
    semaphore: posix_ipc.Semaphore,
    clock: Clock = SYSTEM_CLOCK,
    state_of: Callable[[int], str] = process_state,
    pause: Callable[[float], None] = time.sleep,
) -> RepairReport:
    """Stop the world, settle the journal, free the lock, let the world go on.

    `live_slots` are the slots filled for children, dead or not: `is_dead(slot)` says whether the pidfd is
    readable, `kill(slot)` sends SIGKILL. Empty at a start on a kept page, under LOCK_EX of appenders.lock.
    `zero_log(start, end)` zeroes CommitLog bytes, over a segment's end too, `zero_units(slot, old_max,
    new_max)` those units of the queue.
    """
    words = page.words
    words[at.QUIESCE] = 1
    started_ms = clock.monotonic_ms()
    faults.reach("repair.quiesced")
    pause(STORE_BUFFER_S)
    still = _StandStill(SlotTable(page), live_slots, kill, is_dead, state_of)
    while not still.reached(clock.monotonic_ms()):
        pause(PAUSE_S)
    faults.reach("repair.still")

    state, claim = _settle_journal(AppendJournal(page), zero_log, zero_units)
    faults.reach("repair.journal_emptied")

    for slot in APPENDER_SLOTS:
        if slot not in still.living:
            clear_slot(page, slot)
            words[at.WORKER_SLOTS + slot * at.SLOT_WORDS + at.SLOT_PHASE] = Phase.IDLE
    faults.reach("repair.slots_cleared")
    _free(semaphore)
    faults.reach("repair.semaphore_free")
    words[at.QUIESCE] = 0
    faults.reach("repair.resumed")
    ring_all(bells)
    report = RepairReport(state, claim, still.killed, clock.monotonic_ms() - started_ms)
    _count_and_log(page, report)
    return report


def _settle_journal(
    journal: AppendJournal, zero_log: Callable[[int, int], None], zero_units: Callable[[int, int, int], None]
) -> tuple[JournalState, Claim | None]:
    """Undo or carry out what a dead holder began; return how far it had got, and what it was."""
    state = journal.state
    if state == JournalState.EMPTY:
        return state, None
    claim = journal.read_claim()
    if state == JournalState.PREPARED:
        zero_log(claim.start, claim.end)
        faults.reach("repair.log_zeroed")
        for slot, _, old_max, new_max in claim.entries:
            zero_units(slot, old_max, new_max)
        faults.reach("repair.units_zeroed")
    else:
        journal.apply_again()
        faults.reach("repair.applied")
    journal.clear()
    return state, claim


def _free(semaphore: posix_ipc.Semaphore) -> None:
    """Make the semaphore's value 1, whatever a dead holder or a dead repair left it at."""
    while True:
        try:
            semaphore.acquire(0)
        except posix_ipc.BusyError:
            break
    faults.reach("repair.semaphore_drained")
    semaphore.release()


def _count_and_log(page: ControlPage, report: RepairReport) -> None:
    """Leave a trace of the repair for people: counters of the supervisor's slot and one line."""
    counters = SlotCounters(page, FLUSHER_SLOT)
    counters.add("repairs")
    counters.add("repair_micros", report.stood_still_ms * 1000)
    log.event(
        _log,
        logging.WARNING,
        "shared_state_repaired",
        journal=report.journal.name,
        claim=report.claim and f"[{report.claim.start},{report.claim.end})",
        killed_slots=report.killed_slots,
        stood_still_ms=report.stood_still_ms,
    )


class _StandStill:
    """Waits until every living appender is IDLE, kills those that do not leave, takes in deaths."""

    def __init__(
        self,
        slots: SlotTable,
        live_slots: Collection[int],
        kill: Callable[[int], None],
        is_dead: Callable[[int], bool],
        state_of: Callable[[int], str],
    ) -> None:
        self.living = set(live_slots)
        self.killed: list[int] = []
        self._slots = slots
        self._kill = kill
        self._is_dead = is_dead
        self._state_of = state_of
        self._began_ms: int | None = None

    def reached(self, now_ms: int) -> bool:
        """Look once; True when nobody is inside. A process in disk wait dies only when its disk answers."""
        if self._began_ms is None:
            self._began_ms = now_ms
        self.living = {slot for slot in self.living if not self._is_dead(slot)}
        inside = [self._slots[slot] for slot in self.living if self._slots[slot].phase != Phase.IDLE]
        for slot in inside:
            if slot.number not in self.killed and self._must_die(slot, now_ms - self._began_ms):
                self.killed.append(slot.number)
                self._kill(slot.number)
        return not inside

    def _must_die(self, slot: WorkerSlot, waited_ms: int) -> bool:
        """Decide by the state of the slot's process whether it had time enough to leave."""
        state = self._state_of(slot.pid)
        if waited_ms < KILL_AFTER_MS.get(state, KILL_RUNNING_AFTER_MS):
            return False
        log.event(
            _log,
            logging.ERROR,
            "holder_killed",
            slot=slot.number,
            pid=slot.pid,
            process_state=state,
            phase=slot.phase.name,
            waited_ms=waited_ms,
        )
        return True


LOOKS_UNTIL_STUCK = 10
LOOK_AGAIN_MS = 100
LOOK_WHEN_CALM_MS = 1_000


class Look(NamedTuple):
    """What one look at the lock told: somebody hangs inside, and when to look next."""

    stuck: bool
    next_look_ms: int


class StuckHolderDetector:
    """Finds a holder that is stopped or hangs, from looks the supervisor's loop takes. Pure: it reads no
    clock.

    Stuck is, in ten looks 100 ms apart: the same claim_seq in HOLDING; or the semaphore at 0 with no slot
    HOLDING and no claim_seq changing (an appender that was stopped between taking the semaphore and saying
    so). As long as nothing looks like that, one look a second is enough, and an idle broker stays asleep.
    """

    def __init__(self) -> None:
        """Start without a suspicion."""
        self._looks: dict[object, int] = {}

    def look(self, slots: Sequence[tuple[int, int]], semaphore_value: int) -> Look:
        """Take in (phase, claim_seq) of every appender's slot and the semaphore's value."""
        suspicions: list[object] = [
            (slot, seq) for slot, (phase, seq) in enumerate(slots) if phase == Phase.HOLDING
        ]
        if not suspicions and semaphore_value == 0:
            suspicions = [tuple(seq for _, seq in slots)]
        self._looks = {suspicion: self._looks.get(suspicion, 0) + 1 for suspicion in suspicions}
        if not suspicions:
            return Look(False, LOOK_WHEN_CALM_MS)
        return Look(max(self._looks.values()) >= LOOKS_UNTIL_STUCK, LOOK_AGAIN_MS)

    def look_at(self, page: ControlPage, semaphore: posix_ipc.Semaphore) -> Look:
        """Take one look at the page and its semaphore."""
        table = SlotTable(page)
        return self.look(
            [(slot.phase, slot.claim_seq) for slot in map(table.__getitem__, APPENDER_SLOTS)], semaphore.value
        )
