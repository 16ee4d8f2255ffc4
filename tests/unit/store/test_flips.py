"""Random flips and cuts in every kind of file: all that carry meaning are found, and named."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.broker.config_file import ConfigFile
from shmq.store.changed_files import changed_files
from shmq.store.check import Finding, check_store
from shmq.store.checksum_check import Piece, SegmentChecksums, changed_byte
from shmq.store.damage_search import find_damage
from shmq.store.index_file import IndexHeader, index_names
from shmq.store.index_sums import changed_index_files
from shmq.store.log_scan import ScanEnd, scan
from shmq.store.mapped_file import MappedFile
from shmq.store.names import StoreLayout
from tests.helpers.store import OpenStore, request

TABLES = ("topics.json", "subscriptionGroup.json", "consumerOffset.json", "delayOffset.json")
FLIPS = 25
FLIPS_LONG = 3000


def flips(default: int = FLIPS, long: int = FLIPS_LONG) -> pytest.MarkDecorator:
    """Run with `default` flips in the default run, with `long` ones in the long run."""
    return pytest.mark.parametrize(
        "count", [default, pytest.param(long, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
    )


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[StoreLayout]:
    """A store of several segments, stopped cleanly."""
    with OpenStore(tmp_path / "store") as store:
        for n in range(120):
            some = [random.Random(n).randbytes(n * 11 % 3000) for _ in range(n % 4 + 1)]
            queue = store.queue(f"Topic{n % 3}", n % 2)
            store.append(request(queue, some, TAGS="AB"[n % 2], KEYS=f"k{n} also{n}"))
            if n % 7 == 0:
                store.flush()
        store.index_all()
        for name in TABLES:
            ConfigFile(store.layout.config / name, store.layout.checksums).save({"table": {name: n}})
        store.close_cleanly()
        assert list(check_store(store.root)) == []
        yield store.layout
        assert list(check_store(store.root)) == [], "every flip is taken back"
        store._open()


class Flip:
    """One byte of a file that holds something else for a while."""

    def __init__(self, path: Path, position: int, change: int) -> None:
        self.path, self.position, self.change = path, position, change

    def _apply(self) -> None:
        fd = os.open(self.path, os.O_RDWR)
        byte = os.pread(fd, 1, self.position)[0]
        os.pwrite(fd, bytes([byte ^ self.change]), self.position)
        os.close(fd)

    def __enter__(self) -> None:
        self._apply()

    def __exit__(self, *_: object) -> None:
        self._apply()


def spans(layout: StoreLayout, start: int) -> list[tuple[int, int]]:
    """First position and end in the file of every record of a segment, and of the BLANK's head."""
    segment = MappedFile(layout.segment_path(start), start, layout.segment_bytes, writable=False)
    found = scan(segment.map, 0, segment.size, start)
    rows = list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))
    return [*rows, (found.stop, found.stop + 8)] if found.end is ScanEnd.BLANK else rows


def names(findings: list[Finding], position: int) -> bool:
    return any(f"physical offset {position}" in finding.where for finding in findings)


@flips()
def test_every_flip_in_the_log_is_found_and_only_its_record_is_named(
    stopped: StoreLayout, count: int
) -> None:
    chance = random.Random(count)
    begin = stopped.segments()
    records = {start: spans(stopped, start) for start in begin}
    for n in range(count):
        start = chance.choice([start for start in begin if records[start]])
        first, end = chance.choice(records[start])
        # Half of them in the head or behind the body: that is what a body CRC does not see.
        at = chance.randrange(first, end) if n % 2 else chance.randrange(first, min(end, first + 88))
        with Flip(stopped.segment_path(start), at, chance.randrange(1, 256)):
            findings = list(check_store(stopped.root))
            assert names(findings, start + first), (start, first, at, findings)
            segment = MappedFile(stopped.segment_path(start), start, stopped.segment_bytes, writable=False)
            sums = SegmentChecksums.load(stopped, start)
            failing = sums.failing(segment.map, start, start, start + stopped.segment_bytes)
            assert len(failing) == 1
            stop = min(start + stopped.segment_bytes, int(sums.ends[-1]))
            (damage,) = find_damage(stopped, segment, start, stop, failing)
            assert damage.position == start + first, "the others are good messages"


