"""Damage that nobody knows of yet: readers notice it, the scrub mends it, nothing wrong is handed out."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from shmq.base.errors import Unavailable
from shmq.model.message_ext import MessageExt
from shmq.model.record import iter_records
from shmq.shm.page_layout import DOUBT, FLUSHED_POSITION
from shmq.shm.queue_table import QueueRef
from shmq.store.check import check_store
from shmq.store.damage_table import MARKED, MENDED, REPLACED, DamageTable
from shmq.store.doubts import FORGET_MS, WAIT_MS, Doubts, take_doubt
from shmq.store.read import ReadStatus
from shmq.store.scrub import Scrub
from tests.helpers.store import OpenStore, request, small_settings

Messages = dict[tuple[int, int], bytes]


def fill(store: OpenStore) -> list[tuple[int, int]]:
    """Some segments with three queues, flushed and summed; return position and size of every record."""
    places = []
    for n in range(150):
        body = random.Random(n).randbytes(1 + n * 9 % 1500)
        asked = request(store.queue("T", n % 3), [body], TAGS="AB"[n % 2], KEYS=f"k{n}")
        (outcome,) = store.append(asked)
        places.append((outcome.physical_offset, asked.sizes[0]))
    store.flush()
    return places


def scrub_of(store: OpenStore) -> Scrub:
    """A scrub that makes no passes: it looks only where it is asked to."""
    return Scrub(store.layout, store.page, small_settings(scrub_bytes_per_second=0), lambda name, n: None)


def messages(store: OpenStore, scrub: Scrub) -> Messages:
    """What a consumer is given that asks again when it is told to; every message at its own offset."""
    found: Messages = {}
    for queue in store.directory.queues("T"):
        offset = doubts = 0
        while True:
            result = store.store.read(queue, offset, 24, 1 << 20)
            if result.status is ReadStatus.IN_DOUBT:
                doubts += 1
                assert doubts < 20, "the scrub has looked"
                scrub.step()
                store.store.reader._doubts._open.clear()  # its pauses and its patience are another test's
                continue
            if result.status is not ReadStatus.FOUND and result.next_offset <= offset:
                break
            for view in result.views:
                for record in iter_records(view):
                    message = MessageExt(record)
                    found[queue.queue_id, message.queue_offset] = bytes(message.stored_body)
            offset = result.next_offset
    return found


def flip(path: Path, at: int, change: int) -> None:
    fd = os.open(path, os.O_RDWR)
    byte = os.pread(fd, 1, at)[0]
    os.pwrite(fd, bytes([byte ^ change]), at)
    os.close(fd)


@pytest.mark.parametrize(
    "count", [40, pytest.param(3000, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_a_changed_byte_of_a_record_or_a_unit_costs_no_consumer_anything(
    store: OpenStore, count: int
) -> None:
    places, scrub = fill(store), scrub_of(store)
    expected = messages(store, scrub)
    assert len(expected) == len(places) and not store.page.words[DOUBT]
    files = {path: path.read_bytes() for path in store.layout.commit_log.iterdir()}
    files |= {path: path.read_bytes() for path in store.layout.consume_queue.glob("*/*/*")}
    chance = random.Random(count)
    for n in range(count):
        if n % 2:
            position, size = chance.choice(places)
            path = store.layout.segment_path(store.layout.segment_start(position))
            at = position % store.layout.segment_bytes
            at += chance.randrange(size if chance.random() < 0.5 else min(size, 88))
        else:
            queue = chance.choice(store.directory.queues("T"))
            unit = 20 * chance.randrange(store.store.max(queue))
            start = unit - unit % store.layout.queue_file_bytes
            path = store.layout.queue_file_path("T", queue.queue_id, start)
            at = unit - start + chance.randrange(12)  # a tags code tells nobody where a message is
        change = chance.randrange(1, 256)
        flip(path, at, change)
        assert messages(store, scrub) == expected, (path, at, change)
        if path.read_bytes() != files[path]:
            assert path.parent == store.layout.commit_log, "of a unit every byte is looked at"
            flip(path, at, change)  # in a field that readers do not compare: the next pass of the scrub
    assert {path: path.read_bytes() for path in files} == files
    assert {row.state for row in DamageTable(store.layout).rows} == {MENDED}
    assert list(check_store(store.root, store.page)) == []


def test_what_cannot_be_mended_is_passed_over_and_the_others_are_not(store: OpenStore) -> None:
    places, scrub = fill(store), scrub_of(store)
    expected = messages(store, scrub)
    position, size = next(place for place in places[60:] if place[1] > 400)
    number = places.index((position, size))
    path = store.layout.segment_path(store.layout.segment_start(position))
    with path.open("r+b") as segment:
        segment.seek(position % store.layout.segment_bytes)
        segment.write(b"spoiled" * 20)
    lost = (number % 3, number // 3)
    assert messages(store, scrub) == {key: body for key, body in expected.items() if key != lost}
    (row,) = DamageTable(store.layout).rows
    assert (row.position, row.size, row.state) == (position, size, MARKED)
    assert (row.topic, row.queue_id, row.queue_offset) == ("T", *lost)
    store.crash(keep_page=True)
    assert list(check_store(store.root, store.page)) == []


def test_a_scrub_pass_mends_units_that_nobody_reads(store: OpenStore) -> None:
    fill(store)
    scrub = Scrub(store.layout, store.page, small_settings(), lambda name, n: None)
    for queue_id, byte in ((0, 3), (1, 10), (2, 15)):
        flip(store.layout.queue_file_path("T", queue_id, 0), 20 * (7 + queue_id) + byte, 0x41)
    assert list(check_store(store.root, store.page))
    while not scrub.progress.passes:
        scrub.step()
    assert list(check_store(store.root, store.page)) == []


def test_a_doubt_that_nobody_resolves_does_not_stop_a_queue(store: OpenStore) -> None:
    queue, now = QueueRef("T", 0, 77, 1), [1000]
    doubts = Doubts(store.page, store.bells, lambda: now[0])
    assert doubts.may_be_mended(queue, (1 << 40) + 5)
    assert take_doubt(store.page) == (77, (1 << 40) + 5) and take_doubt(store.page) is None
    assert doubts.may_be_mended(queue, (1 << 40) + 5) and take_doubt(store.page) is None, "not all the time"
    now[0] += WAIT_MS - 1
    assert doubts.may_be_mended(queue, (1 << 40) + 5) and take_doubt(store.page) is not None
    now[0] += 1
    assert not doubts.may_be_mended(queue, (1 << 40) + 5)
    now[0] += FORGET_MS
    assert doubts.may_be_mended(queue, (1 << 40) + 5), "perhaps it was mended meanwhile, and this is new"


def test_the_last_message_is_read_though_its_unit_leads_nowhere(store: OpenStore) -> None:
    fill(store)
    scrub = scrub_of(store)
    expected = messages(store, scrub)
    (queue, *_) = store.directory.queues("T")
    last = store.store.max(queue) - 1
    start = last * 20 - last * 20 % store.layout.queue_file_bytes
    flip(store.layout.queue_file_path("T", 0, start), last * 20 - start, 0x10)
    assert store.store.max(queue) == last + 1
    assert messages(store, scrub) == expected
    assert store.page.words[FLUSHED_POSITION]


HEAD = {
    "size": (0, 4),
    "queue id": (12, 4),
    "queue offset": (20, 8),
    "physical offset": (28, 8),
    "body": (90, 3),
}
"""Where in a record of `fill` these fields are."""


@pytest.mark.parametrize("field", HEAD)
@pytest.mark.parametrize("flushed_later", [False, True])
def test_what_is_damaged_before_it_is_flushed_is_never_given_out(
    store: OpenStore, field: str, flushed_later: bool
) -> None:
    """No sum tells what it was, and once it is flushed the sum is that of the damage."""
    expected = messages(store, scrub_of(store)) if fill(store) else {}
    sent = [request(store.queue("T", n % 3), [b"%d" % n * 300], TAGS="A") for n in range(30)]
    outcomes = store.append(*sent)
    wrong = outcomes[13]
    at, length = HEAD[field]
    path = store.layout.segment_path(store.layout.segment_start(wrong.physical_offset))
    flip(path, wrong.physical_offset % store.layout.segment_bytes + at + length - 1, 0x01)
    if flushed_later:
        store.flush()
    scrub = scrub_of(store)
    expected = {**messages_sent(store), **expected}
    lost = (13 % 3, wrong.queue_offset)
    assert messages(store, scrub) == {key: body for key, body in expected.items() if key != lost}
    (row,) = DamageTable(store.layout).rows
    assert (row.position, row.state) == (wrong.physical_offset, MARKED)
    assert (row.topic, row.queue_id, row.queue_offset) == ("T", *lost)
    store.flush()
    store.crash(keep_page=True)
    assert [row.state for row in DamageTable(store.layout).rows] == [REPLACED]
    assert messages(store, scrub_of(store)) == {key: b for key, b in expected.items() if key != lost}


def messages_sent(store: OpenStore) -> Messages:
    """The 30 messages behind those of `fill`, by where they went."""
    return {(n % 3, 50 + n // 3): b"%d" % n * 300 for n in range(30)}


def test_whoever_makes_another_record_of_a_message_is_never_given_a_damaged_one(store: OpenStore) -> None:
    """Also when nobody mends it, and the wait for that is over."""
    fill(store)
    queue, now = store.queue("T", 1), [1000]
    place = store.store.queues.unit(queue, 7).physical_offset
    flip(store.layout.segment_path(0), place + 27, 0x02)
    store.store._doubts._now_ms = lambda: now[0]
    with pytest.raises(Unavailable, match="looked at"):
        store.store.message_at(queue, 7, place)
    now[0] += WAIT_MS
    assert store.store.message_at(queue, 7, place) is None
    flip(store.layout.segment_path(0), place + 27, 0x02)
    assert store.store.message_at(queue, 7, place) is not None
