"""Flusher, segment allocator and checkpointer: what they promise to the others."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from shmq.base.clock import monotonic_ms
from shmq.model.settings import FlushDiskType
from shmq.shm.append_journal import JournalState
from shmq.shm.control_page import PageState
from shmq.shm.counters import totals
from shmq.shm.page_layout import (
    APPEND_RINGS,
    FLUSH_RINGS,
    FLUSHED_POSITION,
    JOURNAL_CLAIM_START,
    JOURNAL_STATE,
    LAST_STORE_TIME,
    SEGMENT_ERROR,
    WRITE_POSITION,
    ZEROED_POSITION,
)
from shmq.shm.rings import park
from shmq.store import checkpointer as checkpointer_module
from shmq.store.checkpoint import Checkpoint
from shmq.store.recovery import RecoveryMode
from shmq.store.segment_allocator import zero_ahead_bytes
from tests.helpers.store import OpenStore, request, small_settings
from tests.helpers.waiting import wait_until

SYNC = {"flush_disk_type": FlushDiskType.SYNC_FLUSH}


def words(store: OpenStore, *indices: int) -> list[int]:
    return [store.page.words[index] for index in indices]


def test_sync_flush_makes_a_send_durable_at_once_and_rings(tmp_path: Path) -> None:
    with OpenStore(tmp_path / "s", small_settings(**SYNC)) as store:
        store.start_threads()
        wait_until(lambda: store.page.raw[APPEND_RINGS * 8], what="the flusher sleeps parked")
        for _ in range(5):
            park(store.page, FLUSH_RINGS, 2)
            outcome = store.send("T")
            wait_until(lambda end=outcome.end: store.page.words[FLUSHED_POSITION] >= end)
            assert store.bells[2].wait(1)
            store.bells[2].clear()
        assert store.page.visible_position() == store.page.words[WRITE_POSITION]


def test_async_flush_waits_for_pages_or_the_thorough_interval(store: OpenStore) -> None:
    now = monotonic_ms()
    step = store.flusher.step
    assert step(now) is None, "nothing to flush: until it is rung"
    store.send("T", b"x" * 100)
    assert step(now) == 500
    assert words(store, FLUSHED_POSITION) == [0]
    assert step(now + 100) == 400
    assert step(now + 10_100) == 0, "thorough: everything"
    assert store.page.words[FLUSHED_POSITION] == store.page.words[WRITE_POSITION]
    store.append(request(store.queue("T"), [b"x" * 5000] * 4))
    assert step(now + 10_200) == 400
    assert step(now + 10_600) == 0, "four pages are dirty"
    assert store.page.words[FLUSHED_POSITION] == store.page.words[WRITE_POSITION]


@pytest.mark.parametrize(
    ("least", "dirty", "due"), [(4, 3, False), (4, 4, True), (8, 7, False), (8, 8, True), (0, 0, True)]
)
def test_async_flush_begins_with_the_least_pages(tmp_path: Path, least: int, dirty: int, due: bool) -> None:
    settings = small_settings(flush_commit_log_least_pages=least, flush_interval_commit_log=70)
    with OpenStore(tmp_path / "s", settings) as store:
        now = monotonic_ms()
        while store.page.words[WRITE_POSITION] // 4096 < dirty or not store.page.words[WRITE_POSITION]:
            store.send("T", b"x" * 100)
        assert store.page.words[WRITE_POSITION] // 4096 == dirty
        assert store.flusher.step(now + 1000) == (0 if due else 70)
        assert (store.page.words[FLUSHED_POSITION] > 0) is due


def test_async_flush_takes_a_finished_segment_without_waiting_for_pages(tmp_path: Path) -> None:
    with OpenStore(tmp_path / "s", small_settings(flush_commit_log_least_pages=1000)) as store:
        now = monotonic_ms()
        store.append(*[request(store.queue("T"), [b"x" * 20_000]) for _ in range(3)])
        assert store.flusher.step(now + 1000) == 500
        store.append(request(store.queue("T"), [b"x" * 20_000]))
        assert store.page.words[WRITE_POSITION] > 64 << 10
        assert store.flusher.step(now + 2000) == 0
        assert store.page.words[FLUSHED_POSITION] == store.page.words[WRITE_POSITION]


def test_async_flush_comes_at_once_for_who_waits_for_it(store: OpenStore) -> None:
    now = monotonic_ms()
    store.send("T", b"x" * 100)
    assert store.flusher.step(now) == 500
    park(store.page, FLUSH_RINGS, 5)
    assert store.flusher.step(now + 1) == 0
    assert store.page.words[FLUSHED_POSITION] == store.page.words[WRITE_POSITION]
    assert store.bells[5].wait(1)


def test_a_fast_growing_log_is_flushed_before_its_time(tmp_path: Path) -> None:
    with OpenStore(tmp_path / "s", small_settings(mapped_file_size_commit_log=256 << 20)) as store:
        queue = store.queue("T")
        now = monotonic_ms()
        store.flusher._next_ms = now + 400
        store.append(request(queue, [b"x" * 2_000_000]))
        assert store.flusher.step(now) == 50
        assert store.flusher.step(now + 50) == 350, "it stood still"
        store.append(*[request(queue, [b"x" * 3_500_000]) for _ in range(20)])
        assert store.flusher.step(now + 100) == 0
        assert store.page.words[FLUSHED_POSITION] == store.page.words[WRITE_POSITION]


def test_a_failed_sync_is_final(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.send("T")
    park(store.page, FLUSH_RINGS, 3)
    calls = []

    def fail(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    assert store.flusher.flush() is False
    monkeypatch.undo()
    assert store.page.state is PageState.FLUSH_FAILED
    assert words(store, FLUSHED_POSITION) == [0]
    assert store.bells[3].wait(0), "who waits for the flush learns of it"
    assert store.flusher.step(monotonic_ms() + 10**6) is None, "no second try"
    assert store.store.append([request(store.queue("T"), [b"x"])])[0].error is not None
    assert totals(store.page)["flush_failures"] == 1
    store.start_threads()
    spent = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - spent < 0.15, "a flusher that may not flush sleeps"
    assert store.crash(keep_page=True).mode.value == "full"


def test_flushing_crosses_segments_in_order(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = store.queue("T")
    store.append(*[request(queue, [b"x" * 20_000]) for _ in range(12)])
    synced: list[int] = []
    real = os.fdatasync
    descriptors = store.descriptors

    def spy(fd: int) -> None:
        synced.append(fd)
        real(fd)

    held = [descriptors.get(start) for start in range(0, store.page.words[WRITE_POSITION], 64 << 10)]
    monkeypatch.setattr(os, "fdatasync", spy)
    store.flusher.flush()
    assert synced == held
    assert store.page.words[FLUSHED_POSITION] == store.page.words[WRITE_POSITION]


def test_the_next_segment_is_made_at_half_of_the_last(store: OpenStore) -> None:
    segments = store.layout.segments
    assert segments() == [0]
    store.append(request(store.queue("T"), [b"x" * 30_000]))
    store.allocator.step()
    assert segments() == [0]
    store.append(request(store.queue("T"), [b"x" * 3_000]))
    store.allocator.step()
    assert segments() == [0, 64 << 10]
    assert words(store, ZEROED_POSITION) == [128 << 10]
    assert totals(store.page)["segments_made"] == 2


def test_a_refusing_disk_is_told_and_forgotten(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = store.queue("T")
    store.append(request(queue, [b"x" * 40_000]))

    def refuse(fd: int, at: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert store.allocator.step() == 1000
    assert words(store, SEGMENT_ERROR) == [errno.ENOSPC]
    assert store.layout.segments() == [0]
    assert not (store.root / "shmq" / "next-segment").exists()
    refused = store.store.append([request(queue, [b"y" * 40_000])])[0]
    assert "No space left" in str(refused.error)
    monkeypatch.undo()
    assert store.allocator.step() == 0
    assert words(store, SEGMENT_ERROR) == [0]
    assert store.append(request(queue, [b"y" * 40_000]))[0].error is None


def test_zeroing_goes_ahead_and_never_over_records(tmp_path: Path) -> None:
    settings = small_settings(zero_ahead_bytes=3 << 20, mapped_file_size_commit_log=4 << 20, **SYNC)
    assert zero_ahead_bytes(settings) == 3 << 20
    assert zero_ahead_bytes(small_settings(zero_ahead_bytes=3 << 20)) == 0
    with OpenStore(tmp_path / "s", settings) as store:
        assert words(store, ZEROED_POSITION) == [1 << 20]
        queue = store.queue("T")
        for _ in range(20):
            store.append(request(queue, [b"x" * 500_000]))
        while store.allocator.step() == 0:
            pass
        written, zeroed = words(store, WRITE_POSITION, ZEROED_POSITION)
        assert zeroed - written >= 3 << 20
        store.flush()
        assert store.store.read(queue, 0, 100, 1 << 30).count == 20


def test_a_checkpoint_claims_only_what_is_synced(store: OpenStore) -> None:
    assert store.checkpointer.step(monotonic_ms()) is None
    for n in range(150):
        store.send(f"T{n % 2}")
    now = monotonic_ms()
    pause = store.checkpointer.step(now)
    assert pause is not None and 0 < pause <= 10_000, "nothing is flushed yet, so it looks again"
    assert store.checkpointer.step(now + 10_001) == 10_000
    assert Checkpoint.load(store.layout.checkpoint).confirm_offset == 0
    store.flusher.flush()
    pause = store.checkpointer.step(now)
    assert pause is not None and 0 < pause <= 10_000
    assert store.checkpointer.step(now + 10_001) is None
    written = Checkpoint.load(store.layout.checkpoint)
    time = store.page.words[LAST_STORE_TIME]
    assert (written.physic_timestamp, written.logics_timestamp) == (time, time)
    assert written.confirm_offset == store.page.words[WRITE_POSITION]
    assert store.layout.checkpoint.stat().st_size == 4096


def test_only_queues_that_moved_are_synced(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def note(paths: list[Path], root: Path) -> None:
        synced.extend(str(path.relative_to(root)) for path in paths if path.is_file())

    monkeypatch.setattr(checkpointer_module, "sync_paths", note)
    store.make_topic("T", 900)
    for queue_id in (3, 700):
        store.send("T", queue_id=queue_id)
    store.flusher.flush()
    store.checkpointer.write()
    first = f"{0:020d}"
    assert synced == [f"consumequeue/T/3/{first}", f"consumequeue/T/700/{first}"]
    synced.clear()
    store.send("T", queue_id=700)
    store.flusher.flush()
    store.checkpointer.write()
    assert synced == [f"consumequeue/T/700/{first}"]


def test_a_failed_queue_sync_ends_checkpoints(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.send("T")
    store.flusher.flush()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpointer_module, "sync_paths", fail)
    store.checkpointer.write()
    monkeypatch.undo()
    store.checkpointer.write()
    assert Checkpoint.load(store.layout.checkpoint).confirm_offset == 0


def test_a_checkpoint_that_finds_no_space_is_written_later(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.send("T")
    store.flusher.flush()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpointer_module, "save_producers", refuse)
    store.checkpointer.write()
    assert Checkpoint.load(store.layout.checkpoint).confirm_offset == 0
    monkeypatch.undo()
    assert store.checkpointer.step(monotonic_ms() + 10_001) is None
    assert Checkpoint.load(store.layout.checkpoint).confirm_offset == store.page.words[WRITE_POSITION]


def test_after_a_fast_restart_units_of_the_last_run_are_synced_too(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their queue need not move again: the checkpoint would claim units that only the page cache has."""
    store.send("Before")
    assert store.crash(keep_page=True).mode is RecoveryMode.FAST
    store.send("After")
    store.flusher.flush()
    synced: list[str] = []
    monkeypatch.setattr(
        checkpointer_module, "sync_paths", lambda paths, root: synced.extend(path.parts[-3] for path in paths)
    )
    store.checkpointer.write()
    assert {"Before", "After"} <= set(synced)


def test_a_checkpoint_stops_below_a_claim_that_has_not_moved_its_queues_yet(store: OpenStore) -> None:
    store.send("T")
    start = store.page.words[WRITE_POSITION]
    outcome = store.send("T")
    store.flusher.flush()
    store.page.words[JOURNAL_CLAIM_START] = start
    store.page.words[JOURNAL_STATE] = JournalState.COMMITTED
    store.checkpointer.write()
    assert Checkpoint.load(store.layout.checkpoint).confirm_offset == start
    store.page.words[JOURNAL_STATE] = JournalState.EMPTY
    store.checkpointer.write()
    assert Checkpoint.load(store.layout.checkpoint).confirm_offset == outcome.end


def test_services_sleep_on_an_idle_store(store: OpenStore) -> None:
    store.start_threads()
    store.send("T")
    wait_until(lambda: store.page.raw[APPEND_RINGS * 8] == 1 or store.flusher.step(0) is not None)
    store.stop_threads()
    assert store.page.words[FLUSHED_POSITION] == store.page.words[WRITE_POSITION]
    assert Checkpoint.load(store.layout.checkpoint).confirm_offset == store.page.words[WRITE_POSITION]
