"""The scrub of a running broker: it goes through the log, mends one byte, marks the rest, and goes on."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from shmq.base.clock import SYSTEM_CLOCK
from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.unit import UNIT_BYTES
from shmq.shm.page_layout import FLUSHED_POSITION
from shmq.shm.queue_table import QueueTable
from shmq.store.check import check_store
from shmq.store.damage_table import MARKED, MENDED, REPLACED, DamageTable
from shmq.store.read import ReadStatus
from shmq.store.scrub import IDLE_MS, PAUSE_MS_MIN, Scrub
from shmq.store.scrub_progress import ScrubProgress, damage_facts
from shmq.store.unit_check import UnitCheck
from tests.helpers.store import OpenStore, request, small_settings


class Clock:
    """The wall clock, as far as the test lets it go."""

    def __init__(self) -> None:
        self.ms = SYSTEM_CLOCK.now_ms()

    def now_ms(self) -> int:
        return self.ms

    monotonic_ms = now_ms


def scrub_of(store: OpenStore, **changes: object) -> tuple[Scrub, Counter[str], Clock]:
    counts: Counter[str] = Counter()
    clock = Clock()
    settings = small_settings(**changes)
    scrub = Scrub(store.layout, store.page, settings, lambda name, n: counts.update({name: n}), clock)
    return scrub, counts, clock


def fill(store: OpenStore) -> list[tuple[int, int]]:
    """Fill some segments; return position and size of every record."""
    places = []
    for n in range(150):
        body = random.Random(n).randbytes(n * 9 % 2000)
        asked = request(store.queue("T", n % 2), [body], TAGS="A", KEYS=f"k{n}")
        (outcome,) = store.append(asked)
        places.append((outcome.physical_offset, asked.sizes[0]))
    store.flush()
    return places


def one_pass(scrub: Scrub) -> int:
    """Go on until a pass is over; return the steps it took."""
    before = scrub.progress.passes
    for n in range(1000):
        scrub.step()
        if scrub.progress.passes > before:
            return n
    raise AssertionError("the pass has no end")


def overwrite(store: OpenStore, position: int, data: bytes) -> None:
    start = store.layout.segment_start(position)
    fd = os.open(store.layout.segment_path(start), os.O_RDWR)
    os.pwrite(fd, data, position - start)
    os.close(fd)


def test_a_pass_looks_at_every_byte_once_and_the_next_one_waits(store: OpenStore) -> None:
    fill(store)
    scrub, counts, clock = scrub_of(store, scrub_pass_interval=1000, scrub_bytes_per_second=10_000)
    assert one_pass(scrub) >= 2
    assert counts == {"scrub_bytes": store.page.words[FLUSHED_POSITION]}
    clock.ms += 999
    assert scrub.step() == 1000 and scrub.progress.passes == 1
    assert counts == {"scrub_bytes": store.page.words[FLUSHED_POSITION]}
    clock.ms += 2
    assert one_pass(scrub) >= 2
    assert ScrubProgress.load(store.layout) == scrub.progress
    assert damage_facts(store.layout)["scrubPasses"] == 2


def test_the_pause_keeps_the_rate_and_zero_means_never(store: OpenStore) -> None:
    fill(store)
    scrub, counts, _ = scrub_of(store, scrub_bytes_per_second=10_000)
    assert scrub.step() == counts["scrub_bytes"] // 10 > PAUSE_MS_MIN
    off, counts, _ = scrub_of(store, scrub_bytes_per_second=0)
    assert off.step() == IDLE_MS and not counts


def test_it_goes_on_where_the_one_before_it_died(store: OpenStore) -> None:
    fill(store)
    scrub, _, _ = scrub_of(store, scrub_bytes_per_second=10_000)
    scrub.step()
    scrub._note()
    after, counts, _ = scrub_of(store)
    assert after.progress.position == scrub.progress.position > 0
    one_pass(after)
    assert counts["scrub_bytes"] == store.page.words[FLUSHED_POSITION] - scrub.progress.position


def test_one_changed_byte_is_put_back_while_the_broker_runs(store: OpenStore) -> None:
    places = fill(store)
    chance = random.Random(5)
    before = [path.read_bytes() for path in sorted(store.layout.commit_log.iterdir())]
    hit = [places[n] for n in range(9, 145, 18)]  # far enough apart: each in a page of its own
    for position, size in hit:
        at = position + chance.randrange(size)
        overwrite(store, at, bytes([store.store.log.view(at, 1)[0] ^ chance.randrange(1, 256)]))
    scrub, counts, _ = scrub_of(store)
    one_pass(scrub)
    assert [path.read_bytes() for path in sorted(store.layout.commit_log.iterdir())] == before
    rows = DamageTable(store.layout).rows
    assert sorted((row.position, row.size) for row in rows) == sorted(hit)
    assert {row.state for row in rows} == {MENDED}
    assert counts["scrub_damage"] == scrub.progress.found == 8


def test_changed_units_of_many_queues_are_put_back(store: OpenStore) -> None:
    chance = random.Random(9)
    queues = store.make_topic("T", 30)
    for n in range(40):  # some queues have one file, some three
        store.append(*[request(queue, [b"%d" % n] * (queue.queue_id % 5 + 1), TAGS="A") for queue in queues])
    store.flush()
    files = sorted(path for path in store.layout.consume_queue.rglob("0*") if path.is_file())
    before = [path.read_bytes() for path in files]
    changed = 0
    for path, data in zip(files, before, strict=True):
        written = len(data.rstrip(b"\0")) // UNIT_BYTES
        for number in chance.sample(range(written), min(written, 4)):
            place = number * UNIT_BYTES + chance.randrange(UNIT_BYTES)
            with path.open("r+b") as file:
                file.seek(place)
                file.write(bytes([data[place] ^ chance.randrange(1, 256)]))
            changed += 1
    scrub, counts, _ = scrub_of(store)
    one_pass(scrub)
    assert [path.read_bytes() for path in files] == before
    assert counts["units_mended"] == changed > 150


def test_units_of_a_topic_that_was_deleted_meanwhile_are_left_alone(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    path = store.layout.queue_file_path("T", 0, 0)
    sound = path.read_bytes()
    changed = b"\x7f" * UNIT_BYTES + sound[UNIT_BYTES:]
    path.write_bytes(changed)
    looked_up = UnitCheck._stored

    def deleted_behind_the_look(check: UnitCheck, queues: object, numbers: object) -> object:
        found = looked_up(check, queues, numbers)  # type: ignore[arg-type]
        monkeypatch.setattr(QueueTable, "alive", lambda table, queue: False)
        return found

    monkeypatch.setattr(UnitCheck, "_stored", deleted_behind_the_look)
    scrub, counts, _ = scrub_of(store)
    one_pass(scrub)
    monkeypatch.undo()
    assert path.read_bytes() == changed and not counts["units_mended"]
    path.write_bytes(sound)


def test_more_damage_is_passed_over_from_then_on_and_replaced_by_the_next_start(store: OpenStore) -> None:
    places = fill(store)
    position, size = places[70]
    overwrite(store, position + 30, b"damaged" * 6)
    scrub, counts, clock = scrub_of(store, scrub_pass_interval=0)
    one_pass(scrub)
    (row,) = DamageTable(store.layout).rows
    assert (row.position, row.size, row.state) == (position, size, MARKED)
    assert (row.topic, row.queue_id, row.queue_offset) == ("T", 0, 35)
    unit = store.store.queues.unit(store.queue("T", 0), 35)
    assert unit.tags_code == DAMAGED_TAGS_CODE and unit.physical_offset == position
    one = store.store.read(store.queue("T", 0), 35, 2, 1 << 20)
    assert one.status is ReadStatus.FOUND and bytes(one.views[0]).find(b"k72") > 0, "the one behind it"
    clock.ms += 1
    one_pass(scrub)
    assert counts["scrub_damage"] == 1, "it is told once"
    assert damage_facts(store.layout)["damageMarked"] == 1
    store.crash(keep_page=True)
    assert [row.state for row in DamageTable(store.layout).rows] == [REPLACED]
    reads = [store.store.read(store.queue("T", n), at, 64, 1 << 20) for n in (0, 1) for at in (0, 64)]
    assert sum(read.count for read in reads) == len(places) - 1
    assert list(check_store(store.root, store.page)) == []


def test_a_log_of_another_engine_is_scrubbed_by_its_body_sums(store: OpenStore) -> None:
    places = fill(store)
    for path in store.layout.checksums.iterdir():
        if len(path.name) == 20:
            path.unlink()
    position, size = next(place for place in places[20:] if place[1] > 300)
    overwrite(store, position + 150, b"\xff")
    scrub, counts, _ = scrub_of(store)
    one_pass(scrub)
    assert counts["scrub_damage"] == 1
    (row,) = DamageTable(store.layout).rows
    assert (row.position, row.size, row.state) == (position, size, MARKED)
    store.crash()


def test_the_second_pass_finds_what_happened_behind_the_first(store: OpenStore) -> None:
    for n in range(100):
        store.send("T", b"%d" % n * 50)
    store.flush()
    assert store.page.words[FLUSHED_POSITION] < store.layout.segment_bytes, "one segment"
    scrub, counts, clock = scrub_of(store, scrub_pass_interval=0)
    one_pass(scrub)
    overwrite(store, 40, b"?")
    clock.ms += 1
    one_pass(scrub)
    assert counts["scrub_damage"] == 1
    assert [row.state for row in DamageTable(store.layout).rows] == [MENDED]
