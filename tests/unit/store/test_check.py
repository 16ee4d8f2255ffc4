"""The check finds what it should find; and the view and small parts beside it."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from shmq.base.errors import StoreDamaged
from shmq.shm.page_layout import FLUSHED_POSITION, INDEXED_POSITION, WRITE_POSITION
from shmq.store import mapped_files, queue_repair
from shmq.store.check import check_store
from shmq.store.checkpoint import Checkpoint
from shmq.store.mapped_file import MappedFile
from shmq.store.mapped_files import MappedFiles
from shmq.store.names import StoreLayout, file_name, parse_file_name
from shmq.store.sparse_files import first_written, sync_paths, zero_written
from shmq.store.store_view import StoreView, layout_of
from tests.helpers.store import OpenStore, request, small_settings


def poke(path: Path, position: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(data)


def log_byte(store: OpenStore) -> None:
    poke(store.layout.segment_path(0), 95, b"?")


def store_time(store: OpenStore) -> None:
    poke(store.layout.segment_path(0), 56, struct.pack(">q", 2**50))


def queue_number(store: OpenStore) -> None:
    poke(store.layout.segment_path(0), 27, b"\x07")


def behind_the_end(store: OpenStore) -> None:
    poke(store.layout.segment_path(0), 60_000, b"x")


def unit_size(store: OpenStore) -> None:
    poke(store.layout.queue_file_path("T", 0, 0), 11, b"\x01")


def unit_tag(store: OpenStore) -> None:
    poke(store.layout.queue_file_path("T", 0, 0), 39, b"\x01")


def unit_behind(store: OpenStore) -> None:
    poke(store.layout.queue_file_path("T", 0, 0), 20 * 40, struct.pack(">qiq", 1, 100, 0))


def maximum(store: OpenStore) -> None:
    store.store.table.set_max(store.queue("T").slot, 3)


def minimum(store: OpenStore) -> None:
    store.store.table.set_min(store.queue("T").slot, 90)


def flushed(store: OpenStore) -> None:
    store.page.words[FLUSHED_POSITION] = store.page.words[WRITE_POSITION] + 1


def indexed(store: OpenStore) -> None:
    store.page.words[INDEXED_POSITION] = store.page.words[WRITE_POSITION] + 1


def checkpoint(store: OpenStore) -> None:
    Checkpoint(confirm_offset=50_000).save(store.layout.checkpoint)


def cut_checkpoint(store: OpenStore) -> None:
    Checkpoint().save(store.layout.checkpoint)
    os.truncate(store.layout.checkpoint, 39)


def negative_checkpoint(store: OpenStore) -> None:
    Checkpoint(physic_timestamp=-1).save(store.layout.checkpoint)


def stray_file(store: OpenStore) -> None:
    (store.root / "commitlog" / "notes.tmp").write_text("x")


def missing_queue(store: OpenStore) -> None:
    store.layout.queue_file_path("T", 0, 0).unlink()


@pytest.mark.parametrize(
    "damage",
    [
        *(log_byte, store_time, queue_number, behind_the_end, unit_size, unit_tag, unit_behind, maximum),
        *(minimum, flushed, indexed, checkpoint, stray_file, missing_queue),
        *(cut_checkpoint, negative_checkpoint),
    ],
)
def test_every_kind_of_damage_is_found(tmp_path: Path, damage: Callable[[OpenStore], None]) -> None:
    with OpenStore(tmp_path / "s") as store:
        for n in range(30):
            store.send("T", b"body %d" % n, TAGS="A")
        assert list(check_store(store.root, store.page)) == []
        damage(store)
        findings = list(check_store(store.root, store.page))
        assert findings
        assert all(str(finding).count(":") >= 2 for finding in findings)


def test_a_running_store_is_checked_up_to_where_it_was(store: OpenStore) -> None:
    store.append(request(store.queue("T"), [b"x"] * 200))
    findings = check_store(store.root, store.page)
    store.append(request(store.queue("T"), [b"y"] * 200))
    assert list(findings) == []


def test_the_view_shows_the_same_with_and_without_a_page(store: OpenStore) -> None:
    for n in range(200):
        store.send(f"T{n % 2}", b"%d" % n, n % 3)
    seen = StoreView(store.root, store.page)
    rows, end = seen.queues(), seen.end
    records = [bytes(record) for record in seen.records(0, end)]
    store.close_cleanly()
    alone = StoreView(store.root)
    assert (alone.queues(), alone.end) == (rows, end)
    assert [bytes(record) for record in alone.records(0, alone.end)] == records
    assert len(records) == 200
    (unit,) = alone.units("T0", 1, 0, 1)
    record = alone.record_at(unit.physical_offset)
    assert record is not None and len(record) == unit.size
    store._open()


def test_a_file_that_goes_while_it_is_looked_at_does_not_count(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.send("T")
    listed = StoreLayout.segments
    monkeypatch.setattr(StoreLayout, "segments", lambda layout: [*listed(layout), 1 << 40])
    assert layout_of(store.root).segment_bytes == store.layout.segment_bytes


def test_names_are_twenty_digits() -> None:
    assert file_name(1_073_741_824) == "00000000001073741824"
    assert parse_file_name("00000000001073741824") == 1_073_741_824
    assert [parse_file_name(name) for name in ("0", "x" * 20, "0000000000107374182 ")] == [None] * 3
    layout = StoreLayout.of(Path("/s"), small_settings(mapped_file_size_consume_queue=6_000_001))
    assert layout.queue_file_bytes == 6_000_020
    assert layout.segment_start((64 << 10) + 5) == 64 << 10


def test_the_checkpoints_forty_bytes(tmp_path: Path) -> None:
    made = Checkpoint(10_000, 9_000, 3, 4, 5)
    made.save(tmp_path / "checkpoint")
    data = (tmp_path / "checkpoint").read_bytes()
    assert data == struct.pack(">5q", 10_000, 9_000, 3, 4, 5) + bytes(4096 - 40)
    assert Checkpoint.load(tmp_path / "checkpoint") == made
    assert made.trusted_timestamp == 6_000
    assert Checkpoint.load(tmp_path / "absent") == Checkpoint()


def test_a_queue_file_that_retention_deletes_meanwhile_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = StoreLayout(tmp_path, 1 << 20, 1280)
    layout.queue_folder("T", 0).mkdir(parents=True)
    for start in (0, 1280, 2560):
        layout.queue_file_path("T", 0, start).write_bytes(bytes(1280))
    found = queue_repair.file_starts

    def deleted_after_the_look(folder: str) -> list[int]:
        starts = found(folder)
        layout.queue_file_path("T", 0, 0).unlink(missing_ok=True)
        return starts

    monkeypatch.setattr(queue_repair, "file_starts", deleted_after_the_look)
    queue = queue_repair.QueueRepair(layout, "T", 0)
    assert queue.load() and queue.starts == [1280, 2560]


def test_maps_are_bounded_and_views_outlive_them(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / str(n)).write_bytes(b"%d" % n * 100)
    maps: MappedFiles[int] = MappedFiles(lambda n: MappedFile(tmp_path / str(n), n, 100, writable=False), 3)
    view = maps.get(0).view[:3]
    for n in (1, 2, 0, 3, 4):
        maps.get(n)
    assert len(maps) == 3
    (tmp_path / "0").unlink()
    assert maps.get(0).size == 100, "used a moment ago: still mapped"
    assert maps.get(1, stay=True).size == maps.get(2, stay=True).size == 100
    assert [n for n in range(5) if maps.has(n)] == [0, 1, 2, 3, 4], "none is dropped for one that is to stay"
    maps.trim()
    assert [n for n in range(5) if maps.has(n)] == [0, 1, 2]
    assert bytes(view) == b"000"
    with pytest.raises(StoreDamaged, match="mappedFileSize"):
        MappedFile(tmp_path / "1", 1, 99, writable=False)


@pytest.mark.parametrize(
    ("descriptors", "most"),
    [(1024, 640), (20_000, 12_500), (1 << 20, 16_384), (resource.RLIM_INFINITY, 16_384)],
)
def test_maps_leave_descriptors_for_others(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, most: int
) -> None:
    monkeypatch.setattr(mapped_files.resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert mapped_files.maps_max(mapped_files.QUEUE_MAPS_MAX, mapped_files.WRITER_QUEUES_SHARE) == most


def test_holes_are_neither_read_nor_written(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.truncate(1 << 30)
        file.seek(700 << 20)
        file.write(b"\0" * 10 + b"abc")
    assert first_written(path, 0) == (700 << 20) + 10
    assert first_written(path, (700 << 20) + 20) is None
    assert zero_written(path, 0) == 3
    assert first_written(path, 0) is None
    assert path.stat().st_blocks * 512 <= 1 << 20
    sync_paths([path, tmp_path / "gone"], tmp_path)
    sync_paths([path] * 100, tmp_path)
