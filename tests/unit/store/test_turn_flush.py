"""A worker's own flush, and how the flushed position is moved by several processes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base.files import SharedFileLock
from shmq.shm.control_page import PageState
from shmq.shm.counters import totals
from shmq.shm.page_layout import APPEND_RINGS, FLUSH_RINGS, FLUSHED_POSITION, WRITE_POSITION
from shmq.shm.rings import park
from shmq.store import flusher as flusher_module
from shmq.store import turn_flush as turn_flush_module
from shmq.store.flushed_position import FlushedPosition
from shmq.store.turn_flush import MEAN_OF, PAUSE_FACTOR, USUAL_NS_MAX, TurnFlush
from tests.helpers.store import OpenStore, request

WORKER = 2


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OpenStore]:
    with OpenStore(tmp_path / "store") as opened:
        opened.make_topic("T", 1)
        yield opened


class Clock:
    def __init__(self) -> None:
        self.ns = 10**12

    def __call__(self) -> int:
        return self.ns


class Disk:
    """Stands between a worker and its disk."""

    def __init__(self, clock: Clock) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.clock = clock
        self.takes_ns = 1000
        self.fails = False

    def sync_range(self, fd: int, first: int, end: int) -> None:
        self.ranges.append((first, end))
        self.clock.ns += self.takes_ns
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(fd)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk(Clock())
    monkeypatch.setattr(turn_flush_module, "sync_range", made.sync_range)
    return made


def flush_of(store: OpenStore, disk: Disk) -> TurnFlush:
    """A worker's flush that has its descriptor, and knows that it was open before anything unflushed."""
    own = TurnFlush(store.layout, store.page, WORKER, store.bells, disk.clock)
    for _ in range(2):
        assert own.flush(store.send("T").end) == 0, "not before the flusher has synced what was there"
        store.flusher.flush()
    assert disk.ranges == []
    return own


def test_it_syncs_from_the_flushed_to_the_write_position_and_rings(store: OpenStore, disk: Disk) -> None:
    own = flush_of(store, disk)
    before = store.page.words[FLUSHED_POSITION]
    store.send("T")
    end = store.send("T").end
    park(store.page, FLUSH_RINGS, 5)
    assert own.flush(end) == end == store.page.words[FLUSHED_POSITION]
    assert disk.ranges == [(before, end)]
    assert store.bells[5].wait(0) and not store.bells[4].wait(0)
    assert totals(store.page)["flush_bytes"] >= end - before


def test_a_descriptor_is_good_only_for_what_was_written_after_it_was_opened(
    store: OpenStore, disk: Disk
) -> None:
    own = TurnFlush(store.layout, store.page, WORKER, store.bells, disk.clock)
    ends = [store.send("T").end for _ in range(5)]
    assert [own.flush(end) for end in ends] == [0] * 5
    assert disk.ranges == [] and store.page.words[FLUSHED_POSITION] == 0
    store.flusher.flush()
    end = store.send("T").end
    assert own.flush(end) == end


def test_two_segments_are_the_flushers(store: OpenStore, disk: Disk) -> None:
    own = flush_of(store, disk)
    first = store.layout.segment_start(store.page.words[WRITE_POSITION])
    end = 0
    while store.layout.segment_start(end) == first:
        end = store.send("T", bytes(9000)).end
    assert own.flush(end) == 0, "a new segment, opened now"
    assert own.flush(store.send("T").end) == 0, "what is unflushed begins in the one before"
    assert disk.ranges == []
    store.flusher.flush()
    before, end = store.page.words[FLUSHED_POSITION], store.send("T").end
    assert own.flush(end) == end
    start = store.layout.segment_start(before)
    assert disk.ranges == [(before - start, end - start)]


