"""Zeroing: exactly the asked bytes, over file ends, and nothing where there is no file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryWriter
from shmq.store.names import StoreLayout
from shmq.supervisor.zeroing import Zeroing

SEGMENT = 4096
QUEUE_FILE = 100


@pytest.fixture
def page() -> Iterator[ControlPage]:
    name = f"/shmq-test-zeroing-{os.getpid()}"
    made = ControlPage.create(
        name, queue_slots=1024, offset_slots=1024, directory_bytes=4096, store_identity=1
    )
    yield made
    made.close()
    ControlPage.unlink(name)


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    return StoreLayout(tmp_path, SEGMENT, QUEUE_FILE)


def test_log_bytes_are_zeroed_over_a_segments_end(layout: StoreLayout, page: ControlPage) -> None:
    layout.commit_log.mkdir()
    for start in (0, SEGMENT):
        layout.segment_path(start).write_bytes(b"x" * SEGMENT)
    Zeroing(layout, page).zero_log(SEGMENT - 10, SEGMENT + 20)
    assert layout.segment_path(0).read_bytes() == b"x" * (SEGMENT - 10) + bytes(10)
    assert layout.segment_path(SEGMENT).read_bytes() == bytes(20) + b"x" * (SEGMENT - 20)


def test_units_of_a_slot_are_zeroed_over_a_files_end(layout: StoreLayout, page: ControlPage) -> None:
    queues = DirectoryWriter(page).add_queues("orders", 0, [(0, 0), (0, 0)])
    slot = queues[1].slot
    folder = layout.queue_folder("orders", 1)
    folder.mkdir(parents=True)
    for start in (0, QUEUE_FILE):
        layout.queue_file_path("orders", 1, start).write_bytes(b"x" * QUEUE_FILE)
    Zeroing(layout, page).zero_units(slot, 4, 7)
    assert layout.queue_file_path("orders", 1, 0).read_bytes() == b"x" * 80 + bytes(20)
    assert layout.queue_file_path("orders", 1, QUEUE_FILE).read_bytes() == bytes(40) + b"x" * 60


def test_missing_files_and_unknown_slots_are_nothing_to_do(layout: StoreLayout, page: ControlPage) -> None:
    zeroing = Zeroing(layout, page)
    zeroing.zero_log(0, 10_000)
    zeroing.zero_units(17, 0, 5)
    assert list(layout.root.iterdir()) == []
