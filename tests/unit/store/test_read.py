"""Reading queues: statuses, filters, limits, the visible position, times."""

from __future__ import annotations

import random

import pytest

from shmq.model.message_ext import MessageExt
from shmq.model.record import iter_records, parse_record
from shmq.model.subscription import java_hash
from shmq.shm.page_layout import FLUSHED_POSITION, LAST_STORE_TIME, MIN_OFFSET, VISIBLE_WORD
from shmq.store.queue_times import Boundary
from shmq.store.read import ReadResult, ReadStatus, _select_few, _select_many
from tests.helpers.store import OpenStore, request

LARGE = 1 << 20


def bodies(result: ReadResult) -> list[bytes]:
    """Bodies of everything in a result, decoded by the client's view of a record."""
    return [bytes(MessageExt(record).body) for view in result.views for record in iter_records(view)]


def test_statuses_outside_the_queue(store: OpenStore) -> None:
    queue, empty = store.make_topic("T", 2)
    for n in range(10):
        store.send("T", b"%d" % n)
    store.store.table.set_min(queue.slot, 4)
    read = store.store.read
    assert (read(empty, 0, 8, LARGE).status, read(empty, 5, 8, LARGE).next_offset) == (
        ReadStatus.NO_MESSAGE_IN_QUEUE,
        0,
    )
    small = read(queue, 2, 8, LARGE)
    assert (small.status, small.next_offset, small.min_offset) == (ReadStatus.OFFSET_TOO_SMALL, 4, 4)
    one = read(queue, 10, 8, LARGE)
    assert (one.status, one.next_offset) == (ReadStatus.OFFSET_OVERFLOW_ONE, 10)
    badly = read(queue, 99, 8, LARGE)
    assert (badly.status, badly.next_offset) == (ReadStatus.OFFSET_OVERFLOW_BADLY, 10)
    gone = queue._replace(generation=queue.generation + 2)
    assert read(gone, 5, 8, LARGE).status is ReadStatus.NO_MATCHED_LOGIC_QUEUE
    store.store.table.set_min(queue.slot, 0)


@pytest.mark.parametrize("count", [3, 40, 150])
def test_neighbours_in_the_log_come_as_one_view(store: OpenStore, count: int) -> None:
    queue = store.queue("T")
    store.append(request(queue, [b"m%d" % n for n in range(200)]))
    result = store.store.read(queue, 5, count, LARGE)
    taken = min(count, 59)  # the first ConsumeQueue file ends at unit 64
    assert (result.count, len(result.views), result.next_offset) == (taken, 1, 5 + taken)
    assert bodies(result) == [b"m%d" % n for n in range(5, 5 + taken)]
    assert result.size == sum(map(len, result.views))


@pytest.mark.parametrize("many", [False, True])
def test_at_least_one_message_then_up_to_the_size(store: OpenStore, many: bool) -> None:
    queue = store.queue("T")
    for _ in range(60 if many else 10):
        store.append(request(queue, [b"x" * 400]))
    size = len(request(queue, [b"x" * 400]).data)
    ask = 60 if many else 10
    assert store.store.read(queue, 0, ask, 1).count == 1
    assert store.store.read(queue, 0, ask, 3 * size).count == 3
    assert store.store.read(queue, 0, ask, 4 * size - 1).count == 3


@pytest.mark.parametrize("messages", [40, 64])
def test_the_tag_filter_counts_what_it_passed(store: OpenStore, messages: int) -> None:
    queue = store.queue("T")
    for n in range(messages):
        store.send("T", b"%d" % n, TAGS="AB"[n % 2])
    only_b = frozenset([java_hash("B")])
    first = store.store.read(queue, 0, 5, LARGE, only_b)
    assert bodies(first) == [b"1", b"3", b"5", b"7", b"9"]
    assert first.next_offset == 10
    nothing = store.store.read(queue, 0, 5, LARGE, frozenset([java_hash("C")]))
    assert (nothing.status, nothing.next_offset) == (ReadStatus.NO_MATCHED_MESSAGE, messages)
    last = store.store.read(queue, messages - 1, 5, LARGE, frozenset([java_hash("A")]))
    assert (last.status, last.next_offset) == (ReadStatus.NO_MATCHED_MESSAGE, messages)


def test_an_exact_filter_sees_the_record(store: OpenStore) -> None:
    queue = store.queue("T")
    store.append(request(queue, [b"%d" % n for n in range(20)]))
    result = store.store.read(queue, 0, 20, LARGE, None, lambda r: bytes(MessageExt(r).body) in (b"3", b"17"))
    assert bodies(result) == [b"3", b"17"]
    assert result.next_offset == 20


