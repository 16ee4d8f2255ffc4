from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from shmq.base.errors import Bug
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage
from shmq.shm.worker_slots import (
    Phase,
    SlotState,
    SlotTable,
    WorkerSlot,
    process_start_time,
    process_state,
)
from tests.helpers.waiting import wait_until


def test_a_filled_slot_names_its_process(page: ControlPage) -> None:
    slots = SlotTable(page)
    slots[2].fill(4711, 99)
    assert (slots[2].pid, slots[2].start_time, slots[2].state) == (4711, 99, SlotState.STARTING)
    assert [slot.number for slot in slots.taken()] == [2]
    slots[2].empty()
    assert slots.taken() == []


def test_a_slot_whose_phase_is_not_idle_is_not_filled(page: ControlPage) -> None:
    slot = WorkerSlot(page, 3)
    page.words[slot.phase_word] = Phase.WANTING
    with pytest.raises(Bug, match="before its last owner was repaired"):
        slot.fill(1, 1)


def test_slots_do_not_share_words(page: ControlPage) -> None:
    slots = SlotTable(page)
    for number in range(at.SLOT_COUNT):
        slots[number].connections = number
        slots[number].beat_ms = number * 10
    assert [slots[n].connections for n in range(at.SLOT_COUNT)] == list(range(at.SLOT_COUNT))
    with pytest.raises(Bug):
        WorkerSlot(page, at.SLOT_COUNT)


def test_process_facts_come_from_the_kernel() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as child:
        assert process_start_time(child.pid) >= process_start_time(os.getpid())
        child.send_signal(signal.SIGSTOP)
        wait_until(lambda: process_state(child.pid) == "T")
        child.send_signal(signal.SIGCONT)
    assert process_state(child.pid) == "X"
    with pytest.raises(ProcessLookupError):
        process_start_time(child.pid)
