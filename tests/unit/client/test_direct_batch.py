"""Direct batches read from a page and files made here: what is found, and every reason to ask the socket
instead."""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from shmq.base.errors import StoreDamaged
from shmq.client.direct_batch import read_batch
from shmq.client.pull import PullResult, PullStatus
from shmq.model.message_queue import MessageQueue
from shmq.model.properties import encode_properties
from shmq.model.record import BODY_AT, encode_record, stamp_record
from shmq.model.subscription import build_subscription, tags_code_of
from shmq.model.unit import UNIT_BYTES, pack_unit
from shmq.protocol.grant import FileRequest, GrantReaderAnswer
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.queue_table import QueueRef, QueueTable

SEGMENT = 4096
UNIT_FILE = UNIT_BYTES * 16
QUEUE = MessageQueue("T", "broker-a", 3)


@dataclass
class Grant:
    """What `read_batch` needs of a grant, over plain buffers."""

    page: ControlPage
    answer: GrantReaderAnswer
    files: dict[FileRequest, mmap.mmap] = field(default_factory=dict)

    def file(self, request: FileRequest) -> memoryview | None:
        found = self.files.get(request)
        return None if found is None else memoryview(found).toreadonly()


class Store:
    """A log and one queue, written as the broker writes them."""

    def __init__(self, page: ControlPage) -> None:
        self.page = page
        self.table = QueueTable(page)
        slot, generation = self.table.new_slots([(0, 0)])
        self.ref = QueueRef(QUEUE.topic, QUEUE.queue_id, slot, generation)
        answer = GrantReaderAnswer(page.page_id, at.LAYOUT_VERSION_NOW, QUEUE.broker_name, SEGMENT, UNIT_FILE)
        self.grant = Grant(page, answer)
        self.position = 0
        page.state = PageState.OK

    def append(self, body: bytes, tag: str | None = None, topic: bytes = b"T", visible: bool = True) -> None:
        properties = encode_properties({**({"TAGS": tag} if tag else {}), "UNIQ_KEY": f"K{self.position}"})
        record = encode_record(topic=topic, body=body, properties=properties, queue_id=3, born_timestamp=1)
        start = self.position - self.position % SEGMENT
        if self.position + len(record) > start + SEGMENT:
            self.position = start = start + SEGMENT
        offset = self.table.max(self.ref.slot)
        stamp_record(record, 0, offset, self.position, 2)
        self._put(FileRequest("log", "", 0, start), self.position - start, record, SEGMENT)
        unit_at = offset * UNIT_BYTES
        unit_start = unit_at - unit_at % UNIT_FILE
        unit = pack_unit(self.position, len(record), tags_code_of(tag))
        self._put(FileRequest("queue", "T", 3, unit_start), unit_at - unit_start, unit, UNIT_FILE)
        self.position += len(record)
        self.table.set_max(self.ref.slot, offset + 1)
        if visible:
            self.page.words[at.WRITE_POSITION] = self.position

    def _put(self, request: FileRequest, place: int, data: bytes, size: int) -> None:
        held = self.grant.files.setdefault(request, mmap.mmap(-1, size))
        held[place : place + len(data)] = data

    def read(
        self, offset: int, count: int = 100, tags: str = "*", max_bytes: int = 1 << 20
    ) -> PullResult | None:
        return read_batch(
            self.grant,
            QUEUE,
            self.ref,
            offset,
            count,
            max_bytes,
            build_subscription("T", tags),  # type: ignore[arg-type]
        )


@pytest.fixture
def store() -> Iterator[Store]:
    name = f"/shmq-test-{secrets.token_hex(6)}"
    page = ControlPage.create(name, queue_slots=16, offset_slots=16, directory_bytes=4096, store_identity=1)
    ControlPage.unlink(name)
    yield Store(page)
    page.close()


def bodies(result: PullResult | None) -> list[bytes]:
    assert result is not None
    return [bytes(message.body) for message in result.messages]