@flips()
def test_a_flip_in_the_filler_harms_nobody(stopped: StoreLayout, count: int) -> None:
    chance = random.Random(count)
    blanks = {start: spans(stopped, start)[-1][1] for start in stopped.segments()[:-2]}
    fillers = {start: at for start, at in blanks.items() if at < stopped.segment_bytes}
    assert fillers
    for _ in range(count // 10):
        start = chance.choice(list(fillers))
        at = chance.randrange(fillers[start], stopped.segment_bytes)
        with Flip(stopped.segment_path(start), at, chance.randrange(1, 256)):
            assert list(check_store(stopped.root)) == []


@flips()
def test_every_flip_and_cut_in_a_side_file_is_found(stopped: StoreLayout, count: int) -> None:
    chance = random.Random(count)
    files = [stopped.checksum_path(start) for start in stopped.segments()]
    files = [path for path in files if path.exists()]
    for n in range(count):
        path = chance.choice(files)
        raw = path.read_bytes()
        at = chance.randrange(len(raw))
        if n % 5:
            with Flip(path, at, chance.randrange(1, 256)):
                findings = list(check_store(stopped.root))
        else:
            os.truncate(path, at)
            findings = list(check_store(stopped.root))
            path.write_bytes(raw)
        assert any(finding.rule == "checksums" for finding in findings), (path, at)


@flips()
def test_every_flip_in_a_queue_is_found(stopped: StoreLayout, count: int) -> None:
    chance = random.Random(count)
    files = [path for path in stopped.consume_queue.glob("*/*/*") if any(path.read_bytes())]
    for _ in range(count):
        path = chance.choice(files)
        units = len(path.read_bytes().rstrip(b"\0")) + 19
        at = chance.randrange(min(units - units % 20, path.stat().st_size))
        with Flip(path, at, chance.randrange(1, 256)):
            assert list(check_store(stopped.root)), (path, at)


@flips()
@pytest.mark.parametrize("name", [*TABLES, "checkpoint", "identity.json"])
def test_every_flip_and_cut_in_a_small_file_and_its_sum_is_found(
    stopped: StoreLayout, name: str, count: int
) -> None:
    chance = random.Random(count)
    folders = {"checkpoint": stopped.root, "identity.json": stopped.identity.parent}
    path = folders.get(name, stopped.config) / name
    meaning = {path: 40 if name == "checkpoint" else path.stat().st_size}
    meaning[stopped.checksums / f"{name}.sum"] = 64
    for n in range(count):
        file = chance.choice(list(meaning))
        at = chance.randrange(meaning[file])
        raw = file.read_bytes()
        if n % 5:
            with Flip(file, at, chance.randrange(1, 256)):
                changed = changed_files(stopped)
        else:
            os.truncate(file, at)
            changed = changed_files(stopped)
            file.write_bytes(raw)
        assert list(changed) == [path], (file, at)
    assert changed_files(stopped) == {}


@flips(25, 1000)
def test_every_flip_in_a_used_byte_of_an_index_file_is_found(stopped: StoreLayout, count: int) -> None:
    chance = random.Random(count)
    files = [stopped.index / name for name in index_names(stopped.index)]
    assert len(files) > 1
    for n in range(count):
        path = chance.choice(files)
        with path.open("rb") as file:
            used = 40 + 4 * 101 + 20 * IndexHeader.decode(memoryview(file.read(40))).index_count
        target = path if n % 10 else stopped.checksums / f"{path.name}.sum"
        with Flip(target, chance.randrange(used if n % 10 else 64), chance.randrange(1, 256)):
            assert [f.where for f in check_store(stopped.root) if f.rule == "index"], path
            assert list(changed_index_files(stopped)) == [path]


def test_the_changed_byte_is_told_by_the_sum_alone(stopped: StoreLayout) -> None:
    chance = random.Random(1)
    sums = SegmentChecksums.load(stopped, 0)
    raw = bytearray(stopped.segment_path(0).read_bytes())
    for _ in range(200):
        row = chance.randrange(len(sums))
        start, end = int(sums.starts[row]), int(sums.ends[row])
        piece = bytearray(raw[start:end])
        at, was = (n := chance.randrange(len(piece))), piece[n]
        piece[at] ^= chance.randrange(1, 256)
        change = changed_byte(Piece(start, end, int(sums.crcs[row])), piece)
        assert change == (start + at, was)
