"""The open transactions over a real store: what a start finds in it, also after a power cut."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base.errors import ClientFault, IllegalOperation, TopicNotExist, Unavailable
from shmq.broker.half_message import half_of
from shmq.model.names import (
    TRANSACTION_CHECK_MAX_TOPIC,
    TRANSACTION_GROUP,
    TRANSACTION_HALF_TOPIC,
    TRANSACTION_OP_HALF_TOPIC,
)
from shmq.model.record import BODY_AT, encode_record
from shmq.model.sys_flag import TRANSACTION_COMMIT
from shmq.protocol import fastjson
from shmq.protocol.bodies.batch import BatchElement, encode_batch_elements
from shmq.shm.page_layout import FLUSHED_POSITION, WRITE_POSITION
from shmq.store.append_request import AppendRequest
from shmq.store.check import check_store
from shmq.store.damage_table import MARKED, MENDED, REPLACED, DamageTable
from shmq.store.scrub import Scrub
from tests.helpers.store import OpenStore, request, small_settings
from tests.helpers.transaction_world import COMMIT, ROLLBACK, TransactionWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TransactionWorld]:
    with OpenStore(tmp_path / "store") as opened:
        yield TransactionWorld(opened)
        assert list(check_store(opened.root, opened.page)) == []


def test_a_new_coordinator_knows_what_has_ended(world: TransactionWorld) -> None:
    halves = [world.half(b"%d" % n) for n in range(6)]
    for n in (0, 1, 3):
        world.end(halves[n], ROLLBACK if n == 1 else COMMIT)
    for _ in range(2):
        assert world.transactions.open_count == 3
        for n in (0, 1, 3):
            with pytest.raises(ClientFault, match="ended already"):
                world.end(halves[n])
        world.start()
    for n in (2, 4, 5):
        world.end(halves[n])
    assert world.transactions.open_count == 0 and (world.cursors.half, world.cursors.op) == (6, 6)
    assert world.bodies() == [b"0", b"3", b"2", b"4", b"5"]
    assert world.counts == {"transactions_committed": 5, "transactions_rolled_back": 1}


def test_a_copy_is_known_by_any_of_its_offsets(world: TransactionWorld) -> None:
    first = world.half()
    for checks in (1, 2):
        half = world.transactions.half_at(world.transactions.next_open(0) or 0)
        assert half is not None
        (outcome,) = world.transactions.put_back([(half, checks)])
        assert outcome is not None and outcome.error is None
    assert world.cursors.half == 2
    world.start()
    newest = world.transactions.half_at(2)
    assert newest is not None and (newest.first, newest.checks) == (0, 2)
    world.end(first)
    with pytest.raises(ClientFault, match="ended already"):
        world.end((2, outcome.physical_offset))
    assert world.bodies() == [b"x"] and world.transactions.open_count == 0


def test_a_cursor_that_is_behind_shows_no_transaction_twice(world: TransactionWorld) -> None:
    """The file lags behind the page, and is all there is after a power cut."""
    first, other = world.half(b"1"), world.half(b"2")
    for checks in (1, 1):
        half = world.transactions.half_at(world.transactions.next_open(0) or 0)
        assert half is not None
        world.transactions.put_back([(half, checks)])
    world.end(first)
    world.cursors.move(0, 0)
    world.start()
    assert world.transactions.open_count == 1
    with pytest.raises(ClientFault, match="ended already"):
        world.end(first)
    world.end(other)
    assert world.bodies() == [b"1", b"2"]


def test_a_damaged_record_at_a_queues_end_stops_no_start(world: TransactionWorld) -> None:
    """A start looks at the last record of every queue for a commit that a power cut has torn."""
    world.half()
    at = world.store.send("T").physical_offset
    path = world.store.layout.segment_path(world.store.layout.segment_start(at))
    with open(path, "r+b") as segment:
        segment.seek(at - world.store.layout.segment_start(at) + BODY_AT - 4)
        length = segment.read(4)
        for spoiled in (b"\x7f\xff\xff\xff", length):
            segment.seek(-4, os.SEEK_CUR)
            segment.write(spoiled)
            segment.flush()
            world.start()
            assert world.transactions.open_count == 1


@pytest.mark.parametrize("there", [0, 1, 2, 3])
def test_a_commit_of_which_a_power_cut_left_a_part_is_finished(world: TransactionWorld, there: int) -> None:
    """Without its op message the half message looks open, and its check would commit it again."""
    elements = encode_batch_elements(BatchElement(b"%d" % n, b"") for n in range(3))
    at = world.half(elements, SHMQ_HALF_BATCH="3")
    queue = world.store.queue("T")
    world.store.send("T", b"before")
    records = [
        encode_record(
            topic=b"T",
            body=b"%d" % n,
            properties=b"",
            queue_id=0,
            born_timestamp=1,
            sys_flag=TRANSACTION_COMMIT,
            prepared_transaction_offset=at[1],
        )
        for n in range(there)
    ]
    if records:
        sizes = [len(record) for record in records]
        world.store.append(AppendRequest(queue, bytearray().join(records), sizes, [0] * there))
    world.start()
    assert world.transactions.open_count == (there == 0)
    if not there:
        world.end(at)
    assert world.bodies() == [b"before", b"0", b"1", b"2"]
    with pytest.raises(ClientFault, match="ended already"):
        world.end(at)


def test_the_file_never_says_more_than_is_on_the_disk(world: TransactionWorld) -> None:
    at = world.half()
    world.end(at)
    name = f"{TRANSACTION_HALF_TOPIC}@{TRANSACTION_GROUP}"
    assert not world.cursors.cover()
    assert world.store.page.words[FLUSHED_POSITION] < world.store.page.words[WRITE_POSITION]
    world.cursors.cover()
    world.offsets.export()
    assert name not in world.file.load().get("offsetTable", {})
    world.store.flush()
    assert world.cursors.cover()
    world.offsets.export()
    saved = fastjson.loads(world.file.path.read_bytes())["offsetTable"]
    assert [*saved[name].values()] == [1]
    world.end(world.half(b"y"))
    world.start()
    world.offsets.export()
    assert fastjson.loads(world.file.path.read_bytes())["offsetTable"] == saved


def test_what_cannot_be_ended_stays_open(world: TransactionWorld) -> None:
    nowhere = world.half(b"1", REAL_TOPIC="Gone")
    with pytest.raises(TopicNotExist):
        world.end(nowhere)
    with pytest.raises(ClientFault, match="belongs to producer group"):
        world.end(nowhere, group="Other")
    late = world.half(b"2", CHECK_IMMUNITY_TIME_IN_SECONDS="1")
    with pytest.raises(IllegalOperation):
        world.end(late)
    assert world.transactions.open_count == 2
    world.end(nowhere, ROLLBACK)
    assert world.transactions.open_count == 1


def test_what_is_no_half_message_is_passed_over(world: TransactionWorld) -> None:
    queue = world.store.queue(TRANSACTION_HALF_TOPIC)
    world.store.append(request(queue, [b"nothing real"]))
    at = world.half()
    assert world.transactions.half_at(0) is None
    with pytest.raises(ClientFault, match="no half message"):
        world.end((0, 0))
    world.transactions.pass_over(0)
    assert world.transactions.next_open(0) == 1
    world.end(at)
    assert world.bodies() == [b"x"]


def test_outcomes_of_one_turn_are_one_claim(world: TransactionWorld) -> None:
    halves = [world.half(b"%d" % n) for n in range(20)]

    async def all_at_once() -> list[BaseException | None]:
        end = world.transactions.end
        twice = [*halves, halves[0]]
        return await asyncio.gather(
            *(end("G", *at, COMMIT, from_check=False) for at in twice), return_exceptions=True
        )

    claims = world.store.page.words[WRITE_POSITION]
    outcomes = asyncio.run(all_at_once())
    assert outcomes[:20] == [None] * 20 and isinstance(outcomes[20], ClientFault)
    assert claims < world.store.page.words[WRITE_POSITION]
    assert len(world.bodies()) == 20 == len(set(world.bodies()))


@pytest.mark.parametrize("marks", [b"99,", b"3,", b"-1,", b"%d," % 2**62, b"nothing", b","])
def test_an_op_message_of_nonsense_decides_nothing(world: TransactionWorld, marks: bytes) -> None:
    """Neither what is there nor what comes later, and no memory for what is far away."""
    for number in range(3):
        world.half(b"%d" % number)
    world.store.send(TRANSACTION_OP_HALF_TOPIC, marks, TAGS="d")
    world.start()
    assert world.transactions.open_count == 3
    world.end(world.half(b"3"))
    assert world.transactions.open_count == 3 and world.bodies() == [b"3"]


def test_half_of_refuses_other_records(world: TransactionWorld) -> None:
    sent = world.store.send("T", b"plain")
    record = world.store.store.record_at(sent.physical_offset)
    assert record is not None
    with pytest.raises(Exception, match="no message of"):
        half_of(record)


@pytest.mark.parametrize("gives_up", [False, True])
def test_one_that_is_moved_past_older_ones_is_known_to_have_moved(
    world: TransactionWorld, gives_up: bool
) -> None:
    """The cursor stays with the older ones: the op message says that the original is over."""
    waiting, moved = world.half(b"1"), world.half(b"2")
    half = world.transactions.half_at(1)
    assert half is not None
    outcome = world.transactions.give_up(half) if gives_up else world.transactions.put_back([(half, 1)])[0]
    assert outcome is not None and outcome.error is None
    assert world.cursors.half == 0
    for _ in range(2):
        assert world.transactions.open_count == 2 - gives_up
        assert world.transactions.window == 3 - gives_up
        world.start()
    if gives_up:
        with pytest.raises(ClientFault, match="ended already"):
            world.end(moved)
        assert world.bodies(TRANSACTION_CHECK_MAX_TOPIC) == [b"2"]
    else:
        world.end(moved)
    world.end(waiting)
    assert world.bodies() == ([b"1"] if gives_up else [b"2", b"1"])
    assert world.transactions.open_count == 0


def test_open_ones_leave_a_segment_that_is_to_be_deleted(world: TransactionWorld) -> None:
    halves = [world.half(b"%d" % n) for n in range(200)]
    for at in halves[10:]:
        world.end(at, ROLLBACK)
    assert world.transactions.lowest_needed() == halves[0][1]
    end = world.store.page.words[WRITE_POSITION]
    while not world.transactions.move_out(end):
        pass
    lowest = world.transactions.lowest_needed()
    assert lowest is not None and lowest >= end and world.transactions.open_count == 10
    world.start()
    for at in halves[:10]:
        world.end(at)
    assert world.bodies() == [b"%d" % n for n in range(10)]
    assert world.transactions.lowest_needed() is None and world.transactions.move_out(1 << 60)


# ---- damage


def scrub_of(world: TransactionWorld) -> Scrub:
    """A scrub that looks only where it is asked to."""
    store = world.store
    return Scrub(store.layout, store.page, small_settings(scrub_bytes_per_second=0), lambda name, n: None)


def overwrite(world: TransactionWorld, position: int, data: bytes) -> None:
    """Change bytes of the log; with one byte its lowest bit."""
    layout = world.store.layout
    start = layout.segment_start(position)
    fd = os.open(layout.segment_path(start), os.O_RDWR)
    if len(data) == 1:
        data = bytes([os.pread(fd, 1, position - start)[0] ^ data[0]])
    os.pwrite(fd, data, position - start)
    os.close(fd)


@pytest.mark.parametrize("at", [3, 7, 11, 15, 27, 35, 87, 89], ids=lambda at: f"byte {at}")
@pytest.mark.parametrize("again", [False, True], ids=["same coordinator", "next one"])
def test_a_damaged_half_message_is_mended_before_it_is_committed(
    world: TransactionWorld, at: int, again: bool
) -> None:
    """Size, magic, CRC, queue id, queue offset, physical offset, body length, body."""
    halves = [world.half(b"%d" % n * 50) for n in range(3)]
    world.store.flush()
    overwrite(world, halves[1][1] + at, b"\x01")
    if again:
        world.start()
    with pytest.raises(Unavailable, match="looked at"):
        world.end(halves[1])
    world.end(halves[0])
    world.end(halves[2])
    scrub_of(world).step()
    world.end(halves[1])
    assert world.bodies() == [b"0" * 50, b"2" * 50, b"1" * 50]
    assert [row.state for row in DamageTable(world.store.layout).rows] == [MENDED]
    assert world.transactions.open_count == 0


def test_a_half_message_that_is_spoiled_is_never_committed_and_the_others_are(
    world: TransactionWorld,
) -> None:
    halves = [world.half(b"%d" % n * 50) for n in range(3)]
    world.store.flush()
    overwrite(world, halves[1][1] + 100, b"spoiled")
    with pytest.raises(Unavailable, match="looked at"):
        world.end(halves[1])
    scrub_of(world).step()
    for _ in range(2):
        with pytest.raises(ClientFault, match="no half message"):
            world.end(halves[1])
        world.start()
    world.end(halves[0])
    world.end(halves[2])
    assert world.bodies() == [b"0" * 50, b"2" * 50]
    (row,) = DamageTable(world.store.layout).rows
    assert (row.position, row.state) == (halves[1][1], MARKED)
    assert (row.topic, row.queue_offset) == (TRANSACTION_HALF_TOPIC, 1)
    world.store.crash(keep_page=True)  # what is marked is replaced then
    assert [row.state for row in DamageTable(world.store.layout).rows] == [REPLACED]


@pytest.mark.parametrize("flushed", [True, False])
def test_a_damaged_op_message_ends_nobody_elses_transaction(world: TransactionWorld, flushed: bool) -> None:
    """What it says is believed only as it was written; the transaction it ended may look open again."""
    halves = [world.half(b"%d" % n) for n in range(4)]
    world.end(halves[1])
    world.store.send("T", b"later")  # a commit at its queue's end would be known by itself
    op = world.store.store.queues.unit(world.store.queue(TRANSACTION_OP_HALF_TOPIC), 0)
    if flushed:
        world.store.flush()
    overwrite(world, op.physical_offset + BODY_AT, b"\x02")  # "1" becomes "3"
    world.start()
    assert world.transactions.open_count == 4
    for n in (0, 3, 2):
        world.end(halves[n])
    assert world.bodies() == [b"1", b"later", b"0", b"3", b"2"]
    scrub_of(world).step()
    world.start()
    (row,) = DamageTable(world.store.layout).rows
    assert (row.topic, row.queue_offset, row.position) in (
        ("", -1, op[0]),
        (TRANSACTION_OP_HALF_TOPIC, 0, op[0]),
    )
    if flushed:
        assert row.state == MENDED and world.transactions.open_count == 0
    else:
        assert row.state == MARKED and world.transactions.open_count == 1, "it will be checked"
        world.store.flush()
        world.store.crash(keep_page=True)  # what is marked is replaced then


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_damaged_one_costs_no_other_open_one_its_segment(world: TransactionWorld, spoiled: bool) -> None:
    """Retention asks for the oldest; were that one not counted, all behind it would go with the segment."""
    halves = [world.half(b"%d" % n * 50) for n in range(3)]
    world.store.flush()
    overwrite(world, halves[0][1] + 100, b"spoiled" if spoiled else b"\x01")
    assert world.transactions.lowest_needed() == halves[0][1]
    end = halves[2][1] + 1
    assert not world.transactions.move_out(end), "it may be mended"
    scrub_of(world).step()
    assert world.transactions.move_out(end)
    lowest = world.transactions.lowest_needed()
    assert lowest is not None and lowest >= end
    for n in range(1 if spoiled else 0, 3):
        world.end(halves[n])
    assert sorted(world.bodies()) == [b"%d" % n * 50 for n in range(1 if spoiled else 0, 3)]
    assert world.transactions.open_count == 0
    world.store.crash(keep_page=True)
