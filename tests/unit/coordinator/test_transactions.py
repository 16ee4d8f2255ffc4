"""The open transactions over a real store: what a start finds in it, also after a power cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base.clock import SYSTEM_CLOCK
from shmq.base.errors import ClientFault, IllegalOperation, TopicNotExist
from shmq.broker.config_file import ConfigFile
from shmq.broker.consumer_offsets import ConsumerOffsets
from shmq.broker.half_message import half_of
from shmq.broker.queues import Queues
from shmq.broker.transaction_cursors import TransactionCursors
from shmq.coordinator.transactions import Transactions
from shmq.model.names import (
    TRANSACTION_CHECK_MAX_TOPIC,
    TRANSACTION_GROUP,
    TRANSACTION_HALF_TOPIC,
    TRANSACTION_OP_HALF_TOPIC,
)
from shmq.model.record import encode_record, parse_record
from shmq.model.sys_flag import TRANSACTION_COMMIT
from shmq.model.transaction import LocalTransactionState
from shmq.protocol import fastjson
from shmq.protocol.bodies.batch import BatchElement, encode_batch_elements
from shmq.shm.append_lock import AppendLock
from shmq.shm.page_layout import FLUSHED_POSITION, WRITE_POSITION
from shmq.shm.worker_slots import FIRST_WORKER_SLOT
from shmq.store.append_request import AppendRequest
from shmq.store.check import check_store
from tests.helpers.store import OpenStore, request

COMMIT, ROLLBACK = LocalTransactionState.COMMIT_MESSAGE, LocalTransactionState.ROLLBACK_MESSAGE
REAL = {"REAL_TOPIC": "T", "REAL_QID": "0", "PGROUP": "G", "TRAN_MSG": "true"}


class World:
    """A store with the topics of transactions, and what a coordinator makes of it."""

    def __init__(self, store: OpenStore) -> None:
        self.store = store
        for topic in (
            "T",
            TRANSACTION_HALF_TOPIC,
            TRANSACTION_OP_HALF_TOPIC,
            TRANSACTION_CHECK_MAX_TOPIC,
        ):
            store.queue(topic)
        self.counts: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        """As a new coordinator begins."""
        store = self.store
        self.file = ConfigFile(store.layout.config / "consumerOffset.json")
        self.offsets = ConsumerOffsets(self.file, store.page, store.directory)
        self.cursors = TransactionCursors(store.page, self.offsets)
        lock = AppendLock(store.page, FIRST_WORKER_SLOT, store.semaphore, lambda: False)
        queues = Queues(store.page, store.directory, lock, store.layout, lambda: None)
        self.transactions = Transactions(
            store.store, queues, self.cursors, store.settings, SYSTEM_CLOCK, self._count
        )
        self.transactions.start()

    def _count(self, name: str, n: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + n

    def half(self, body: bytes = b"x", **more: str) -> tuple[int, int]:
        """Store a half message; its queue offset and log offset."""
        sent = self.store.send(TRANSACTION_HALF_TOPIC, body, UNIQ_KEY=f"K{body!r}", **{**REAL, **more})
        return sent.queue_offset, sent.physical_offset

    def end(self, at: tuple[int, int], state: LocalTransactionState = COMMIT, group: str = "G") -> None:
        asyncio.run(self.transactions.end(group, *at, state, from_check=False))

    def bodies(self, topic: str = "T") -> list[bytes]:
        queue, found = self.store.queue(topic), []
        for offset in range(self.store.store.max(queue)):
            record = self.store.store.record_at(self.store.store.queues.unit(queue, offset).physical_offset)
            assert record is not None
            fields = parse_record(record)
            found.append(bytes(record[fields.body_at : fields.body_at + fields.body_length]))
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with OpenStore(tmp_path / "store") as opened:
        yield World(opened)
        assert list(check_store(opened.root, opened.page)) == []


def test_a_new_coordinator_knows_what_has_ended(world: World) -> None:
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


def test_a_copy_is_known_by_any_of_its_offsets(world: World) -> None:
    first = world.half()
    for checks in (1, 2):
        half = world.transactions.half_at(world.transactions.oldest_open(9) or 0)
        assert half is not None
        outcome = world.transactions.put_back(half, checks)
        assert outcome is not None and outcome.error is None
    assert world.cursors.half == 2
    world.start()
    newest = world.transactions.half_at(2)
    assert newest is not None and (newest.first, newest.checks) == (0, 2)
    world.end(first)
    with pytest.raises(ClientFault, match="ended already"):
        world.end((2, outcome.physical_offset))
    assert world.bodies() == [b"x"] and world.transactions.open_count == 0


def test_a_cursor_that_is_behind_shows_no_transaction_twice(world: World) -> None:
    """The file lags behind the page, and is all there is after a power cut."""
    first, other = world.half(b"1"), world.half(b"2")
    for checks in (1, 1):
        half = world.transactions.half_at(world.transactions.oldest_open(9) or 0)
        assert half is not None
        world.transactions.put_back(half, checks)
    world.end(first)
    world.cursors.move(0, 0)
    world.start()
    assert world.transactions.open_count == 1
    with pytest.raises(ClientFault, match="ended already"):
        world.end(first)
    world.end(other)
    assert world.bodies() == [b"1", b"2"]


@pytest.mark.parametrize("there", [0, 1, 2, 3])
def test_a_commit_of_which_a_power_cut_left_a_part_is_finished(world: World, there: int) -> None:
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


def test_the_file_never_says_more_than_is_on_the_disk(world: World) -> None:
    at = world.half()
    world.end(at)
    name = f"{TRANSACTION_HALF_TOPIC}@{TRANSACTION_GROUP}"
    assert not world.cursors.cover()
    assert world.store.page.words[FLUSHED_POSITION] < world.store.page.words[WRITE_POSITION]
    world.cursors.cover()
    world.offsets.export()
    assert name not in fastjson.loads(world.file.path.read_bytes())["offsetTable"]
    world.store.flush()
    assert world.cursors.cover()
    world.offsets.export()
    saved = fastjson.loads(world.file.path.read_bytes())["offsetTable"]
    assert [*saved[name].values()] == [1]
    world.end(world.half(b"y"))
    world.start()
    world.offsets.export()
    assert fastjson.loads(world.file.path.read_bytes())["offsetTable"] == saved


def test_what_cannot_be_ended_stays_open(world: World) -> None:
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


def test_what_is_no_half_message_is_passed_over(world: World) -> None:
    queue = world.store.queue(TRANSACTION_HALF_TOPIC)
    world.store.append(request(queue, [b"nothing real"]))
    at = world.half()
    assert world.transactions.half_at(0) is None
    with pytest.raises(ClientFault, match="no half message"):
        world.end((0, 0))
    world.transactions.pass_over(0)
    assert world.transactions.oldest_open(9) == 1
    world.end(at)
    assert world.bodies() == [b"x"]


def test_outcomes_of_one_turn_are_one_claim(world: World) -> None:
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


def test_half_of_refuses_other_records(world: World) -> None:
    sent = world.store.send("T", b"plain")
    record = world.store.store.record_at(sent.physical_offset)
    assert record is not None
    with pytest.raises(Exception, match="no message of"):
        half_of(record)