def test_messages_are_found_across_segments_and_unit_files(store: Store) -> None:
    sent = [b"body %d " % n + b"x" * 300 for n in range(40)]
    for body in sent:
        store.append(body)
    got: list[bytes] = []
    offset = 0
    while (result := store.read(offset, count=7)) and result.status is PullStatus.FOUND:
        got += bodies(result)
        assert [m.queue_offset for m in result.messages] == list(range(offset, result.next_begin_offset))
        assert result.record_bytes == sum(m.store_size for m in result.messages)
        offset = result.next_begin_offset
    assert got == sent and offset == 40
    assert result is not None and (result.status, result.min_offset, result.max_offset) == (
        PullStatus.NO_NEW_MSG,
        0,
        40,
    )


def test_nothing_is_read_beyond_the_visible_position(store: Store) -> None:
    store.append(b"visible")
    store.append(b"not yet", visible=False)
    result = store.read(0)
    assert bodies(result) == [b"visible"] and result is not None and result.next_begin_offset == 1
    beyond = store.read(1)
    assert beyond is not None and (beyond.status, beyond.next_begin_offset) == (PullStatus.NO_NEW_MSG, 1)


def test_tags_are_filtered_by_hash_and_then_exactly(store: Store) -> None:
    for tag in ("AaAa", "BBBB", None, "TagA"):  # the first two share a hash
        store.append(b"x", tag)
    result = store.read(0, tags="BBBB || TagA")
    assert result is not None and [m.tags for m in result.messages] == ["BBBB", "TagA"]
    assert result.next_begin_offset == 4
    nothing = store.read(0, tags="Other")
    assert nothing is not None and (nothing.status, nothing.next_begin_offset) == (
        PullStatus.NO_MATCHED_MSG,
        4,
    )


def test_limits_of_count_and_bytes_end_where_the_next_pull_goes_on(store: Store) -> None:
    for n in range(10):
        store.append(b"%d" % n, "even" if n % 2 == 0 else "odd")
    result = store.read(0, count=2, tags="odd")
    assert bodies(result) == [b"1", b"3"] and result is not None and result.next_begin_offset == 5
    assert bodies(store.read(0, max_bytes=1)) == [b"0"]


def test_records_of_another_form_are_checked_one_by_one(store: Store) -> None:
    store.append(b"long topic", topic=b"T" * 200)
    assert bodies(store.read(0)) == [b"long topic"]


@pytest.mark.parametrize("place", [0, 8, 21, 29, BODY_AT + 2])
def test_a_record_that_is_not_what_its_unit_promises_is_never_delivered(store: Store, place: int) -> None:
    for n in range(3):
        store.append(b"body %d" % n)
    log = store.grant.files[FileRequest("log", "", 0, 0)]
    log[store.position // 3 + place] ^= 0x40
    with pytest.raises(StoreDamaged, match="offset 1"):
        store.read(0)


def test_everything_unusual_is_left_to_the_socket(store: Store) -> None:
    store.append(b"x")
    assert store.read(2) is None, "beyond the end"
    store.table.set_min(store.ref.slot, 1)
    assert store.read(0) is None, "before the beginning"
    store.table.set_min(store.ref.slot, 0)
    store.ref = store.ref._replace(generation=store.ref.generation - 2)
    assert store.read(0) is None, "a deleted queue"
    store.ref = store.ref._replace(generation=store.ref.generation + 2)
    store.page.state = PageState.RETIRED
    assert store.read(0) is None, "a retired page"
    store.page.state = PageState.FLUSH_FAILED
    assert bodies(store.read(0)) == [b"x"], "what is visible may still be read"
    units = store.grant.files.pop(FileRequest("queue", "T", 3, 0))
    assert store.read(0) is None, "no unit file"
    store.grant.files[FileRequest("queue", "T", 3, 0)] = units
    del store.grant.files[FileRequest("log", "", 0, 0)]
    assert store.read(0) is None, "no segment"


def test_views_stay_valid_when_the_map_is_let_go(store: Store) -> None:
    store.append(b"kept")
    result = store.read(0)
    store.grant.files.clear()
    assert bodies(result) == [b"kept"]
