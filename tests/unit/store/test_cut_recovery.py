"""Power cuts while recovery cuts a torn log: whatever it has synced so far, no segment is missing between."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base import syncs
from shmq.prove.recovering import forget_page
from shmq.store.check import check_store
from shmq.store.checkpoint import Checkpoint
from shmq.store.names import StoreLayout
from shmq.store.power_cut import cut_power
from shmq.store.recovery import open_or_recover
from shmq.store.write_recorder import WriteRecorder, begin
from tests.helpers.store import OpenStore, request, small_settings

SEGMENT = 64 << 10


class CuttingRecorder(WriteRecorder):
    """Cuts the power after each sync, several ways, and notes which segments are left."""

    def __init__(self, record: Path, folder: Path) -> None:
        super().__init__(record)
        self._folder = folder
        self.left: list[list[int]] = []

    @contextlib.contextmanager
    def watch(self, fd: int, changed: tuple[int, int] | None) -> Iterator[None]:
        with super().watch(fd, changed):
            yield
        for seed in range(8):
            cut = self._folder / str(len(self.left))
            cut_power(self.folder, cut, seed)
            self.left.append(StoreLayout(cut, SEGMENT, 20 * 64).segments())


@pytest.fixture(autouse=True)
def unobserved() -> Iterator[None]:
    yield
    syncs.intercept(None)


def test_a_cut_while_segments_are_removed_leaves_no_gap(tmp_path: Path) -> None:
    root, settings = tmp_path / "store", small_settings()
    with OpenStore(root, settings) as store:
        store.append(*[request(store.queue("T"), [b"x" * 20_000]) for _ in range(14)])
        assert len(store.layout.segments()) >= 5
        path = store.layout.segment_path(SEGMENT)
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, bytes(100), 0)
    os.close(fd)
    (tmp_path / "cuts").mkdir()
    begin(tmp_path / "record", root)
    recorder = CuttingRecorder(tmp_path / "record", tmp_path / "cuts")
    syncs.intercept(recorder)
    report = open_or_recover(root, settings, owner_pid=os.getpid())
    syncs.intercept(None)
    forget_page(root)
    assert report.write_position <= SEGMENT
    assert len({tuple(left) for left in recorder.left}) > 2, "segments went one after the other"
    for left in recorder.left:
        assert left == list(range(0, SEGMENT * len(left), SEGMENT))


def test_a_checkpoint_is_there_after_a_cut(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    begin(tmp_path / "record", store)
    syncs.intercept(WriteRecorder(tmp_path / "record"))
    Checkpoint(confirm_offset=4711).save(store / "checkpoint")
    for seed in range(20):
        cut_power(tmp_path / "record", tmp_path / str(seed), seed)
        assert Checkpoint.load(tmp_path / str(seed) / "checkpoint").confirm_offset == 4711


def test_what_recovery_found_in_memory_is_on_the_disk_when_it_has_said_so(tmp_path: Path) -> None:
    """A killed run left a topic whose folder was never synced: the next run's checkpoint counts on it."""
    root, settings = tmp_path / "store", small_settings()
    root.mkdir()
    begin(tmp_path / "record", root)
    syncs.intercept(WriteRecorder(tmp_path / "record"))
    with OpenStore(root, settings) as store:
        store.send("First")
        store.crash()  # from now on there is a checkpoint and a queue
        for n in range(3):
            store.send("Second", b"%d" % n)
        report = store.crash()
        assert report.records == 3
        syncs.intercept(None)
    for seed in range(20):
        cut = tmp_path / str(seed)
        cut_power(tmp_path / "record", cut, seed)
        try:
            report = open_or_recover(cut, settings, owner_pid=os.getpid())
            assert report.queues == 2
            assert list(check_store(cut)) == []
        finally:
            forget_page(cut)
