"""Repair step by step with a clock of its own; the real deaths are in tests/process/test_crash_repair.py."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import posix_ipc
import pytest

from shmq.base.clock import ManualClock
from shmq.shm import page_layout as at
from shmq.shm.append_journal import AppendJournal, JournalState
from shmq.shm.append_lock import create_semaphore, open_semaphore, unlink_semaphore
from shmq.shm.control_page import ControlPage
from shmq.shm.doorbell import Doorbell
from shmq.shm.queue_table import QueueTable, ring_block
from shmq.shm.rings import park
from shmq.shm.worker_slots import FLUSHER_SLOT, Phase, SlotTable
from shmq.supervisor.crash_repair import (
    LOOK_AGAIN_MS,
    LOOK_WHEN_CALM_MS,
    LOOKS_UNTIL_STUCK,
    Look,
    RepairReport,
    StuckHolderDetector,
    needs_repair,
    repair,
    tidy_dead_slot,
)

HOLDING, WANTING, IDLE = Phase.HOLDING, Phase.WANTING, Phase.IDLE


class World:
    """A page, its semaphore, processes that are only names, and the calls that repair made."""

    def __init__(self, name: str) -> None:
        self.page = ControlPage.create(
            name, queue_slots=8, offset_slots=8, directory_bytes=4096, store_identity=1
        )
        self.semaphore_name = create_semaphore(name, self.page)
        self.semaphore: posix_ipc.Semaphore = open_semaphore(self.semaphore_name)
        self.slots = SlotTable(self.page)
        self.bells = [Doorbell.create() for _ in range(at.SLOT_COUNT)]
        self.clock = ManualClock()
        self.states: dict[int, str] = {}
        self.dead: set[int] = set()
        self.calls: list[tuple[object, ...]] = []
        self.killed_at_ms: dict[int, int] = {}
        QueueTable(self.page).new_slots([(0, 5), (0, 7)])

    def fill(self, slot: int, phase: Phase, state: str = "S") -> None:
        self.slots[slot].fill(pid=1000 + slot, start_time=1)
        self.page.words[self.slots[slot].phase_word] = phase
        self.states[1000 + slot] = state

    def kill(self, slot: int) -> None:
        assert self.page.words[at.QUIESCE] == 1
        self.killed_at_ms[slot] = self.clock.monotonic_ms()
        if self.states[1000 + slot] != "D":
            self.dead.add(slot)

    def pause(self, seconds: float) -> None:
        self.clock.advance(max(1, round(seconds * 1000)))
        if self.clock.monotonic_ms() > 15_000:
            self.dead |= set(self.killed_at_ms)  # the disk answered at last

    def repair(self, live_slots: set[int]) -> RepairReport:
        return repair(
            self.page,
            live_slots=live_slots,
            kill=self.kill,
            is_dead=self.dead.__contains__,
            zero_log=lambda *call: self.calls.append(("log", *call)),
            zero_units=lambda *call: self.calls.append(("units", *call)),
            bells=self.bells,
            semaphore=self.semaphore,
            clock=self.clock,
            state_of=self.states.__getitem__,
            pause=self.pause,
        )

    def ringing(self) -> int:
        return sum(bell.wait(0) for bell in self.bells)

    def close(self) -> None:
        self.page.close()
        self.semaphore.close()
        unlink_semaphore(self.semaphore_name)
        for bell in self.bells:
            bell.close()


@pytest.fixture
def world() -> Iterator[World]:
    name = f"/shmq-test-{secrets.token_hex(6)}"
    made = World(name)
    yield made
    made.close()
    ControlPage.unlink(name)


def test_a_prepared_claim_is_zeroed_and_its_positions_stay(world: World) -> None:
    AppendJournal(world.page).prepare(0, 300, 99, [(0, 2, 5, 6), (1, 2, 7, 9)])
    report = world.repair(set())
    assert report.journal is JournalState.PREPARED
    assert report.claim == (0, 300, 99, [(0, 2, 5, 6), (1, 2, 7, 9)], [])
    assert world.calls == [("log", 0, 300), ("units", 0, 5, 6), ("units", 1, 7, 9)]
    assert AppendJournal(world.page).empty()
    assert world.page.words[at.WRITE_POSITION] == 0
    assert QueueTable(world.page).max(1) == 7


def test_a_committed_claim_is_carried_out(world: World) -> None:
    journal = AppendJournal(world.page)
    journal.prepare(0, 300, 99, [(1, 2, 7, 9)], [(at.POLICY_EPOCH, 4)])
    journal.committed()
    assert world.repair(set()).journal is JournalState.COMMITTED
    assert world.calls == []
    assert world.page.words[at.WRITE_POSITION] == 300
    assert world.page.words[at.LAST_STORE_TIME] == 99
    assert world.page.words[at.POLICY_EPOCH] == 4
    assert QueueTable(world.page).max(1) == 9


@pytest.mark.parametrize("takes", [0, 1])
@pytest.mark.parametrize("surplus", [0, 1, 2])
def test_the_semaphore_is_one_afterwards_whatever_it_was(world: World, takes: int, surplus: int) -> None:
    for _ in range(surplus):
        world.semaphore.release()
    for _ in range(takes):
        world.semaphore.acquire(0)
    world.repair(set())
    world.repair(set())
    assert world.semaphore.value == 1


def test_dead_slots_are_cleared_and_living_ones_left_alone(world: World) -> None:
    world.fill(2, HOLDING)
    world.fill(3, IDLE)
    world.dead.add(2)
    for slot in (FLUSHER_SLOT, 2, 3):
        park(world.page, ring_block(0), slot)
    world.repair({2, 3})
    assert world.slots[2].phase == IDLE
    assert bytes(world.page.raw[ring_block(0) * 8 :][:4]) == bytes([1, 0, 0, 1])
    assert world.ringing() == at.SLOT_COUNT
    assert world.page.words[at.QUIESCE] == 0


@pytest.mark.parametrize(
    ("state", "after_ms"), [("T", 0), ("t", 0), ("R", 2_000), ("S", 2_000), ("D", 10_000)]
)
def test_who_does_not_leave_is_killed_after_the_time_its_state_deserves(
    world: World, state: str, after_ms: int
) -> None:
    world.fill(2, HOLDING)
    world.fill(3, WANTING, state)
    world.dead.add(2)
    report = world.repair({2, 3})
    assert report.killed_slots == [3]
    assert after_ms <= world.killed_at_ms[3] <= after_ms + 10
    assert world.slots[3].phase == IDLE


def test_a_process_in_disk_wait_is_waited_for_until_it_is_really_dead(world: World) -> None:
    world.fill(2, HOLDING, "D")
    assert world.repair({2}).stood_still_ms >= 14_000


def test_who_leaves_in_time_is_not_killed(world: World) -> None:
    world.fill(2, HOLDING)
    pause = world.pause

    def leave_later(seconds: float) -> None:
        pause(seconds)
        if world.clock.monotonic_ms() > 1_500:
            world.page.words[world.slots[2].phase_word] = IDLE

    world.pause = leave_later  # type: ignore[method-assign]
    report = world.repair({2})
    assert report.killed_slots == []
    assert report.stood_still_ms >= 1_500


def test_only_a_death_outside_idle_needs_a_repair(world: World) -> None:
    world.fill(2, WANTING)
    world.fill(3, IDLE)
    park(world.page, at.FLUSH_RINGS, 3)
    assert needs_repair(world.page, 2)
    assert not needs_repair(world.page, 3)
    tidy_dead_slot(world.page, 3, world.bells)
    assert world.page.words[at.FLUSH_RINGS] == 0
    assert world.ringing() == at.SLOT_COUNT


# ---- the detector

CALM = Look(False, LOOK_WHEN_CALM_MS)
SUSPICIOUS = Look(False, LOOK_AGAIN_MS)
STUCK = Look(True, LOOK_AGAIN_MS)


def test_a_busy_lock_is_not_a_stuck_one() -> None:
    detector = StuckHolderDetector()
    for seq in range(50):
        assert detector.look([(HOLDING, seq), (WANTING, 3)], 0) == SUSPICIOUS
    assert detector.look([(IDLE, 50), (IDLE, 3)], 1) == CALM


def test_the_same_claim_in_ten_looks_is_stuck() -> None:
    detector = StuckHolderDetector()
    looks = [detector.look([(IDLE, 1), (HOLDING, 7)], 0) for _ in range(LOOKS_UNTIL_STUCK)]
    assert looks == [SUSPICIOUS] * (LOOKS_UNTIL_STUCK - 1) + [STUCK]


def test_a_holder_that_hangs_after_unlocking_is_found_while_others_append() -> None:
    detector = StuckHolderDetector()
    looks = [detector.look([(HOLDING, seq), (HOLDING, 7)], seq % 2) for seq in range(LOOKS_UNTIL_STUCK)]
    assert looks[-1] == STUCK


def test_a_taken_semaphore_that_nobody_claims_is_stuck() -> None:
    detector = StuckHolderDetector()
    looks = [detector.look([(WANTING, 1), (IDLE, 7)], 0) for _ in range(LOOKS_UNTIL_STUCK)]
    assert looks[-1] == STUCK


def test_one_claim_in_between_begins_the_count_again() -> None:
    detector = StuckHolderDetector()
    for _ in range(LOOKS_UNTIL_STUCK - 1):
        detector.look([(WANTING, 1)], 0)
    assert detector.look([(WANTING, 2)], 0) == SUSPICIOUS
    assert detector.look([(IDLE, 2)], 1) == CALM
    assert detector.look([(HOLDING, 2)], 0) == SUSPICIOUS
