from __future__ import annotations

import pytest

from shmq.shm.control_page import ControlPage
from shmq.shm.counters import COUNTER_NAMES, SlotCounters, totals


def test_totals_sum_over_all_slots(page: ControlPage) -> None:
    first, last = SlotCounters(page, 0), SlotCounters(page, 31)
    first.add("sends")
    last.add("sends", 4)
    last.add("pulls")
    counted = totals(page)
    assert (counted["sends"], counted["pulls"], counted["frames_bad"]) == (5, 1, 0)
    assert list(counted) == list(COUNTER_NAMES)
    assert last.values()["sends"] == 4


def test_an_unknown_counter_is_refused(page: ControlPage) -> None:
    with pytest.raises(KeyError):
        SlotCounters(page, 0).add("nonsense")


def test_a_successor_goes_on_from_what_its_predecessor_counted(page: ControlPage) -> None:
    SlotCounters(page, 2).add("sends", 3)
    SlotCounters(page, 2).add("sends", 3)
    assert totals(page)["sends"] == 6
