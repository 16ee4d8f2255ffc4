from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from shmq.shm import page_layout as at
from shmq.shm import rings
from shmq.shm.control_page import ControlPage
from shmq.shm.doorbell import Doorbell
from shmq.shm.queue_table import QueueTable, ring_block


@pytest.fixture
def bells() -> Iterator[list[Doorbell]]:
    made = [Doorbell.create() for _ in range(at.SLOT_COUNT)]
    yield made
    for bell in made:
        bell.close()


def ringing(bells: list[Doorbell]) -> list[int]:
    return [slot for slot, bell in enumerate(bells) if bell.wait(0)]


def test_a_bell_rings_until_it_is_cleared() -> None:
    bell = Doorbell.create()
    bell.clear()
    assert not bell.wait(0)
    bell.ring()
    bell.ring()
    assert bell.wait() and bell.wait(5)
    bell.clear()
    assert not bell.wait(0)
    bell.close()


def test_waiting_for_a_silent_bell_ends_with_the_time() -> None:
    bell = Doorbell.create()
    before = time.monotonic()
    assert not bell.wait(0.02)
    assert time.monotonic() - before >= 0.019
    bell.close()


def test_only_parked_slots_are_rung(page: ControlPage, bells: list[Doorbell]) -> None:
    for slot in (1, 9, 31):
        rings.park(page, at.FLUSH_RINGS, slot)
    rings.park(page, at.SEGMENT_RINGS, 4)
    rings.unpark(page, at.FLUSH_RINGS, 9)
    rings.ring_parked(page, at.FLUSH_RINGS, bells)
    assert ringing(bells) == [1, 31]
    rings.ring_parked(page, at.POLICY_RINGS, bells)
    assert ringing(bells) == [1, 31]


def test_a_dead_slot_is_taken_out_of_every_block_and_no_other_is(
    page: ControlPage, bells: list[Doorbell]
) -> None:
    slots = 5
    QueueTable(page).new_slots([(0, 0)] * slots)
    blocks = [at.FLUSH_RINGS, at.SEGMENT_RINGS, at.POLICY_RINGS, at.APPEND_RINGS]
    blocks += [ring_block(slot) for slot in range(slots)]
    for block in blocks:
        for slot in (6, 7, 8):
            rings.park(page, block, slot)
    before = bytes(page.raw)
    rings.clear_slot(page, 7)
    changed = [n for n, (old, new) in enumerate(zip(before, page.raw, strict=True)) if old != new]
    assert changed == sorted(block * 8 + 7 for block in blocks)


def test_ring_all_wakes_everybody(bells: list[Doorbell]) -> None:
    rings.ring_all(bells)
    assert ringing(bells) == list(range(at.SLOT_COUNT))
