"""Removing the oldest part of a log: what goes, what stays, and that any start afterwards is right."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from shmq.base import faults
from shmq.base.faults import FaultReached
from shmq.model.unit import UNIT_BYTES
from shmq.shm.page_layout import FILES_UNLINKED, MIN_OFFSET, WRITE_POSITION
from shmq.store.check import check_store
from shmq.store.disk_use import DiskUse, HeldFiles
from shmq.store.log_cleaner import LogCleaner
from shmq.store.names import file_starts
from shmq.store.read import ReadStatus
from tests.helpers.store import OpenStore
from tests.unit.store.reading import read_all

SEGMENT = 64 << 10
POINTS = [
    "retention.min_stored",
    "retention.queue_min_stored",
    "retention.minima_stored",
    "retention.unlinked",
    "retention.folder_synced",
    "retention.queue_file_unlinked",
]


def cleaner_of(store: OpenStore) -> LogCleaner:
    return LogCleaner(store.layout, store.page, store.directory, store.store.queues)


def fill(store: OpenStore) -> dict[tuple[str, int], int]:
    """About six segments: a busy topic of two queues, and one that got messages only at the beginning.

    Returns each queue's maximum.
    """
    for n in range(70):
        store.send("Early", b"early %d" % n)
    for n in range(260):
        store.send("Busy", b"%06d" % n * 200, queue_id=n % 2)
    store.index_all()
    store.flush()
    return {("Early", 0): 70, ("Busy", 0): 130, ("Busy", 1): 130}


def remove(store: OpenStore, segments: int) -> int:
    """Remove so many segments; return the new beginning."""
    cleaner = cleaner_of(store)
    end = cleaner.removable()[segments - 1] + SEGMENT
    cleaner.raise_minimum(end)
    assert "segment" in set(cleaner.follow())
    return end


def test_the_oldest_part_goes_and_the_rest_stays_readable(store: OpenStore) -> None:
    maxima = fill(store)
    before = read_all(store, numbered=True)
    end = remove(store, 3)
    assert store.layout.segments()[0] == end == store.page.words[MIN_OFFSET]
    after = read_all(store, numbered=True)
    assert ("Early", 0) not in after
    for n in range(2):
        queue = store.queue("Busy", n)
        low = store.store.min(queue)
        assert 0 < low < store.store.max(queue) == maxima["Busy", n]
        assert after["Busy", n] == before["Busy", n][low:]
        unit = store.store.queues.unit(queue, low)
        assert unit.physical_offset >= end
        assert store.store.queues.unit(queue, low - 1).physical_offset < end
        result = store.store.read(queue, low - 1, 1, 1 << 20)
        assert (result.status, result.next_offset) == (ReadStatus.OFFSET_TOO_SMALL, low)


def test_a_queue_without_messages_left_keeps_its_number_and_last_file(store: OpenStore) -> None:
    fill(store)
    remove(store, 3)
    queue = store.queue("Early")
    assert store.store.min(queue) == store.store.max(queue) == 70
    units_a_file = store.layout.queue_file_bytes // UNIT_BYTES
    starts = file_starts(store.layout.queue_folder("Early", 0))
    assert starts == [69 // units_a_file * store.layout.queue_file_bytes], "only the one with the last unit"
    assert store.send("Early").queue_offset == 70


@pytest.mark.parametrize("way", ["clean", "kept page", "no page", "no page nor checkpoint"])
def test_every_kind_of_start_afterwards_finds_the_same(store: OpenStore, way: str) -> None:
    fill(store)
    end = remove(store, 3)
    expected = read_all(store, numbered=True)
    if way == "no page nor checkpoint":
        store.layout.checkpoint.unlink()
    if way == "clean":
        store.reopen()
    else:
        store.crash(keep_page=way == "kept page")
    assert store.page.words[MIN_OFFSET] == end
    assert read_all(store, numbered=True) == expected
    assert store.send("Early").queue_offset == 70
    assert store.send("Busy").queue_offset == 130


@pytest.mark.parametrize("keep_page", [True, False])
@pytest.mark.parametrize("point", POINTS)
def test_a_death_in_any_window_is_finished_by_the_next(
    store: OpenStore, point: str, keep_page: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    expected = read_all(store, numbered=True)

    def die(name: str) -> None:
        if name == point:
            raise FaultReached(name)

    monkeypatch.setattr(faults, "reach", die)
    with pytest.raises(FaultReached):
        remove(store, 3)
    monkeypatch.undo()
    store.crash(keep_page=keep_page)
    assert list(check_store(store.root, store.page)) == []
    list(cleaner_of(store).follow())
    if store.page.words[MIN_OFFSET] < 3 * SEGMENT:
        remove(store, 3 - store.page.words[MIN_OFFSET] // SEGMENT)
    assert store.layout.segments()[0] == store.page.words[MIN_OFFSET] == 3 * SEGMENT
    found = read_all(store, numbered=True)
    for key, messages in found.items():
        assert messages == expected[key][-len(messages) :]
    assert len(found["Busy", 0]) + len(found["Busy", 1]) > 100
    assert store.send("Early").queue_offset == 70


def test_the_segment_in_use_and_what_no_checkpoint_covers_is_never_removable(store: OpenStore) -> None:
    cleaner = cleaner_of(store)
    assert cleaner.removable() == []
    fill(store)
    last = store.layout.segment_start(store.page.words[WRITE_POSITION])
    assert cleaner.removable() == list(range(0, last, SEGMENT))
    store.layout.checkpoint.unlink()
    assert cleaner.removable() == []


def test_random_removals_between_sends_leave_a_whole_store(store: OpenStore) -> None:
    dice = random.Random(7)
    for _ in range(12):
        for _ in range(dice.randrange(90)):
            store.send(f"T{dice.randrange(3)}", dice.randbytes(dice.randrange(3000)), dice.randrange(3))
        store.flush()
        cleaner = cleaner_of(store)
        if removable := cleaner.removable():
            cleaner.raise_minimum(dice.choice(removable) + SEGMENT)
            list(cleaner.follow())
        if dice.random() < 0.3:
            store.crash(keep_page=dice.random() < 0.5)
        assert list(check_store(store.root, store.page)) == []


def test_old_index_files_go_but_never_the_newest(store: OpenStore) -> None:
    for n in range(900):
        store.send("Keyed", b"x" * 400, KEYS=f"k{n}")
    store.index_all()
    store.flush()
    names = sorted(os.listdir(store.layout.index))
    assert len(names) == 3
    cleaner = cleaner_of(store)
    cleaner.raise_minimum(cleaner.removable()[-1] + SEGMENT)
    list(cleaner.follow())
    left = sorted(os.listdir(store.layout.index))
    assert left == names[-len(left) :] and 1 <= len(left) < 3
    assert store.store.lookup_key("Keyed", "k899", 10, 0, 1 << 62)


def test_maps_are_let_go_and_a_stranger_that_holds_one_is_named(store: OpenStore) -> None:
    fill(store)
    read_all(store)
    held = HeldFiles(store.root)
    stranger = open(store.layout.segment_path(0), "rb")  # noqa: SIM115 - held on purpose
    unlinked = store.page.words[FILES_UNLINKED]
    remove(store, 2)
    assert store.page.words[FILES_UNLINKED] > unlinked
    store.store.follow_retention()
    store.index.follow_retention()
    store.descriptors.close_below(2 * SEGMENT)
    while store.allocator.step() == 0:  # prepares pages at the log's end, and lets go of older ones
        pass
    list(held.look())
    assert [Path(found.path).name for found in held.found] == ["0" * 20]
    assert held.found[0].pids == (os.getpid(),) and held.cost == SEGMENT
    stranger.close()
    list(held.look())
    assert held.found == [] and held.cost == 0


def test_disk_use_is_rounded_up_and_held_bytes_do_not_count() -> None:
    use = DiskUse(used=750, usable=250)
    assert use.percent() == 75
    assert DiskUse(751, 249).percent() == 76
    assert use.percent(without=500) == 25
    assert use.percent(without=10_000) == 0


@pytest.mark.parametrize(
    ("point", "folder"),
    [("retention.unlinked", "commitlog"), ("retention.queue_file_unlinked", "consumequeue")],
)
def test_a_power_cut_may_bring_back_what_was_just_unlinked(
    store: OpenStore, point: str, folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its folder was not synced yet; what was synced before stays gone."""
    fill(store)
    expected = read_all(store, numbered=True)
    before = tmp_path / "before"
    shutil.copytree(store.root, before)
    passed: list[set[str]] = []

    def die(name: str) -> None:
        if name == point and len(passed) < 2:
            passed.append({str(path.relative_to(store.root)) for path in store.root.rglob("*")})
            if len(passed) == 2:
                raise FaultReached(name)

    monkeypatch.setattr(faults, "reach", die)
    with pytest.raises(FaultReached):
        remove(store, 3)
    monkeypatch.undo()
    just_gone = {path for path in passed[0] - passed[1] if path.startswith(folder)}
    assert just_gone, "the second one is unlinked, the first one synced"
    store.stop_threads()
    for path in just_gone:
        shutil.copy2(before / path, store.root / path)
    store.crash()
    assert list(check_store(store.root, store.page)) == []
    for key, messages in read_all(store, numbered=True).items():
        assert messages == expected[key][-len(messages) :]
    list(cleaner_of(store).follow())
    assert store.send("Early").queue_offset == 70
