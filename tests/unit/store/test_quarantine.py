"""Damage in the log: one byte is put back, more is replaced, and everything else is delivered."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base import faults
from shmq.base.faults import FaultReached
from shmq.model.damaged_record import DAMAGED, RECORD_BYTES_MIN, is_damaged, plug, substitute
from shmq.model.record import check_record, parse_record
from shmq.store.aside import keep_aside
from shmq.store.check import check_store
from shmq.store.damage_table import MARKED, MENDED, REPLACED, DamageRow, DamageTable
from shmq.store.quarantine import Quarantine
from shmq.store.store_view import StoreView
from tests.helpers.store import OpenStore, request

WINDOWS = ["quarantine.kept", "quarantine.noted", "quarantine.written", "quarantine.summed"]

Messages = dict[tuple[str, int, int], bytes]


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[OpenStore]:
    """Some segments, flushed and without a checkpoint: a start without the page walks all of it."""
    with OpenStore(tmp_path / "store") as store:
        for n in range(60):
            some = [random.Random(n).randbytes(n * 13 % 2500) for _ in range(n % 4 + 1)]
            store.append(request(store.queue(f"Topic{n % 3}", n % 2), some, TAGS="AB"[n % 2], KEYS=f"k{n}"))
            store.flusher.flush()
        store.checksums.complete(store.page.words[40])
        yield store
        assert list(check_store(store.root, store.page)) == []


def messages(store: OpenStore) -> Messages:
    """What consumers of all queues are given."""
    found: Messages = {}
    store.directory.catch_up()
    for topic in store.directory.topics():
        for queue in store.directory.queues(topic):
            offset = 0
            while True:
                result = store.store.read(queue, offset, 32, 1 << 20)
                for view in result.views:
                    at = 0
                    while at < len(view):
                        fields = parse_record(view, at, at + int.from_bytes(view[at : at + 4], "big"))
                        found[topic, queue.queue_id, fields.queue_offset] = bytes(view[at : at + fields.size])
                        at += fields.size
                if result.next_offset <= offset:
                    break
                offset = result.next_offset
    return found


def places(store: OpenStore) -> list[tuple[int, int]]:
    """Position and size of every record."""
    view = StoreView(store.root, store.page)
    found, position = [], 0
    while position < view.end:
        for record in view.records(position, view.end):
            fields = parse_record(record)
            found.append((fields.physical_offset, fields.size))
        break
    return found


def overwrite(store: OpenStore, position: int, data: bytes) -> bytes:
    """Put other bytes into the log; return what was there."""
    start = store.layout.segment_start(position)
    fd = os.open(store.layout.segment_path(start), os.O_RDWR)
    before = os.pread(fd, len(data), position - start)
    os.pwrite(fd, data, position - start)
    os.close(fd)
    return before


@pytest.mark.parametrize("count", [25, pytest.param(300, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_one_changed_byte_is_put_back_wherever_it_was(filled: OpenStore, count: int) -> None:
    chance = random.Random(count)
    expected, records = messages(filled), places(filled)
    for _ in range(count):
        position, size = chance.choice(records)
        at = position + chance.randrange(size if chance.random() < 0.5 else min(size, 88))
        byte = filled.store.log.view(at, 1)[0] ^ chance.randrange(1, 256)
        was = overwrite(filled, at, bytes([byte]))
        filled.layout.checkpoint.unlink(missing_ok=True)
        report = filled.crash()
        assert len(report.damaged) == 1
        assert bytes(filled.store.log.view(at, 1)) == was
        assert list(check_store(filled.root, filled.page)) == []
    assert messages(filled) == expected
    assert {row.state for row in DamageTable(filled.layout).rows} == {MENDED}


@pytest.mark.parametrize("queues", ["there", "gone"])
@pytest.mark.parametrize("part", ["head", "body", "end", "all"])
def test_many_changed_bytes_cost_their_message_and_no_other(
    filled: OpenStore, part: str, queues: str
) -> None:
    chance = random.Random(f"{part}{queues}")
    expected, records = messages(filled), places(filled)
    by_place = {parse_record(raw).physical_offset: key for key, raw in expected.items()}
    position, size = chance.choice([(p, s) for p, s in records[10:-10] if s > 400])
    begin, length = {"head": (0, 60), "body": (120, 80), "end": (size - 30, 25), "all": (0, size)}[part]
    was = bytes(filled.store.log.view(position, size))
    overwrite(filled, position + begin, chance.randbytes(length))
    filled.layout.checkpoint.unlink(missing_ok=True)
    if queues == "gone":
        shutil.rmtree(filled.layout.consume_queue)
        filled.layout.consume_queue.mkdir()
    report = filled.crash()
    lost = by_place[position]
    assert messages(filled) == {key: raw for key, raw in expected.items() if key != lost}
    assert len(report.damaged) == 1
    (row,) = DamageTable(filled.layout).rows
    assert (row.position, row.size, row.state) == (position, size, REPLACED)
    if queues == "there" or part == "body":
        assert (row.topic, row.queue_id, row.queue_offset) == lost
    aside = (filled.layout.quarantine / row.aside).read_bytes()
    assert aside[:begin] == was[:begin] and aside[begin + length :] == was[begin + length :]
    assert list(check_store(filled.root, filled.page)) == []
    filled.send("Topic0", b"after")
    filled.flush()
    assert filled.crash().damaged == [], "it is found once"


@pytest.mark.parametrize("window", WINDOWS)
def test_a_crash_while_damage_is_replaced_changes_nothing(
    filled: OpenStore, window: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, records = messages(filled), places(filled)
    position, size = records[20]
    overwrite(filled, position, bytes(size))
    filled.layout.checkpoint.unlink(missing_ok=True)

    def die(name: str) -> None:
        if name == window:
            raise FaultReached(name)

    with monkeypatch.context() as patched:
        patched.setattr(faults, "reach", die)
        with pytest.raises(FaultReached):
            filled.crash()
    filled._open()
    kept = messages(filled)
    assert len(kept) == len(expected) - 1
    assert all(expected[key] == raw for key, raw in kept.items())
    assert [row.state for row in DamageTable(filled.layout).rows] == [REPLACED]


def test_damage_in_the_last_flushed_record_does_not_reach_the_tail(filled: OpenStore) -> None:
    expected, records = messages(filled), places(filled)
    position, size = records[-1]
    overwrite(filled, position, bytes(size))
    filled.layout.checkpoint.unlink(missing_ok=True)
    filled.checkpointer.write()
    end = filled.crash().write_position
    assert end == position + size
    assert len(messages(filled)) == len(expected) - 1
    filled.send("Topic1", b"goes on")
    filled.flush()


def test_marked_damage_is_replaced_by_the_next_start_even_on_a_kept_page(filled: OpenStore) -> None:
    expected, records = messages(filled), places(filled)
    position, size = records[7]
    overwrite(filled, position + 100, b"?!" * 8)
    DamageTable(filled.layout).put([DamageRow(position, size, "a test says so", MARKED)])
    filled.flush()
    filled.crash(keep_page=True)
    (row,) = DamageTable(filled.layout).rows
    assert row.state == REPLACED and row.topic
    assert is_damaged(filled.store.log.view(position, size))
    kept = messages(filled)
    assert len(kept) == len(expected) - 1


def test_substitutes_are_records_of_every_size() -> None:
    for size in range(RECORD_BYTES_MIN, 400):
        made = plug(size, physical_offset=7, store_timestamp=9)
        assert check_record(made, 0, size) == len(made) == size and is_damaged(made)
    for topic in (b"T", b"x" * 200):
        low = 91 + len(topic) + (len(topic) > 127)
        place = {"queue_id": 3, "queue_offset": 4, "physical_offset": 5, "store_timestamp": 6}
        assert substitute(low - 1, topic=topic, **place) is None
        for size in range(low, low + 100):
            made = substitute(size, topic=topic, **place) or b""
            fields = parse_record(made)
            assert check_record(made, 0, size) == len(made) == size and is_damaged(made)
            assert (fields.queue_id, fields.queue_offset, fields.physical_offset) == (3, 4, 5)
            assert (DAMAGED.encode() in made) == (size >= low + 15)


def test_the_same_bytes_are_kept_once(filled: OpenStore) -> None:
    first = keep_aside(filled.layout, "x", b"bytes")
    assert keep_aside(filled.layout, "x", b"bytes") == first
    assert keep_aside(filled.layout, "x", b"others") != first
    assert Quarantine(filled.layout, "test").table.rows == []
