"""The lock in one process; deaths and stops are in tests/process/test_crash_repair.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from shmq.base.errors import Unavailable
from shmq.shm import page_layout as at
from shmq.shm.append_lock import (
    AppendLock,
    create_semaphore,
    open_semaphore,
    semaphore_name,
    unlink_semaphore,
)
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import totals
from shmq.shm.worker_slots import Phase, WorkerSlot
from tests.helpers.waiting import wait_until


@pytest.fixture
def semaphore(page: ControlPage, page_name: str) -> Iterator[str]:
    name = create_semaphore(page_name, page)
    yield name
    unlink_semaphore(name)


def never() -> bool:
    return False


def test_the_phase_tells_who_is_inside_and_the_sequence_how_often(page: ControlPage, semaphore: str) -> None:
    lock, slot = AppendLock(page, 2, semaphore, never), WorkerSlot(page, 2)
    for turn in (1, 2):
        lock.acquire()
        assert (slot.phase, slot.claim_seq) == (Phase.HOLDING, turn)
        assert open_semaphore(semaphore).value == 0
        lock.release()
        assert slot.phase == Phase.IDLE
        assert open_semaphore(semaphore).value == 1
    lock.close()


def test_rings_come_after_the_semaphore_and_before_idle(page: ControlPage, semaphore: str) -> None:
    lock, seen = AppendLock(page, 2, semaphore, never), []
    lock.acquire()
    lock.release(lambda: seen.append((open_semaphore(semaphore).value, WorkerSlot(page, 2).phase)))
    assert seen == [(1, Phase.HOLDING)]


def test_a_with_block_holds_the_lock(page: ControlPage, semaphore: str) -> None:
    lock = AppendLock(page, 2, semaphore, never)
    with lock:
        assert WorkerSlot(page, 2).phase == Phase.HOLDING
    assert WorkerSlot(page, 2).phase == Phase.IDLE


def test_a_second_appender_waits_wanting_until_the_first_is_done(page: ControlPage, semaphore: str) -> None:
    first, second = AppendLock(page, 2, semaphore, never), AppendLock(page, 3, semaphore, never)
    first.acquire()
    other = threading.Thread(target=second.acquire)
    other.start()
    wait_until(lambda: totals(page)["lock_busy"] > 20)
    assert WorkerSlot(page, 3).phase == Phase.WANTING
    first.release()
    other.join(10)
    assert WorkerSlot(page, 3).phase == Phase.HOLDING
    second.release()


def test_an_appender_stands_still_while_repair_wants_it_to(page: ControlPage, semaphore: str) -> None:
    lock, slot = AppendLock(page, 2, semaphore, never), WorkerSlot(page, 2)
    page.words[at.QUIESCE] = 1
    other = threading.Thread(target=lock.acquire)
    other.start()
    wait_until(lambda: totals(page)["lock_quiesced"])
    assert (slot.phase, open_semaphore(semaphore).value) == (Phase.IDLE, 1)
    page.words[at.QUIESCE] = 0
    other.join(10)
    assert slot.phase == Phase.HOLDING
    lock.release()


def test_a_waiting_appender_gives_way_to_a_repair(page: ControlPage, semaphore: str) -> None:
    first, second = AppendLock(page, 2, semaphore, never), AppendLock(page, 3, semaphore, never)
    first.acquire()
    other = threading.Thread(target=second.acquire)
    other.start()
    wait_until(lambda: WorkerSlot(page, 3).phase == Phase.WANTING)
    page.words[at.QUIESCE] = 1
    wait_until(lambda: WorkerSlot(page, 3).phase == Phase.IDLE)
    page.words[at.QUIESCE] = 0
    first.release()
    other.join(10)
    second.release()


def test_the_semaphore_belongs_to_one_page_life(page: ControlPage, page_name: str, semaphore: str) -> None:
    assert semaphore == semaphore_name(page_name, page)
    assert f"{page.page_id:016x}" in semaphore
    unlink_semaphore(semaphore)
    unlink_semaphore(semaphore)
    with pytest.raises(Unavailable, match="must be started anew"):
        AppendLock(page, 2, semaphore, never)
