"""What an append leaves in the files, byte for byte (RocketMQ's layouts)."""

from __future__ import annotations

import os
import resource
import struct
from pathlib import Path

import pytest

from shmq.base.errors import MessageIllegal, QueueGone, ServiceNotAvailable
from shmq.model.host import pack_host
from shmq.model.record import encode_record
from shmq.model.subscription import java_hash
from shmq.shm.control_page import PageState
from shmq.shm.page_layout import (
    APPEND_RINGS,
    LAST_STORE_TIME,
    SEGMENT_ERROR,
    SEGMENT_RINGS,
    WRITE_POSITION,
    ZEROED_POSITION,
)
from shmq.shm.queue_table import QueueTable, ring_block
from shmq.shm.rings import park
from shmq.store import consume_queues
from shmq.store.append_request import AppendRequest
from shmq.store.check import check_store
from tests.helpers.store import OpenStore, request, small_settings

# One record as Apache RocketMQ 5.3 stores it: topic T, body Hello, KEYS=k1, TAGS=TagA, queue 3, queue offset
# 7, physical offset 1024, born 1700000000000 at 10.0.0.1:50000, stored 1700000000123 at 10.0.0.2:10911.
SAMPLE = bytes.fromhex(
    "00000073 DAA320A7 77D18982 00000003 00000000 0000000000000007 0000000000000400 00000000"
    "0000018BCFE56800 0A000001 0000C350 0000018BCFE5687B 0A000002 00002A9F 00000000 0000000000000000"
    "00000005 48656C6C6F 01 54 0012 4B455953016B3102 54414753015461674102"
)


def test_a_stamped_record_and_its_unit_are_rocketmqs_bytes(store: OpenStore) -> None:
    queue = store.make_topic("T", 4)[3]
    record = encode_record(
        topic=b"T",
        body=b"Hello",
        properties=b"KEYS\x01k1\x02TAGS\x01TagA\x02",
        queue_id=3,
        born_timestamp=1_700_000_000_000,
        born_host=pack_host("10.0.0.1", 50000),
        store_host=pack_host("10.0.0.2", 10911),
    )
    unit = AppendRequest(queue, record, [len(record)], [java_hash("TagA")]).stamp(7, 1024, 1_700_000_000_123)
    assert bytes(record) == SAMPLE
    assert unit.hex().upper() == "0000000000000400" + "00000073" + "000000000027A807"


def test_log_and_queue_files_hold_what_was_appended(store: OpenStore) -> None:
    outcome = store.send("Topic", b"Hello", 2, TAGS="TagA")
    again = store.send("Topic", b"World", 2)
    log = (store.root / "commitlog" / "00000000000000000000").read_bytes()
    assert len(log) == store.settings.mapped_file_size_commit_log
    size = outcome.end
    assert struct.unpack_from(">ii", log, 0) == (size, -626843481)
    assert struct.unpack_from(">qq", log, 20) == (0, 0)
    assert struct.unpack_from(">q", log, 56) == (outcome.store_time,)
    assert again.physical_offset == size
    units = (store.root / "consumequeue" / "Topic" / "2" / "00000000000000000000").read_bytes()
    assert len(units) == store.settings.mapped_file_size_consume_queue
    assert units[:20] == struct.pack(">qiq", 0, size, 2598919)
    assert units[20:40] == struct.pack(">qiq", size, again.end - size, 0)
    assert units[40:] == bytes(len(units) - 40)


def test_a_segment_ends_with_a_blank_that_covers_the_rest(store: OpenStore) -> None:
    segment = store.settings.mapped_file_size_commit_log
    queue = store.queue("T")
    size = len(request(queue, [b"x" * 1000]).data)
    while store.page.words[WRITE_POSITION] < segment:
        last = store.append(request(queue, [b"x" * 1000]))[0]
    assert last.physical_offset == segment
    rest = segment % size if segment % size >= 8 else segment % size + size
    log = (store.root / "commitlog" / "00000000000000000000").read_bytes()
    assert struct.unpack_from(">ii", log, segment - rest) == (rest, -875286124)
    assert log[segment - rest + 8 :] == bytes(rest - 8)
    assert (store.root / "commitlog" / f"{segment:020d}").stat().st_size == segment


@pytest.mark.parametrize("spare", [0, 7, 8, 9])
def test_a_record_leaves_at_least_eight_bytes_behind_it(store: OpenStore, spare: int) -> None:
    segment = store.settings.mapped_file_size_commit_log
    queue = store.queue("T")
    overhead = len(request(queue, [b""]).data)
    first = store.append(request(queue, [b"a" * 30_000]))[0]
    body = segment - first.end - overhead - spare
    second = store.append(request(queue, [b"b" * body]))[0]
    assert second.physical_offset == (first.end if spare >= 8 else segment)


