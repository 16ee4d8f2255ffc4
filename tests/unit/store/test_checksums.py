"""Side files: what the flusher writes, what a crash leaves, what a start makes of it."""

from __future__ import annotations

import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from shmq.base.checksum import crc32
from shmq.shm.page_layout import FLUSHED_POSITION, WRITE_POSITION
from shmq.store.checksum_check import SegmentChecksums
from shmq.store.checksums import (
    ENTRY,
    ENTRY_BYTES,
    PIECE_BYTES,
    LogChecksums,
    cut_back,
    entry_of,
    remove_all_checksums,
    remove_checksums,
    summed_end,
)
from tests.helpers.store import OpenStore, request, small_settings
from tests.helpers.waiting import wait_until


def row(store: OpenStore) -> list[tuple[int, int]]:
    """First byte and end of all pieces of all side files."""
    found: list[tuple[int, int]] = []
    for start in store.layout.segments():
        sums = SegmentChecksums.load(store.layout, start)
        assert not sums.broken
        found += zip(sums.starts.tolist(), sums.ends.tolist(), strict=True)
    return found


def is_unbroken(pieces: list[tuple[int, int]]) -> bool:
    return all(before[1] == after[0] for before, after in pairwise(pieces))


def fill(store: OpenStore, count: int, size: int = 700) -> None:
    for n in range(count):
        store.append(request(store.queue("T", n % 2), [bytes([n % 251]) * size]))


def test_an_entry_is_start_length_and_two_sums() -> None:
    raw = entry_of(8192, b"bytes")
    assert ENTRY.unpack(raw) == (8192, 5, crc32(b"bytes"), crc32(raw[:16]))


def test_pieces_end_at_pages_and_where_nothing_more_came(store: OpenStore) -> None:
    fill(store, 30)
    store.flusher.flush()
    assert row(store) == [], "too little to be worth a write"
    store.flush()
    pieces = row(store)
    assert pieces[0][0] == 0 and pieces[-1][1] == store.page.words[FLUSHED_POSITION]
    assert is_unbroken(pieces) and all(end - start <= PIECE_BYTES for start, end in pieces)
    fill(store, 300)
    store.flusher.flush()
    pieces = row(store)
    assert is_unbroken(pieces)
    assert pieces[-1][1] == store.page.words[FLUSHED_POSITION] // PIECE_BYTES * PIECE_BYTES
    assert len(store.layout.segments()) > 2
    store.flush()


def test_the_last_bytes_are_summed_when_nothing_comes(tmp_path: Path) -> None:
    settings = small_settings(flush_interval_commit_log=1, flush_commit_log_least_pages=0)
    with OpenStore(tmp_path / "s", settings) as store:
        store.start_threads()
        fill(store, 3)
        store.bells[0].ring()
        wait_until(lambda: store.checksums.summed == store.page.words[WRITE_POSITION], 10, "all is summed")


def test_a_start_goes_on_behind_the_last_whole_entry(store: OpenStore) -> None:
    fill(store, 40)
    store.flush()
    path = store.layout.checksum_path(0)
    for cut in (1, ENTRY_BYTES - 1, ENTRY_BYTES, 3 * ENTRY_BYTES + 7):
        os.truncate(path, path.stat().st_size - cut)
        store.crash(keep_page=True)
        fill(store, 2)
        store.flush()
        assert is_unbroken(row(store))
        assert row(store)[-1][1] == store.page.words[FLUSHED_POSITION]


def test_what_a_power_cut_tore_out_of_a_side_file_is_summed_again(store: OpenStore) -> None:
    fill(store, 40)
    store.checkpointer.write()
    fill(store, 40)
    store.flusher.flush()
    store.checksums.complete(store.page.words[FLUSHED_POSITION])
    path = store.layout.checksum_path(0)
    raw = bytearray(path.read_bytes())
    at = len(raw) - 5 * ENTRY_BYTES
    raw[at : at + 30] = bytes(30)
    path.write_bytes(raw)
    store.crash()
    store.flush()
    assert is_unbroken(row(store)) and row(store)[0][0] == 0
    assert row(store)[-1][1] == store.page.words[FLUSHED_POSITION]


def test_entries_beyond_the_end_of_the_log_go_with_it(store: OpenStore) -> None:
    fill(store, 300)
    store.flush()
    third = store.layout.segments()[2]
    cut_back(store.layout, 0, third - 5000)
    end = summed_end(store.layout)
    assert end is not None and third - 5000 - PIECE_BYTES < end <= third - 5000
    assert not store.layout.checksum_path(third).exists()
    store.checksums.open(store.page.words[FLUSHED_POSITION])
    store.flush()
    store.checksums.complete(store.page.words[FLUSHED_POSITION])
    assert is_unbroken(row(store))


def test_too_much_for_a_start_is_noted_as_not_summed(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, 300)
    store.flush()
    end = store.page.words[FLUSHED_POSITION]
    os.truncate(store.layout.checksum_path(0), 5 * ENTRY_BYTES)
    for start in store.layout.segments()[1:]:
        remove_checksums(store.layout, start)
    monkeypatch.setattr("shmq.store.checksums.CATCH_UP_MAX", 1000)
    other = LogChecksums(store.layout, store.descriptors)
    other.open(end)
    assert other.summed == end and is_unbroken(row(store)) and row(store)[-1][1] == end
    assert not SegmentChecksums.load(store.layout, store.layout.segments()[1]).is_summed.any()
    other.close()
    store.checksums.open(end)


def test_removed_side_files_leave_the_log_to_its_body_sums(store: OpenStore) -> None:
    fill(store, 100)
    store.flush()
    assert remove_all_checksums(store.layout) > 0
    store.crash()
    fill(store, 5)
    store.flush()
    assert row(store)[0][0] > 0 and is_unbroken(row(store))


def test_a_disk_that_refuses_stops_the_sums_and_nothing_else(store: OpenStore) -> None:
    fill(store, 10)
    store.flush()
    shutil.rmtree(store.layout.checksums)
    store.checksums.close()
    fill(store, 200)
    store.flusher.flush()
    assert store.page.words[FLUSHED_POSITION] == store.page.words[WRITE_POSITION]
    store.layout.checksums.mkdir()
    store.flush()
    assert store.checksums.summed == store.page.words[FLUSHED_POSITION]
