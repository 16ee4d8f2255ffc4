"""What is recorded as durable, and that a cut takes everything else and nothing of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base import syncs
from shmq.base.files import fsync_folder, write_durably
from shmq.store.power_cut import cut_power
from shmq.store.write_recorder import WriteRecorder, begin
from tests.helpers.waiting import wait_until

SEEDS = range(60)
PAGE = 4096


class Disk:
    """A recorded store folder, and what cuts make of it."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.record = folder / "record"
        self._cuts = folder / "cuts"
        self._cuts.mkdir(parents=True)
        self._made = 0

    def start(self) -> None:
        begin(self.record, self.store)
        syncs.intercept(WriteRecorder(self.record))

    def cut(self, seed: int) -> Path:
        self._made += 1
        target = self._cuts / str(self._made)
        cut_power(self.record, target, seed)
        return target

    def contents(self, name: str) -> list[bytes | None]:
        """A file after each of many cuts; None where it is not there."""
        cuts = [self.cut(seed) / name for seed in SEEDS]
        return [path.read_bytes() if path.exists() else None for path in cuts]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    (made.store / "commitlog").mkdir(parents=True)
    yield made
    syncs.intercept(None)


def write(path: Path, data: bytes, at: int = 0, *, sync: bool = False) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, data, at)
    if sync:
        os.fdatasync(fd)
    os.close(fd)


def test_what_was_there_before_counts_as_durable(disk: Disk) -> None:
    write(disk.store / "old", b"old" * 5000)
    disk.start()
    assert set(disk.contents("old")) == {b"old" * 5000}


def test_synced_bytes_stay_and_later_ones_may_go_stay_or_tear(disk: Disk) -> None:
    path = disk.store / "commitlog" / "0"
    write(path, bytes(8 * PAGE))
    disk.start()
    write(path, b"a" * 5000, sync=True)
    write(path, b"b" * 10_000, at=5000)
    found = [content for content in disk.contents("commitlog/0") if content is not None]
    assert len(found) == len(SEEDS)
    assert all(len(content) == 8 * PAGE and content[:5000] == b"a" * 5000 for content in found)
    tails = {content[5000:15_000] for content in found}
    assert bytes(10_000) in tails and b"b" * 10_000 in tails
    torn = [tail for tail in tails if 0 < tail[: 2 * PAGE - 5000].count(b"b") < 2 * PAGE - 5000]
    assert torn, "no cut tore the page that holds the end of what was synced"


def test_a_name_that_was_not_synced_may_be_gone(disk: Disk) -> None:
    disk.start()
    write(disk.store / "new", b"content", sync=True)
    assert set(disk.contents("new")) == {None, b"content"}
    fsync_folder(disk.store)
    assert set(disk.contents("new")) == {b"content"}


def test_a_file_that_was_not_synced_may_be_empty_though_its_name_is_there(disk: Disk) -> None:
    disk.start()
    write(disk.store / "new", b"content")
    fsync_folder(disk.store)
    assert {b"", b"content"} <= set(disk.contents("new"))


def test_a_replaced_file_is_the_old_or_the_new_one_until_its_folder_is_synced(disk: Disk) -> None:
    write(disk.store / "table", b"old")
    disk.start()
    write(disk.store / "table.tmp", b"new", sync=True)
    (disk.store / "table.tmp").replace(disk.store / "table")
    assert set(disk.contents("table")) == {b"old", b"new"}
    fsync_folder(disk.store)
    assert set(disk.contents("table")) == {b"new"}


def test_what_is_written_durably_is_durable(disk: Disk) -> None:
    disk.start()
    for text in (b"one", b"two", b"three"):
        write_durably(disk.store / "table.json", text)
        assert set(disk.contents("table.json")) == {text}
    assert set(disk.contents("table.json.bak")) == {b"two"}


def test_an_unlinked_file_may_be_back_whole(disk: Disk) -> None:
    write(disk.store / "gone", b"content")
    disk.start()
    (disk.store / "gone").unlink()
    write(disk.store / "other", b"takes the number of the inode, if it can", sync=True)
    assert set(disk.contents("gone")) == {None, b"content"}
    fsync_folder(disk.store)
    assert set(disk.contents("gone")) == {None}


def test_a_sync_of_a_range_promises_that_range_only(disk: Disk) -> None:
    path = disk.store / "log"
    write(path, bytes(4 * PAGE))
    disk.start()
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"a" * PAGE, 0)
    os.pwrite(fd, b"b" * PAGE, 2 * PAGE)
    syncs.sync_range(fd, 2 * PAGE, 3 * PAGE)
    os.close(fd)
    found = [content for content in disk.contents("log") if content is not None]
    assert {content[2 * PAGE : 3 * PAGE] for content in found} == {b"b" * PAGE}
    assert bytes(PAGE) in {content[:PAGE] for content in found}


def test_a_sync_that_fails_makes_nothing_durable(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "the disk failed")

    path = disk.store / "log"
    write(path, bytes(PAGE))
    monkeypatch.setattr(syncs, "_fdatasync", fail)
    disk.start()
    with pytest.raises(OSError, match="the disk failed"):
        write(path, b"a" * PAGE, sync=True)
    assert bytes(PAGE) in disk.contents("log")


def test_a_sync_of_the_file_system_makes_everything_durable(disk: Disk) -> None:
    disk.start()
    (disk.store / "queue").mkdir()
    write(disk.store / "queue" / "0", b"units")
    fd = os.open(disk.store, os.O_RDONLY)
    syncs.sync_file_system(fd)
    os.close(fd)
    assert set(disk.contents("queue/0")) == {b"units"}


def test_the_same_seed_cuts_the_same_way(disk: Disk) -> None:
    disk.start()
    write(disk.store / "commitlog" / "0", os.urandom(20 * PAGE))
    first, second = disk.cut(7), disk.cut(7)
    names = [sorted(path.relative_to(cut) for path in cut.rglob("*")) for cut in (first, second)]
    assert names[0] == names[1]
    assert all(
        (first / name).is_dir() or (first / name).read_bytes() == (second / name).read_bytes()
        for name in names[0]
    )


def test_a_sync_of_a_file_without_a_name_is_not_taken_for_the_next_file(disk: Disk) -> None:
    disk.start()
    fd = os.open(disk.store / "gone", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"nobody's", 0)
    (disk.store / "gone").unlink()
    os.fdatasync(fd)
    os.close(fd)
    assert not list((disk.record / "files").iterdir())


def test_a_sync_of_everything_does_not_undo_what_is_synced_meanwhile(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread syncs the file system, having seen half a page; another one fills and syncs the page."""
    path = disk.store / "log"
    write(path, bytes(PAGE))
    disk.start()
    write(path, b"a" * 1000)
    other = threading.Thread(target=write, args=(path, b"a" * 2000), kwargs={"sync": True})

    class SlowDisk:
        def syncfs(self, fd: int) -> int:
            other.start()
            wait_until(lambda: path.read_bytes()[:2000] == b"a" * 2000)
            return 0

    monkeypatch.setattr(syncs, "_libc", SlowDisk())
    fd = os.open(disk.store, os.O_RDONLY)
    syncs.sync_file_system(fd)
    os.close(fd)
    other.join()
    assert set(disk.contents("log")) == {(b"a" * 2000).ljust(PAGE, b"\0")}
