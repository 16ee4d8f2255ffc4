"""Whatever properties a send brings: its unit is the one that recovery and the store check work out of its
record.

A unit whose tags code is not its record's hides the message from those who want its tag, or it changes when
the ConsumeQueue is built anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shmq.base.clock import SYSTEM_CLOCK
from shmq.base.errors import ShmqError
from shmq.handlers.batch_elements import VECTOR_MIN
from shmq.handlers.context import AppendReply, WorkerContext
from shmq.handlers.send import send_message
from shmq.handlers.send_batch import send_batch, send_log_batch
from shmq.handlers.table import HANDLERS
from shmq.model.host import UNIX_HOST
from shmq.model.properties import decode_properties
from shmq.model.record import encode_record
from shmq.model.subscription import tags_code_of
from shmq.model.topic_config import TopicConfig
from shmq.model.unit import UNIT_BYTES, UNIT_STRUCT
from shmq.net.connection import Connection
from shmq.protocol.bodies.batch import BatchElement, encode_batch_elements
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.log_batch import SendLogBatchHeader, pack_sizes
from shmq.protocol.headers.send import SendMessageHeader
from shmq.store.append_request import AppendRequest
from shmq.store.check import check_store
from shmq.store.log_scan import ScanEnd, scan
from shmq.store.record_text import tags_codes
from tests.helpers.store import OpenStore, small_settings

TOPIC = "T"
KEY = "0123456789ABCDEF0123456789ABCDEF"
PLAIN = f"TAGS\x01A\x02UNIQ_KEY\x01{KEY}\x02"


class Ways:
    """The send handlers over a real store; what they append is compared at once."""

    def __init__(self, store: OpenStore) -> None:
        self.store = store
        self.queue = store.queue(TOPIC)
        self.appended: list[AppendRequest] = []
        self.stored = 0
        self.refused = 0
        self.counts: dict[str, int] = {}
        topic = TopicConfig(TOPIC, read_queue_nums=1, write_queue_nums=1)
        self.context = cast(
            WorkerContext,
            SimpleNamespace(
                settings=store.settings,
                store=store.store,
                view=SimpleNamespace(topics={TOPIC: topic}, groups={}),
                directory=store.directory,
                appends=self,
                clock=SYSTEM_CLOCK,
                store_host=UNIX_HOST,
                count=self.count,
            ),
        )
        self.connection = cast(Connection, SimpleNamespace(peer=SimpleNamespace(born_host=UNIX_HOST)))

    def add(self, request: AppendRequest, reply: AppendReply) -> None:
        self.appended.append(request)

    def count(self, name: str, n: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + n

    def send(self, handler: Any, header: Any, body: bytes = b"body") -> None:
        """Let `handler` do what it does, append, and compare."""
        try:
            handler(self.context, self.connection, Command.request(0, None, body), header)
        except ShmqError:
            self.refused += 1
            return
        sent, self.appended = self.appended, []
        for request in sent:
            (outcome,) = self.store.append(request)
            assert outcome.error is None
            self.compare(outcome.physical_offset, outcome.end, outcome.queue_offset, request.count)
            self.stored += request.count

    def compare(self, position: int, end: int, queue_offset: int, count: int) -> None:
        """Scan the records as recovery does; their units must be what it would write."""
        segment = self.store.store.log.segment(position)
        start = segment.start
        found = scan(segment.map, position - start, end - start, start, check_bodies=True, check_text=True)
        assert (found.end, len(found)) == (ScanEnd.END, count)
        codes = tags_codes(segment.map, found.property_starts, found.ends)
        for n in range(count):
            text = segment.map[int(found.property_starts[n]) : int(found.ends[n])]
            assert codes[n] == tags_code_of(decode_properties(text).get("TAGS")), text
            unit = UNIT_STRUCT.unpack(self.unit(queue_offset + n))
            assert unit == (int(found.physical_offsets[n]), int(found.sizes[n]), int(codes[n])), text
        assert np.array_equal(found.queue_offsets, np.arange(queue_offset, queue_offset + count))

    def unit(self, number: int) -> bytes:
        size = self.store.layout.queue_file_bytes
        position = number * UNIT_BYTES
        path = self.store.layout.queue_file_path(TOPIC, 0, position - position % size)
        with open(path, "rb") as file:
            file.seek(position % size)
            return file.read(UNIT_BYTES)


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    root: Path = tmp_path_factory.mktemp("units") / "store"
    sizes = small_settings(
        mapped_file_size_commit_log=4 << 20, mapped_file_size_consume_queue=UNIT_BYTES * 4096
    )
    with OpenStore(root, sizes) as store:
        found = Ways(store)
        yield found
        assert list(check_store(store.root, store.page)) == []


PIECES = [
    *("TAGS", "TAGS\x01", "TAGS\x01A\x02", "\x02TAGS\x01B\x02", "\x02TAGS\x01\x02", "TAGSX\x01A\x02"),
    *("XTAGS\x01A\x02", "\x01", "\x02", "\x00", f"UNIQ_KEY\x01{KEY}\x02", "UNIQ_KEY\x01U\x02", "UNIQ_KEY"),
    *("KEYS\x01k l\x02", "WAIT\x01false\x02", "CLUSTER\x01c\x02", "MSG_REGION\x01r\x02", "é", "\U0001f600"),
    *("A" * 40, "B" * 7, "x" * 32_700, "TAGS\x01" + "long" * 9 + "\x02", PLAIN),
]
SURROGATES = ["\ud83d", "\ude00"]
NO_UTF8 = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x80\x80", b"\xf0\x9f\x98"]

TEXTS = st.lists(st.one_of(st.sampled_from([*PIECES, *SURROGATES]), st.text(max_size=4)), max_size=8).map(
    "".join
)


def _flipped(given_bytes: tuple[bytes, list[tuple[int, int]]]) -> bytes:
    data, flips = bytearray(given_bytes[0]), given_bytes[1]
    for at, bit in flips if data else ():
        data[at % len(data)] ^= 1 << bit
    return bytes(data)


MADE = st.lists(
    st.one_of(st.sampled_from([*(p.encode() for p in PIECES), *NO_UTF8]), st.binary(max_size=4)), max_size=8
).map(b"".join)
FLIPPED = st.tuples(
    st.sampled_from(
        [PLAIN.encode(), b"UNIQ_KEY\x01U\x02TAGS\x01A", f"UNIQ_KEY\x01{KEY}\x02KEYS\x01k\x02".encode()]
    ),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 7)), max_size=3),
).map(_flipped)
BYTES = st.one_of(MADE, FLIPPED)
NEIGHBOURS = st.sampled_from(
    [b"", PLAIN.encode(), f"UNIQ_KEY\x01{KEY}\x02".encode(), PLAIN.replace("A", "BB", 1).encode()]
)

EVERY_TEXT = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def message_header(properties: str | None, *, batch: bool = False) -> SendMessageHeader:
    return SendMessageHeader("PG", TOPIC, "TBW102", 1, 0, 0, 1, 0, properties, batch=batch)


@EVERY_TEXT
@given(TEXTS)
@example("TAGS\x01\ud83d\x02UNIQ_KEY\x01U\x02")
@example("TAGS\x01A\x02TAGS\x01\x02UNIQ_KEY\x01U\x02")
@example("UNIQ_KEY\x01U\x02TAGSx\x01A\x02")
def test_the_unit_of_a_single_send_describes_its_record(ways: Ways, text: str) -> None:
    for code in (RequestCode.SEND_MESSAGE, RequestCode.SEND_MESSAGE_V2):
        ways.send(HANDLERS[code].function, message_header(text))


@EVERY_TEXT
@given(BYTES, NEIGHBOURS, st.sampled_from([1, VECTOR_MIN]))
@example(b"UNIQ_KEY\x01U\x02TAGSxA", b"", 1)
@example(b"TAGS\x01A\x02TAGS\x01\x02", b"", VECTOR_MIN)
@example(b"WAIT\x01true\x02TAGS\x01A\xff", PLAIN.encode(), VECTOR_MIN)
def test_the_units_of_a_batch_describe_its_records(
    ways: Ways, properties: bytes, neighbour: bytes, count: int
) -> None:
    if len(properties) > 32_767:
        return
    for row in ([neighbour, properties, *[neighbour] * count], [properties] * (count + 1)):
        elements = [BatchElement(b"body", one) for one in row]
        ways.send(send_batch, message_header("", batch=True), encode_batch_elements(elements))


def log_batch(pieces: list[bytes]) -> tuple[SendLogBatchHeader, bytes]:
    records = [
        bytes(encode_record(topic=TOPIC.encode(), body=b"body", properties=one, queue_id=0, born_timestamp=1))
        for one in pieces
    ]
    sizes = [len(record) for record in records]
    return SendLogBatchHeader("PG", TOPIC, 0, len(sizes), pack_sizes(sizes), "TBW102", 1), b"".join(records)


@EVERY_TEXT
@given(BYTES, NEIGHBOURS, st.sampled_from([1, VECTOR_MIN]))
@example(b"UNIQ_KEY\x01U\x02TAGSxA", b"", 1)
@example(b"UNIQ_KEY\x01U\x02TAGSxA", PLAIN.encode(), VECTOR_MIN)
@example(b"TAGS\x01A\x02TAGS\x01\x02", b"", 1)
@example(b"TAGS\x01\xff\x02UNIQ_KEY\x01U\x02", PLAIN.encode(), VECTOR_MIN)
def test_the_units_of_a_log_ready_batch_describe_its_records(
    ways: Ways, properties: bytes, neighbour: bytes, count: int
) -> None:
    if len(properties) > 32_767:
        return
    ways.send(send_log_batch, *log_batch([properties, *[neighbour] * count]))
    ways.send(send_log_batch, *log_batch([properties] * (count + 1)))


def test_both_paths_of_log_ready_batches_and_refusals_were_walked(ways: Ways) -> None:
    """The tests above compare something: both paths, stored and refused ones."""
    ways.send(send_log_batch, *log_batch([PLAIN.encode()] * VECTOR_MIN))
    ways.send(send_log_batch, *log_batch([PLAIN.encode(), b"UNIQ_KEY\x01U\x02TAGS\x01A\x02"] * VECTOR_MIN))
    ways.send(send_message, message_header("UNIQ_KEY\x01\x00\x02"))
    assert ways.counts["log_batches"] > 0
    assert ways.counts["log_batches_slow"] > 0
    assert ways.stored > 0
    assert ways.refused > 0
