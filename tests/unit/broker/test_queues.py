"""Queues on a real control page: made, ended by a claim, made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from shmq.base.errors import SystemBusy
from shmq.broker.queues import Queues
from shmq.shm.append_journal import AppendJournal
from shmq.shm.append_lock import AppendLock
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView
from shmq.shm.page_layout import WRITE_POSITION
from shmq.shm.queue_table import QueueTable
from shmq.shm.worker_slots import Phase, SlotTable
from shmq.store.names import StoreLayout


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    made = StoreLayout(tmp_path, 1 << 20, 20 * 100)
    made.make_folders()
    return made


@pytest.fixture
def forgotten() -> list[int]:
    return []


@pytest.fixture
def queues(page: ControlPage, lock: AppendLock, layout: StoreLayout, forgotten: list[int]) -> Queues:
    return Queues(page, DirectoryView(page), lock, layout, lambda: forgotten.append(1))


def test_new_queues_begin_where_they_are_told(page: ControlPage, queues: Queues) -> None:
    queues.create("t", 0, [0, 7, 3])
    table = QueueTable(page)
    refs = queues.refs("t")
    assert [(ref.queue_id, table.min(ref.slot), table.max(ref.slot)) for ref in refs] == [
        (0, 0, 0),
        (1, 7, 7),
        (2, 3, 3),
    ]
    other_process = DirectoryView(page)
    assert other_process.queues("t") == refs


def test_more_queues_follow_the_first(queues: Queues) -> None:
    queues.create("t", 0, [0, 0])
    queues.create("u", 0, [0])
    queues.create("t", 2, [0])
    assert queues.count("t") == 3 and queues.count("u") == 1
    assert queues.ref("t", 2) is not None and queues.ref("t", 3) is None


@pytest.mark.parametrize("count", [1, 8, 9, 20])
def test_ended_queues_are_dead_everywhere_and_tell_their_maxima(
    page: ControlPage, queues: Queues, layout: StoreLayout, forgotten: list[int], count: int
) -> None:
    queues.create("t", 0, [0] * count)
    queues.create("u", 0, [0])
    table, refs = QueueTable(page), queues.refs("t")
    for ref in refs:
        table.set_max(ref.slot, 10 + ref.queue_id)
        layout.queue_folder("t", ref.queue_id).mkdir(parents=True)
        layout.queue_file_path("t", ref.queue_id, 0).write_bytes(b"x")
    page.words[WRITE_POSITION] = 12345
    reader = DirectoryView(page)
    assert queues.retire("t") == [10 + n for n in range(count)]
    assert reader.queues("t") == [] and not any(table.alive(ref) for ref in refs)
    assert all(table.generation(ref.slot) == ref.generation + 1 for ref in refs)
    assert (layout.consume_queue / "t").exists()
    queues.remove_files("t")
    assert not (layout.consume_queue / "t").exists()
    assert forgotten == [1], "maps are dropped once"
    assert queues.count("u") == 1
    assert page.words[WRITE_POSITION] == 12345
    assert AppendJournal(page).empty() and SlotTable(page)[1].phase is Phase.IDLE


def test_ending_twice_tells_the_same(page: ControlPage, queues: Queues) -> None:
    queues.create("t", 0, [0, 0])
    QueueTable(page).set_max(queues.refs("t")[1].slot, 9)
    assert queues.retire("t") == [0, 9] == queues.retire("t")
    assert queues.retire("nosuch") == []


def test_a_topic_made_again_lives_in_new_slots(page: ControlPage, queues: Queues) -> None:
    queues.create("t", 0, [0])
    old = queues.refs("t")[0]
    QueueTable(page).set_max(old.slot, 4)
    queues.retire("t")
    queues.create("t", 0, [4])
    new = queues.refs("t")[0]
    assert new.slot != old.slot and not QueueTable(page).alive(old)
    QueueTable(page).set_max(new.slot, 6)
    assert queues.retire("t") == [6]


def test_a_full_table_refuses(page: ControlPage, queues: Queues) -> None:
    queues.create("t", 0, [0] * 60)
    queues.reserve(4)
    with pytest.raises(SystemBusy, match="queue slots"):
        queues.reserve(5)
    queues.retire("t")
    queues.reserve(30)
    queues.create("u", 0, [0] * 30)
    assert queues.count("u") == 30
