from __future__ import annotations

import pytest

from shmq.base.errors import SystemBusy
from shmq.shm.control_page import ControlPage
from shmq.shm.offset_slots import NO_OFFSET, OffsetSlots
from tests.unit.shm.conftest import OFFSET_SLOTS


def test_new_slots_have_no_offsets(page: ControlPage) -> None:
    slots = OffsetSlots(page)
    assert slots.new_slots(4) == 0
    assert slots.new_slots(2) == 4
    assert [slots.committed(n) for n in range(6)] == [NO_OFFSET] * 6
    assert slots.pulled(5) == NO_OFFSET


def test_the_last_commit_wins_also_backwards(page: ControlPage) -> None:
    slots = OffsetSlots(page)
    slots.new_slots(2)
    slots.commit(1, 50)
    slots.commit(1, 40)
    slots.set_pulled(1, 60)
    assert (slots.committed(1), slots.pulled(1), slots.committed(0)) == (40, 60, NO_OFFSET)
    slots.reset(1)
    assert (slots.committed(1), slots.pulled(1)) == (NO_OFFSET, NO_OFFSET)


def test_a_full_table_is_a_clear_error(page: ControlPage) -> None:
    slots = OffsetSlots(page)
    slots.new_slots(OFFSET_SLOTS)
    with pytest.raises(SystemBusy, match="all 32 consumer offset slots"):
        slots.new_slots(1)
