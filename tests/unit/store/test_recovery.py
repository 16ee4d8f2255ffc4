"""Starts after clean stops, crashes, damage and with files taken away. Each ends with the store check."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import posix_ipc
import pytest

from shmq.base import faults
from shmq.base.errors import ConfigFault, StoreDamaged
from shmq.base.faults import FaultReached
from shmq.model.settings import FlushDiskType
from shmq.shm.control_page import PageState
from shmq.shm.directory import DirectoryView
from shmq.shm.offset_slots import OffsetSlots
from shmq.shm.page_layout import FLUSHED_POSITION, LAST_STORE_TIME, MIN_OFFSET, VISIBLE_WORD, WRITE_POSITION
from shmq.store.checkpoint import Checkpoint
from shmq.store.recovery import RecoveryMode
from shmq.store.run_marks import LastRun, read_marks
from tests.helpers.store import OpenStore, request, small_settings
from tests.unit.store.reading import read_all


def fill(store: OpenStore, count: int = 300) -> None:
    for n in range(count):
        store.send(f"T{n % 3}", b"body %d " % n * (n % 7 + 1), n % 4, TAGS="AB"[n % 2], UNIQ_KEY=f"K{n}")


def test_a_clean_stop_needs_no_walk_and_goes_on(store: OpenStore) -> None:
    fill(store)
    before = read_all(store)
    time = store.page.words[LAST_STORE_TIME]
    report = store.reopen()
    assert (report.mode, report.records, report.queues) == (RecoveryMode.CLEAN, 0, 12)
    assert read_all(store) == before
    assert store.page.words[LAST_STORE_TIME] == time
    assert store.send("T0").queue_offset == len(before["T0", 0])


def test_an_empty_store_opens_without_numpy(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from shmq.model.settings import BrokerSettings\n"
        "import shmq.store.recovery as r, shmq.store.flusher\n"
        "import shmq.store.segment_allocator, shmq.store.checkpointer\n"
        "from shmq.shm.control_page import ControlPage\n"
        f"root = Path({str(tmp_path)!r}); s = BrokerSettings(queue_slots=1024, offset_slots=1024)\n"
        "assert r.is_empty(root, s)\n"
        "report = r.open_or_recover(root, s)\n"
        "ControlPage.unlink(report.page_name)\n"
        "assert 'numpy' not in sys.modules, 'numpy was imported'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize("keep_page", [True, False])
def test_nothing_in_the_page_cache_is_lost_by_the_death_of_all(store: OpenStore, keep_page: bool) -> None:
    fill(store)
    store.flush()
    fill(store, 150)
    before = read_all(store)
    report = store.crash(keep_page=keep_page)
    assert report.mode is (RecoveryMode.FAST if keep_page else RecoveryMode.FULL)
    assert read_all(store) == before
    fill(store, 50)


def test_a_kept_page_of_another_run_is_not_believed(store: OpenStore) -> None:
    fill(store)
    store.layout.abort.write_text(f"{os.getpid()} 12345")
    assert store.crash(keep_page=True).mode is RecoveryMode.FULL


def test_a_kept_page_that_the_files_contradict_is_not_believed(store: OpenStore) -> None:
    fill(store, 100)
    store.page.words[WRITE_POSITION] -= 5
    assert store.crash(keep_page=True).mode is RecoveryMode.FULL


def test_without_a_checkpoint_everything_is_walked(store: OpenStore) -> None:
    fill(store)
    before = read_all(store)
    store.flush()
    store.layout.checkpoint.unlink()
    report = store.crash()
    assert (report.rebuilt, report.records) == (True, 300)
    assert report.units_written == 0
    assert read_all(store) == before


@pytest.mark.parametrize("clean", [True, False])
def test_deleted_consume_queues_and_index_are_rebuilt(store: OpenStore, clean: bool) -> None:
    fill(store)
    store.index_all()
    before = read_all(store)
    if clean:
        store.close_cleanly()
    else:
        store.flush()
    shutil.rmtree(store.root / "consumequeue")
    shutil.rmtree(store.root / "index")
    if clean:
        store._open()
    else:
        store.crash()
    assert store.report.units_written == 300
    assert read_all(store) == before
    store.index_all()
    for n in (0, 150, 299):
        assert len(store.store.lookup_key(f"T{n % 3}", f"K{n}", 5, 0, 2**60)) == 1


def test_one_deleted_queue_is_noticed_after_a_clean_stop(store: OpenStore) -> None:
    fill(store)
    before = read_all(store)
    store.close_cleanly()
    shutil.rmtree(store.root / "consumequeue" / "T1" / "2")
    store._open()
    assert store.report.rebuilt
    assert read_all(store) == before


def test_units_that_never_reached_the_disk_are_rebuilt(store: OpenStore) -> None:
    fill(store)
    store.flush()
    fill(store, 100)
    before = read_all(store)
    units = store.root / "consumequeue" / "T1" / "1"
    lost = sorted(units.iterdir())[-1]
    maximum = store.store.max(store.queue("T1", 1))
    with open(lost, "r+b") as file:
        file.seek((maximum - 3) * 20 % 1280)
        file.write(bytes(20))
    report = store.crash()
    assert report.units_written == 1
    assert read_all(store) == before


def test_garbage_behind_the_maximum_is_cleared(store: OpenStore) -> None:
    fill(store, 60)
    store.flush()
    path = store.root / "consumequeue" / "T1" / "1" / f"{0:020d}"
    with open(path, "r+b") as file:
        file.seek(1280 - 40)
        file.write(struct.pack(">qiq", 60_000, 120, 5))
    store.crash()


@pytest.mark.parametrize("damage", ["zero_end", "zero_middle", "body", "text", "magic", "cut_page"])
def test_a_torn_tail_is_cut_and_zeroed(store: OpenStore, damage: str) -> None:
    fill(store, 100)
    store.flush()
    kept = read_all(store)
    outcomes = [store.send("T0", b"lost %d" % n * 20, 0, TAGS="A") for n in range(5)]
    torn = outcomes[2]
    segment = torn.physical_offset - torn.physical_offset % (64 << 10)
    with open(store.root / "commitlog" / f"{segment:020d}", "r+b") as file:
        at, size = torn.physical_offset - segment, torn.end - torn.physical_offset
        position, data = {
            "zero_end": (at + size - 3, bytes(3)),
            "zero_middle": (at + 40, bytes(50)),
            "body": (at + 100, b"?"),
            "text": (at + size - 12, bytes(1)),
            "magic": (at + 4, bytes(4)),
            "cut_page": (at, bytes(4096)),
        }[damage]
        file.seek(position)
        file.write(data)
    report = store.crash()
    assert report.write_position == torn.physical_offset
    assert report.bytes_cut > 0 or damage == "cut_page"
    found = read_all(store)
    assert found["T0", 0][:-2] == kept["T0", 0]
    assert store.send("T0", b"next").physical_offset == torn.physical_offset


def test_damage_below_the_flushed_position_drops_nothing_behind_it(store: OpenStore) -> None:
    outcomes = [store.send("T", b"%d" % n * 50) for n in range(300)]
    store.flush()
    store.layout.checkpoint.unlink()
    broken = outcomes[100]
    with open(store.root / "commitlog" / f"{0:020d}", "r+b") as file:
        file.seek(broken.physical_offset + 95)
        file.write(b"????")
    flushed = store.page.words[FLUSHED_POSITION]
    Checkpoint(confirm_offset=flushed).save(store.layout.checkpoint)
    shutil.rmtree(store.root / "consumequeue")
    report = store.crash()
    assert report.damaged == [(broken.physical_offset, broken.end - broken.physical_offset)]
    assert report.write_position == outcomes[-1].end
    queue = store.queue("T")
    assert store.store.max(queue) == 300
    numbers = [o.queue_offset for o in outcomes if o is not broken]
    assert [n for n, _ in read_all(store, numbered=True)["T", 0]] == numbers
    # leave a store that the check finds whole: the damaged record is put back
    with open(store.root / "commitlog" / f"{0:020d}", "r+b") as file:
        file.seek(broken.physical_offset + 95)
        file.write((b"100" * 50)[95 - 88 :][:4])
    shutil.rmtree(store.root / "consumequeue")
    store.layout.checkpoint.unlink()
    store.crash()


def test_a_missing_blank_in_the_tail_ends_the_log_there(store: OpenStore) -> None:
    queue = store.queue("T")
    store.flush()
    ends = [store.append(request(queue, [b"x" * 20_000]))[0] for _ in range(5)]
    assert ends[3].physical_offset == 64 << 10
    with open(store.root / "commitlog" / f"{0:020d}", "r+b") as file:
        file.seek(ends[2].end)
        file.write(bytes(8))
    report = store.crash()
    assert report.write_position == ends[2].end
    assert store.layout.segments()[0] == 0


def test_a_blank_without_a_next_segment_goes_on_behind_it(store: OpenStore) -> None:
    queue = store.queue("T")
    store.store.append([request(queue, [b"x" * 20_000]) for _ in range(4)])
    assert store.page.words[WRITE_POSITION] == 64 << 10
    for start in store.layout.segments()[1:]:
        store.layout.segment_path(start).unlink()
    report = store.crash()
    assert report.write_position == 64 << 10
    assert store.send("T").physical_offset == 64 << 10


def test_empty_last_files_are_removed(store: OpenStore) -> None:
    fill(store, 40)
    store.close_cleanly()
    end = store.layout.segments()[-1] + (64 << 10)
    store.layout.segment_path(end).touch()
    store.layout.queue_file_path("T0", 0, 1280 * 5).touch()
    store._open()
    assert (
        store.layout.segment_path(end).stat().st_size in (0, 64 << 10)
        if (store.layout.segment_path(end).exists())
        else True
    )


def test_a_segment_of_another_size_is_refused_with_the_setting_named(tmp_path: Path) -> None:
    with OpenStore(tmp_path / "s") as store:
        fill(store, 10)
        store.close_cleanly()
        other = small_settings(mapped_file_size_commit_log=128 << 10)
        with pytest.raises(StoreDamaged, match="mappedFileSizeCommitLog"):
            OpenStore(store.root, other)
        store._open()


def test_offsets_come_back_and_never_lie_behind_the_end(store: OpenStore) -> None:
    fill(store, 60)
    store.flush()
    table = {"T0@G": {"0": 3, "2": 999}, "T1@G": {"1": 5}, "Gone@G": {"0": 7}, "Again@G": {"1": 9}}
    topics = {"topicConfigTable": {}, "shmqDeletedTopics": {"Again": [2, 4]}}
    (store.root / "config" / "topics.json").write_text(json.dumps(topics))
    (store.root / "config" / "consumerOffset.json").write_text(
        json.dumps({"offsetTable": table}).replace('"0":', "0:").replace('"2":', "2:")
    )
    report = store.crash()
    slots, directory = OffsetSlots(store.page), DirectoryView(store.page)

    def committed(topic: str, queue_id: int) -> int:
        slot = directory.offset_slot("G", topic, queue_id)
        return -1 if slot is None else slots.committed(slot)

    assert [committed("T0", 0), committed("T0", 1), committed("T1", 1)] == [3, -1, 5]
    assert committed("T0", 2) == store.store.max(store.queue("T0", 2))
    assert [committed("Gone", 0), committed("Again", 1)] == [0, 4], "where the queue begins when it is made"
    assert report.offsets_clamped == 3


def test_a_deleted_topic_stays_deleted_when_queues_are_rebuilt(store: OpenStore) -> None:
    fill(store, 60)
    store.flush()
    topics = {
        "topicConfigTable": {"T0": {}, "T1": {}},
        "shmqDeletedTopics": {"T2": [5, 5, 5, 5], "T1": [0, 3]},
    }
    (store.root / "config" / "topics.json").write_text(json.dumps(topics))
    shutil.rmtree(store.root / "consumequeue")
    store.crash()
    assert sorted(store.directory.topics()) == ["T0", "T1"]
    queue = store.queue("T1", 1)
    assert (store.store.min(queue), store.store.max(queue)) == (3, 5)
    store.send("T1", b"more", 1)


def test_queues_begin_where_the_log_begins(store: OpenStore) -> None:
    queue = store.queue("T")
    outcomes = [store.append(request(queue, [b"x" * 5_000]))[0] for _ in range(40)]
    store.flush()
    store.store.close()
    for start in store.layout.segments()[:2]:
        store.layout.segment_path(start).unlink()
    low = store.layout.segments()[0]
    first = next(o.queue_offset for o in outcomes if o.physical_offset >= low)
    report = store.crash()
    queue = store.queue("T")
    assert report.min_offset == store.page.words[MIN_OFFSET] == low
    assert (store.store.min(queue), store.store.max(queue)) == (first, 40)
    shutil.rmtree(store.root / "consumequeue")
    store.crash()
    queue = store.queue("T")
    assert (store.store.min(queue), store.store.max(queue)) == (first, 40)
    units = (store.root / "consumequeue" / "T" / "0" / f"{0:020d}").read_bytes()
    assert units[:20] == struct.pack(">qiq", 0, 0x7FFFFFFF, 0), "fillers, as RocketMQ writes them"


# ---- who wrote last


def test_a_foreign_store_is_opened_only_when_adopted(store: OpenStore) -> None:
    fill(store, 60)
    before = read_all(store)
    store.close_cleanly()
    store.layout.identity.unlink()
    shutil.rmtree(store.layout.checksums)  # another engine makes none
    with pytest.raises(ConfigFault, match="--adopt"):
        OpenStore(store.root)
    store._open(adopt=True)
    assert read_all(store) == before


def test_another_engine_is_seen_by_its_abort_or_its_checkpoint(store: OpenStore) -> None:
    fill(store, 10)
    store.flush()
    assert read_marks(store.layout).last_run is LastRun.CRASHED
    abort = store.layout.abort.read_text()
    store.layout.abort.write_text("4711")
    assert read_marks(store.layout).last_run is LastRun.FOREIGN
    store.layout.abort.unlink()
    assert read_marks(store.layout).last_run is LastRun.FOREIGN
    store.layout.abort.write_text(abort)
    identity = store.layout.identity.read_bytes()
    store.layout.identity.unlink()
    assert read_marks(store.layout).last_run is LastRun.CRASHED, "a first start that died between its marks"
    store.layout.identity.write_bytes(identity)
    store.layout.abort.write_text(abort)
    store.close_cleanly()
    assert read_marks(store.layout).last_run is LastRun.CLEAN
    Checkpoint(physic_timestamp=5).save(store.layout.checkpoint)
    assert read_marks(store.layout).last_run is LastRun.FOREIGN
    store._open(adopt=True)


def test_sync_flush_bounds_readers_by_the_flushed_position(tmp_path: Path) -> None:
    with OpenStore(tmp_path / "s", small_settings(flush_disk_type=FlushDiskType.SYNC_FLUSH)) as store:
        assert store.page.words[VISIBLE_WORD] == FLUSHED_POSITION
        store.send("T")
        assert store.store.max(store.queue("T")) == 0
        store.flush()
        assert store.store.max(store.queue("T")) == 1


# ---- after a failed fdatasync


def test_after_a_failed_sync_the_tail_is_written_anew(store: OpenStore) -> None:
    fill(store, 100)
    store.flush()
    fill(store, 50)
    before = read_all(store)
    store.page.state = PageState.FLUSH_FAILED
    report = store.crash(keep_page=True)
    assert report.mode is RecoveryMode.FULL
    assert read_all(store) == before
    assert not list((store.root / "shmq").glob("unflushed*"))


WINDOWS = ["unflushed.copied", "unflushed.dropped", "unflushed.written", "unflushed.compared"]


@pytest.mark.parametrize("window", WINDOWS)
def test_a_death_while_the_tail_is_written_anew_loses_nothing(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch, window: str
) -> None:
    """From the copy, also when the disk has given other bytes meanwhile: that is why there is one."""
    fill(store, 100)
    store.flush()
    fill(store, 50)
    before = read_all(store)
    flushed = store.page.words[FLUSHED_POSITION]
    store.page.state = PageState.FLUSH_FAILED

    def die(name: str) -> None:
        if name == window:
            raise FaultReached(name)

    with monkeypatch.context() as patched:
        patched.setattr(faults, "reach", die)
        with pytest.raises(FaultReached):
            store.crash(keep_page=True)
        with pytest.raises(FaultReached):
            store._open()
    if window != "unflushed.compared":
        with open(store.layout.segment_path(0), "r+b") as segment:
            segment.seek(flushed)
            segment.write(bytes(1000))
    store._open()
    assert store.report.mode is RecoveryMode.FULL
    assert read_all(store) == before
    assert not list((store.root / "shmq").glob("unflushed*"))


def test_a_disk_that_still_fails_is_only_read_until_it_works(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, 100)
    store.flush()
    durable = read_all(store)
    fill(store, 50)
    before = read_all(store)
    flushed = store.page.words[FLUSHED_POSITION]
    store.page.state = PageState.FLUSH_FAILED

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    for _ in range(2):
        assert store.crash(keep_page=True).mode is RecoveryMode.READ_ONLY
        assert store.page.state is PageState.READ_ONLY
        assert read_all(store) == durable, "only what is surely on the disk"
        (outcome,) = store.store.append([request(store.queue("A"), [b"x"])])
        assert "cannot be written" in str(outcome.error)
        assert list((store.root / "shmq").glob(f"unflushed-*-{flushed}"))
    monkeypatch.undo()
    assert store.crash(keep_page=True).mode is RecoveryMode.FULL
    assert read_all(store) == before
    assert not list((store.root / "shmq").glob("unflushed*"))


def test_a_start_removes_semaphores_whose_pages_others_removed(store: OpenStore) -> None:
    """Their names carry ids of pages that nobody can ask any more."""
    lost = f"{store.name}-{0x1234:016x}"
    posix_ipc.Semaphore(lost, posix_ipc.O_CREX, initial_value=1).close()
    store.crash()
    with pytest.raises(posix_ipc.ExistentialError):
        posix_ipc.Semaphore(lost)
    assert store.send("T").queue_offset == 0
