from __future__ import annotations

import pytest

from shmq.base.errors import SystemBusy
from shmq.shm.control_page import ControlPage
from shmq.shm.queue_table import QueueRef, QueueTable, generation_word, max_word, ring_block
from tests.unit.shm.conftest import QUEUE_SLOTS


def retire(page: ControlPage, slot: int) -> None:
    """What a deletion's claim does through the journal."""
    page.words[generation_word(slot)] += 1


def test_new_slots_are_alive_with_their_offsets(page: ControlPage) -> None:
    table = QueueTable(page)
    assert table.new_slots([(0, 0), (3, 9)]) == (0, 2)
    assert (table.min(1), table.max(1), table.allocated(1)) == (3, 9, 0)
    assert page.words[max_word(1)] == 9
    assert table.new_slots([(0, 0)]) == (2, 2)
    table.set_min(1, 4)
    table.set_max(1, 10)
    table.set_allocated(1, 3276)
    assert (table.min(1), table.max(1), table.allocated(1)) == (4, 10, 3276)
    assert (table.min(2), table.max(2)) == (0, 0)


def test_a_reference_dies_with_its_generation(page: ControlPage) -> None:
    table = QueueTable(page)
    slot, generation = table.new_slots([(0, 0)])
    queue = QueueRef("T", 0, slot, generation)
    assert table.alive(queue)
    retire(page, slot)
    assert not table.alive(queue)


def test_deleted_slots_are_reused_only_when_the_table_is_nearly_full(page: ControlPage) -> None:
    table = QueueTable(page)
    table.new_slots([(0, 5)] * 4)
    for slot in (1, 2):
        retire(page, slot)
    assert table.new_slots([(0, 0)] * 2)[0] == 4, "fresh ones while there are plenty"
    below = QUEUE_SLOTS * 90 // 100 - 6
    assert table.new_slots([(0, 0)] * below)[0] == 6
    assert table.new_slots([(0, 0)] * 2) == (1, 4), "deleted ones, under a generation nobody holds"
    assert table.max(1) == 0
    rest = QUEUE_SLOTS - below - 6
    assert table.new_slots([(0, 0)] * rest)[0] == below + 6
    with pytest.raises(SystemBusy, match="all 64 queue slots"):
        table.new_slots([(0, 0)])


def test_reused_neighbours_get_one_generation_above_all_they_had(page: ControlPage) -> None:
    table = QueueTable(page)
    table.new_slots([(0, 0)] * QUEUE_SLOTS)
    retire(page, 10)
    assert table.new_slots([(0, 0)]) == (10, 4)
    retire(page, 10)
    retire(page, 11)
    assert table.new_slots([(0, 0)] * 2) == (10, 6)
    assert table.generation(11) == 6


def test_ring_blocks_lie_inside_their_slot(page: ControlPage) -> None:
    assert ring_block(1) - ring_block(0) == 8
    assert ring_block(0) == generation_word(0) + 4
