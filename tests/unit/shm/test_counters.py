from __future__ import annotations

from pathlib import Path

import pytest

import shmq
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


def test_every_counter_is_counted_somewhere() -> None:
    sources = [path for path in Path(shmq.__file__).parent.rglob("*.py") if path.name != "counters.py"]
    text = "\n".join(path.read_text() for path in sources)
    assert [name for name in COUNTER_NAMES if f'"{name}"' not in text] == []