def test_a_slow_filter_ends_the_read_early_and_the_next_one_goes_on(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = store.queue("T")
    store.append(request(queue, [b"%d" % n for n in range(20)]))
    monkeypatch.setattr("shmq.store.read.JUDGING_S", -1.0)
    found: list[bytes] = []
    offsets = [0]

    def ends_in_7(record: memoryview) -> bool:
        return bytes(MessageExt(record).body).endswith(b"7")

    while offsets[-1] < 20:
        result = store.store.read(
            queue, offsets[-1], 20, LARGE, None, lambda r: MessageExt(r).body[-1:] == b"7"
        )
        found += bodies(result)
        offsets.append(result.next_offset)
    assert found == [b"7", b"17"]
    assert offsets == [0, 8, 16, 20]


def test_the_body_of_what_a_filter_refuses_is_not_touched(store: OpenStore) -> None:
    queue = store.queue("T")
    sent = [store.send("T", b"body%d" % n) for n in range(3)]
    record = store.store.record_at(sent[1].physical_offset)
    assert record is not None
    fields = parse_record(record)
    place, segment = sent[1].physical_offset + fields.body_at, store.layout.commit_log / "0".zfill(20)

    def put(byte: bytes) -> None:
        with segment.open("r+b") as file:
            file.seek(place)
            file.write(byte)

    put(b"X")
    seen: list[int] = []

    def exact(record: memoryview) -> bool:
        seen.append(parse_record(record).queue_offset)
        return seen[-1] != 1

    result = store.store.read(queue, 0, 3, LARGE, None, exact)
    assert bodies(result) == [b"body0", b"body2"] and seen == [0, 1, 2]
    doubted = store.store.read(queue, 1, 1, LARGE, None, lambda _: True)
    assert doubted.status is ReadStatus.IN_DOUBT
    put(b"b")


def test_nothing_beyond_the_visible_position_is_read_or_counted(store: OpenStore) -> None:
    queue = store.queue("T")
    ends = [store.send("T", b"%d" % n).end for n in range(30)]
    store.page.words[VISIBLE_WORD] = FLUSHED_POSITION
    for n in (0, 1, 17, 30):
        store.page.words[FLUSHED_POSITION] = ends[n - 1] if n else 0
        assert store.store.max(queue) == n
        assert store.store.read(queue, 0, 100, LARGE).count == n
        half = max(0, ends[n - 1] - 1) if n else 0
        store.page.words[FLUSHED_POSITION] = half
        assert store.store.max(queue) == max(0, n - 1)
    assert store.store.record_at(ends[28]) is None
    store.page.words[FLUSHED_POSITION] = ends[29]
    assert bytes(store.store.record_at(ends[28])) == bytes(store.store.read(queue, 29, 1, LARGE).views[0])


def test_record_at_answers_only_for_a_records_first_byte(store: OpenStore) -> None:
    ends = [store.send("T", bytes(range(256))).end for _ in range(50)]
    starts = {0, *ends[:-1]}
    found = {at for at in range(-5, ends[-1] + 500) if store.store.record_at(at) is not None}
    assert found == starts
    store.page.words[MIN_OFFSET] = ends[3]
    assert store.store.record_at(0) is None
    store.page.words[MIN_OFFSET] = 0


def test_messages_of_a_missing_segment_are_passed_over_and_no_others(store: OpenStore) -> None:
    queue = store.queue("T")
    for _ in range(8):
        store.append(request(queue, [b"x" * 20_000]))
    store.store.close()
    (store.root / "commitlog" / f"{0:020d}").rename(store.root / "aside")
    result = store.store.read(queue, 0, 8, 1 << 20)
    assert (result.status, result.count, result.next_offset) == (ReadStatus.FOUND, 5, 8)
    (store.root / "aside").rename(store.root / "commitlog" / f"{0:020d}")


def test_offset_by_time_is_exact_at_edges_and_equal_times(store: OpenStore) -> None:
    queue = store.queue("T")
    times = [5_000_000_000_000 + t for t in (0, 10, 10, 10, 30, 30, 45)]
    for t in times:
        store.page.words[LAST_STORE_TIME] = t
        store.send("T")
    base = times[0]
    by_time = store.store.offset_by_time
    lower = [by_time(queue, base + t, Boundary.LOWER) for t in (-1, 0, 1, 10, 11, 30, 44, 45, 46)]
    upper = [by_time(queue, base + t, Boundary.UPPER) for t in (-1, 0, 1, 10, 11, 30, 44, 45, 46)]
    assert lower == [0, 0, 1, 1, 4, 4, 6, 6, 7]
    assert upper == [0, 0, 0, 3, 3, 5, 5, 6, 6]
    assert store.store.store_time_at(queue, 4) == base + 30
    assert store.store.store_time_at(queue, 7) is None


def test_few_and_many_units_select_alike(store: OpenStore) -> None:
    rng = random.Random(7)
    queue, other = store.make_topic("T", 2)
    for n in range(400):
        store.append(
            request(rng.choice([queue, other]), [b"%d" % n * rng.randint(1, 30)], TAGS=rng.choice("AB"))
        )
    units = store.store.queues.units(queue, 0, 64)
    for _ in range(300):
        count, size = rng.randint(1, 70), rng.randint(1, 20_000)
        tags = rng.choice([None, frozenset([java_hash("A")]), frozenset([java_hash("B"), 5])])
        few, few_taken, few_scanned = _select_few(units, count, size, tags)
        many, many_taken, many_scanned = _select_many(units, count, size, tags)
        assert (few, few_taken, few_scanned) == (many, many_taken.tolist(), many_scanned)