def test_a_batch_lies_whole_in_one_segment(store: OpenStore) -> None:
    queue = store.queue("T")
    outcomes = [store.append(request(queue, [b"m" * 300] * 40))[0] for _ in range(20)]
    segment = store.settings.mapped_file_size_commit_log
    for outcome in outcomes:
        assert outcome.physical_offset // segment == (outcome.end - 1) // segment
    assert [o.queue_offset for o in outcomes] == list(range(0, 800, 40))


def test_units_go_on_in_the_next_file(store: OpenStore) -> None:
    queue = store.queue("T")
    store.append(*[request(queue, [b"%d" % n] * 50) for n in range(4)])
    folder = store.root / "consumequeue" / "T" / "0"
    assert sorted(p.name for p in folder.iterdir()) == [f"{n * 1280:020d}" for n in range(4)]
    assert store.store.read(queue, 60, 200, 1 << 20).next_offset == 64
    assert store.store.max(queue) == 200


def test_one_call_serves_many_queues_in_order(store: OpenStore) -> None:
    queues = store.make_topic("T", 50)
    requests = [request(queues[n % 50], [b"%d" % n]) for n in range(500)]
    outcomes = store.append(*requests)
    assert [o.queue_offset for o in outcomes] == [n // 50 for n in range(500)]
    assert [o.physical_offset for o in outcomes[1:]] == [o.end for o in outcomes[:-1]]


def test_more_queues_than_journal_entries_take_several_claims(tmp_path: Path) -> None:
    with OpenStore(
        tmp_path / "s", small_settings(queue_slots=4096, mapped_file_size_commit_log=1 << 20)
    ) as store:
        queues = store.make_topic("T", 1500)
        outcomes = store.append(*[request(queue, [b"x"]) for queue in queues])
        assert all(o.error is None and o.queue_offset == 0 for o in outcomes)
        assert list(check_store(store.root, store.page)) == []


def test_store_time_never_goes_back(store: OpenStore) -> None:
    store.page.words[LAST_STORE_TIME] = 9_000_000_000_000
    assert store.send("T").store_time == 9_000_000_000_000
    assert store.send("T").store_time == 9_000_000_000_000


def test_a_send_to_a_deleted_queue_fails_alone(store: OpenStore) -> None:
    gone, kept = store.make_topic("T", 2)
    stale = gone._replace(generation=gone.generation - 2)
    outcomes = store.store.append([request(stale, [b"x"]), request(kept, [b"y"])])
    assert isinstance(outcomes[0].error, QueueGone)
    assert outcomes[1].error is None and outcomes[1].physical_offset == 0


def test_a_queue_that_is_deleted_between_check_and_lock_fails_alone(store: OpenStore, monkeypatch) -> None:
    gone, kept = store.make_topic("T", 2)
    stale = gone._replace(generation=gone.generation - 2)
    monkeypatch.setattr(QueueTable, "alive", lambda self, queue: True)
    outcomes = store.store.append([request(kept, [b"y"]), request(stale, [b"x"]), request(kept, [b"z"])])
    assert isinstance(outcomes[1].error, QueueGone)
    assert [o.queue_offset for o in (outcomes[0], outcomes[2])] == [0, 1]


def test_what_can_never_fit_a_segment_is_refused(store: OpenStore) -> None:
    outcome = store.store.append([request(store.queue("T"), [b"x" * (64 << 10)])])[0]
    assert isinstance(outcome.error, MessageIllegal)
    assert "mappedFileSizeCommitLog" in str(outcome.error)


def test_without_a_segment_the_rest_waits_for_the_bell(store: OpenStore) -> None:
    queue = store.queue("T")
    requests = [request(queue, [b"x" * 20_000]) for _ in range(5)]
    outcomes = store.store.append(requests)
    assert [o is None for o in outcomes] == [False] * 3 + [True] * 2
    assert store.page.words[WRITE_POSITION] == store.settings.mapped_file_size_commit_log
    assert store.page.raw[SEGMENT_RINGS * 8 + 2] == 1
    assert store.bells[0].wait(0), "the allocator is told"
    store.bells[2].clear()
    assert store.allocator.step() == 0
    assert store.bells[2].wait(0)
    outcomes = store.store.append(requests[3:])
    assert [o.queue_offset for o in outcomes] == [3, 4]
    assert store.page.raw[SEGMENT_RINGS * 8 + 2] == 0


def test_a_claim_ends_at_the_zeroed_position(store: OpenStore) -> None:
    store.page.words[ZEROED_POSITION] = 50_000
    queue = store.queue("T")
    outcomes = store.store.append([request(queue, [b"x" * 20_000]) for _ in range(3)])
    assert [o is None for o in outcomes] == [False, False, True]
    store.page.words[ZEROED_POSITION] = 64 << 10


def test_a_disk_that_gives_no_segment_is_an_error_and_not_a_wait(store: OpenStore) -> None:
    queue = store.queue("T")
    store.page.words[SEGMENT_ERROR] = 28
    outcomes = store.store.append([request(queue, [b"x" * 20_000]) for _ in range(5)])
    assert isinstance(outcomes[4].error, ServiceNotAvailable)
    assert "No space left" in str(outcomes[4].error)
    store.page.words[SEGMENT_ERROR] = 0


def test_a_file_that_cannot_be_mapped_fails_only_its_sends(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = store.make_topic("T", 2)
    store.append(request(first, [b"x"]))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(store.store.queues, "map_ahead", refuse)
    outcomes = store.store.append([request(first, [b"y"]), request(second, [b"z"])])
    monkeypatch.undo()
    assert outcomes[0].error is None
    assert isinstance(outcomes[1].error, ServiceNotAvailable)
    assert "Too many open files" in str(outcomes[1].error)


def test_a_process_with_few_maps_appends_to_many_queues_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consume_queues, "maps_max", lambda most, share: 2)
    with OpenStore(tmp_path / "s") as store:
        queues = store.make_topic("T", 20)
        outcomes = store.append(*[request(queues[n % 20], [b"%d" % n] * 40) for n in range(200)])
        assert [o.queue_offset for o in outcomes] == [n // 20 * 40 for n in range(200)]
        many = store.append(request(queues[0], [b"x"] * 300))[0]
        assert (many.error, many.queue_offset) == (None, 400), "it needs five files at once"
        for queue in queues:
            assert store.store.read(queue, 64, 32, 1 << 20).next_offset == 96
        maps = store.store.queues._files
        assert len(maps) <= 2
        assert list(check_store(store.root, store.page)) == []


def test_a_process_without_descriptors_lets_go_of_maps_and_takes_the_next_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consume_queues, "maps_max", lambda most, share: most)
    with OpenStore(tmp_path / "s") as store:
        queues = store.make_topic("T", 100)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        fillers = [os.open("/dev/null", os.O_RDONLY)]  # of the numbers that are free below
        while fillers[-1] < highest:
            fillers.append(os.open("/dev/null", os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 30, hard))
        refused = 0
        try:
            for queue in queues:
                (outcome,) = store.store.append([request(queue, [b"x"])])
                if outcome.error is not None:
                    refused += 1
                    assert isinstance(outcome.error, ServiceNotAvailable)
                    assert "Too many open files" in str(outcome.error)
                    (outcome,) = store.store.append([request(queue, [b"x"])])
                assert (outcome.error, outcome.queue_offset) == (None, 0), "and then it goes on"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for filler in fillers:
                os.close(filler)
        assert 0 < refused < 10
        assert list(check_store(store.root, store.page)) == []


def test_a_failed_flush_ends_appending(store: OpenStore) -> None:
    store.page.state = PageState.FLUSH_FAILED
    outcome = store.store.append([request(store.queue("T"), [b"x"])])[0]
    assert isinstance(outcome.error, ServiceNotAvailable)
    store.page.state = PageState.OK


def test_parked_slots_are_rung(store: OpenStore) -> None:
    queue, other = store.make_topic("T", 2)
    park(store.page, ring_block(queue.slot), 5)
    park(store.page, ring_block(other.slot), 6)
    park(store.page, APPEND_RINGS, 0)
    store.send("T")
    assert [store.bells[slot].wait(0) for slot in (0, 5, 6)] == [True, True, False]


def test_ten_thousand_queues_cost_little_disk(tmp_path: Path) -> None:
    settings = small_settings(
        queue_slots=4096, mapped_file_size_commit_log=4 << 20, mapped_file_size_consume_queue=6_000_000
    )
    with OpenStore(tmp_path / "s", settings) as store:
        queues = store.make_topic("T", 1000)
        store.append(*[request(queue, [b"x"] * 10) for queue in queues])
        blocks = sum(p.stat().st_blocks for p in (store.root / "consumequeue").rglob("0*") if p.is_file())
        assert blocks * 512 <= 1000 * 4096
        assert len(store.store.queues._files) <= 2048