def test_the_position_never_goes_back(store: OpenStore, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flusher, or another worker, syncs more while this one syncs less, and is done before it."""
    own = flush_of(store, disk)
    end = store.send("T").end
    later = 0

    def slow(fd: int, first: int, limit: int) -> None:
        nonlocal later
        assert limit == end
        later = store.send("T").end
        assert store.flusher.flush()

    monkeypatch.setattr(turn_flush_module, "sync_range", slow)
    assert own.flush(end) == later == store.page.words[FLUSHED_POSITION]

    def slow_flusher(fd: int, first: int, limit: int) -> None:
        monkeypatch.undo()
        assert own.flush(store.send("T").end) == store.page.words[WRITE_POSITION]

    monkeypatch.setattr(flusher_module, "sync_range", slow_flusher)
    store.send("T")
    assert store.flusher.flush()
    assert store.page.words[FLUSHED_POSITION] == store.page.words[WRITE_POSITION]


def test_a_failed_sync_is_final_for_everybody(store: OpenStore, disk: Disk) -> None:
    own = flush_of(store, disk)
    before = store.page.words[FLUSHED_POSITION]
    end = store.send("T").end
    disk.fails = True
    park(store.page, FLUSH_RINGS, 5)
    assert own.flush(end) == 0
    assert store.page.state is PageState.FLUSH_FAILED
    assert store.bells[5].wait(0), "who waits is told at once"
    disk.fails = False
    assert not store.flusher.flush(), "a second sync would succeed over lost data"
    assert store.page.words[FLUSHED_POSITION] == before
    assert totals(store.page)["flush_failures"] == 1


def test_a_sync_that_ends_after_anothers_has_failed_publishes_nothing(
    store: OpenStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = flush_of(store, disk)
    before, end = store.page.words[FLUSHED_POSITION], store.send("T").end
    other = FlushedPosition(store.layout.flush_lock, store.page, 3, store.bells, "turn_flush.locked")
    monkeypatch.setattr(
        turn_flush_module, "sync_range", lambda *_: other.fail(OSError(errno.EIO, "Input/output error"))
    )
    assert own.flush(end) == before == store.page.words[FLUSHED_POSITION]
    other.release()


def test_the_lock_is_not_waited_for_in_a_worker(store: OpenStore, disk: Disk) -> None:
    own = flush_of(store, disk)
    before, end = store.page.words[FLUSHED_POSITION], store.send("T").end
    lock = SharedFileLock(store.layout.flush_lock)
    assert lock.exclusive()
    assert own.flush(end) == 0 and store.page.words[FLUSHED_POSITION] == before
    lock.unlock()
    assert own.flush(end) == end
    lock.release()


def test_a_disk_that_is_usually_slow_is_left_alone_most_of_the_time(store: OpenStore, disk: Disk) -> None:
    own = flush_of(store, disk)
    disk.takes_ns = 5 * USUAL_NS_MAX
    for _ in range(MEAN_OF):
        assert own.may()
        began = disk.clock.ns
        assert own.flush(store.send("T").end)
        if not own.may():
            break
    assert not own.may()
    disk.clock.ns = began + PAUSE_FACTOR * USUAL_NS_MAX
    assert not own.may()
    disk.clock.ns = began + PAUSE_FACTOR * disk.takes_ns
    assert own.may()
    disk.takes_ns = USUAL_NS_MAX // 10
    for _ in range(MEAN_OF):  # it is fast again
        assert own.flush(store.send("T").end)
        disk.clock.ns += PAUSE_FACTOR * USUAL_NS_MAX * MEAN_OF
    assert own.flush(store.send("T").end) and own.may()


def test_one_slow_sync_among_fast_ones_changes_nothing(store: OpenStore, disk: Disk) -> None:
    own = flush_of(store, disk)
    for takes in (100_000, 100_000, (MEAN_OF - 1) * USUAL_NS_MAX, 100_000):
        disk.takes_ns = takes
        assert own.flush(store.send("T").end) and own.may()


def test_a_segment_that_cannot_be_opened_is_left_to_the_flusher(
    store: OpenStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = TurnFlush(store.layout, store.page, WORKER, store.bells, disk.clock)

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    end = store.send("T").end
    with monkeypatch.context() as patched:
        patched.setattr(turn_flush_module.os, "open", refuse)
        assert own.flush(end) == 0
    assert store.page.state is PageState.OK
    store.flusher.flush()
    flush_of(store, disk)


def test_only_who_is_told_to_leaves_the_flusher_asleep(store: OpenStore) -> None:
    for slot in (0, 1):
        park(store.page, APPEND_RINGS, slot)
        store.bells[slot].clear()
    queue = store.queue("T")
    store.store.append([request(queue, [b"1"])], rings_flusher=False)
    assert [store.bells[slot].wait(0) for slot in (0, 1)] == [False, True]
    store.store.append([request(queue, [b"1"])])
    assert [store.bells[slot].wait(0) for slot in (0, 1)] == [True, True]
