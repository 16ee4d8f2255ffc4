"""Log-ready batches (30001) to a real worker: stored whole, or refused whole."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from shmq.model.message_ext import MessageExt
from shmq.model.record import encode_record, iter_records
from shmq.model.record_batch import encode_batch
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.log_batch import SendLogBatchHeader, pack_sizes
from shmq.protocol.headers.send import SendMessageResponseHeader
from shmq.shm.counters import totals
from shmq.shm.page_layout import WRITE_POSITION
from tests.helpers.waiting import wait_until
from tests.helpers.worker_rig import Client, WorkerRig, pull_request, running_rig, send_request


@pytest.fixture(scope="module")
def rig() -> Iterator[WorkerRig]:
    with running_rig(topics=12) as running:
        yield running


@pytest.fixture
def client(rig: WorkerRig) -> Iterator[Client]:
    with rig.client() as connected:
        yield connected


def batch(
    topic: str, count: int, properties: bytes = b"TAGS\x01A\x02UNIQ_KEY\x01U\x02"
) -> tuple[bytearray, list[int]]:
    bodies = [b"body %d " % n + bytes(n % 40) + b"!" for n in range(count)]
    return encode_batch(
        topic=topic.encode(),
        queue_id=0,
        bodies=bodies,
        properties=[properties] * count,
        born_timestamp=1_700_000_000_000,
    )


def request(topic: str, data: bytes | bytearray, sizes: list[int], queue_id: int = 0) -> Command:
    header = SendLogBatchHeader("PG", topic, queue_id, len(sizes), pack_sizes(sizes), "TBW102", 4)
    return Command.request(30001, header, bytes(data))


def stored(client: Client, topic: str, queue_offset: int, count: int) -> list[MessageExt]:
    answer = client.call(
        pull_request(topic, queue_offset, count=count, serialization=2, max_msg_bytes=1 << 20)
    )
    assert answer.code == 0, answer.remark
    return [MessageExt(record) for record in iter_records(answer.body_bytes())]


@pytest.mark.parametrize("count", [1, 3, 15, 16, 1000])
def test_a_log_ready_batch_is_stored_as_single_messages(rig: WorkerRig, client: Client, count: int) -> None:
    data, sizes = batch("T0", count)
    answer = client.call(request("T0", data, sizes))
    assert answer.code == 0, answer.remark
    header = answer.read_header(SendMessageResponseHeader)
    messages = stored(client, "T0", header.queue_offset, count)
    assert len(messages) == count
    for n, message in enumerate(messages):
        assert message.body == b"body %d " % n + bytes(n % 40) + b"!"
        assert (message.tags, message.queue_offset) == ("A", header.queue_offset + n)
        assert message.store_timestamp >= message.born_timestamp
        assert message.body_crc_ok()
    assert messages[0].physical_offset == header.physical_offset


@pytest.mark.long
def test_a_reserved_property_sends_the_batch_down_the_ordinary_path(rig: WorkerRig, client: Client) -> None:
    before = totals(rig.page)["log_batches_slow"]
    data, sizes = batch("T1", 40, b"UNIQ_KEY\x01U\x02k\x01v\x02TAGS\x01Late\x02")
    header = client.call(request("T1", data, sizes)).read_header(SendMessageResponseHeader)
    assert [m.tags for m in stored(client, "T1", header.queue_offset, 40)] == ["Late"] * 40
    found = client.call(pull_request("T1", header.queue_offset, expression="Late"))
    assert found.code == 0
    wait_until(lambda: totals(rig.page)["log_batches_slow"] > before, 5)


@pytest.mark.parametrize("count", [2, 40])
@pytest.mark.parametrize(
    ("name", "code"),
    [(b"DELAY\x013\x02", 13), (b"TIMER_DELAY_MS\x013\x02", 13), (b"TRAN_MSG\x01true\x02", 13)],
)
def test_what_is_not_supported_yet_is_refused_in_batches_too(
    client: Client, name: bytes, code: int, count: int
) -> None:
    data, sizes = batch("T1", count, b"UNIQ_KEY\x01U\x02" + name)
    assert client.call(request("T1", data, sizes)).code == code


def record(**changes: object) -> bytearray:
    parts: dict[str, object] = {
        "topic": b"T2",
        "body": b"x",
        "properties": b"UNIQ_KEY\x01U\x02",
        "queue_id": 0,
        "born_timestamp": 1,
    }
    return encode_record(**{**parts, **changes})  # type: ignore[arg-type]


FOREIGN = {
    "another topic": record(topic=b"T3"),
    "a system topic": record(topic=b"SCHEDULE_TOPIC_XXXX"),
    "another queue": record(queue_id=1),
    "an empty body": record(body=b""),
    "a transaction": record(sys_flag=4),
    "an inner batch": record(sys_flag=0x80),
    "retries": record(reconsume_times=1),
    "a prepared transaction": record(prepared_transaction_offset=1),
    "a NUL in the properties": record(properties=b"k\x01a\0b\x02"),
    "an IPv6 host": record(born_host=bytes(20)),
}


@pytest.mark.parametrize("count", [2, 20])
@pytest.mark.parametrize("bad", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_batch_with_one_foreign_record_is_refused_whole(
    rig: WorkerRig, client: Client, bad: bytearray, count: int
) -> None:
    good = record()
    before = rig.page.words[WRITE_POSITION]
    records = [good] * (count - 1) + [bad]
    answer = client.call(request("T2", b"".join(records), [len(r) for r in records]))
    assert answer.code == ResponseCode.MESSAGE_ILLEGAL, answer
    assert answer.remark
    assert rig.page.words[WRITE_POSITION] == before


def test_a_batch_names_its_queue_and_has_sizes_that_add_up(client: Client) -> None:
    data, sizes = batch("T2", 3)
    assert client.call(request("T2", data, sizes, queue_id=-1)).code == ResponseCode.INVALID_PARAMETER
    assert client.call(request("T2", data, sizes[:-1])).code == ResponseCode.MESSAGE_ILLEGAL
    assert client.call(request("T2", data, [*sizes, 100])).code == ResponseCode.MESSAGE_ILLEGAL
    nothing = Command.request(30001)
    nothing.fields = [1, "PG", "T2", 0, 0, b"", "TBW102", 4]
    assert client.call(nothing).code == ResponseCode.INVALID_PARAMETER


@pytest.mark.parametrize("count", [3, 24])
def test_any_flipped_byte_is_refused_or_stored_soundly(rig: WorkerRig, client: Client, count: int) -> None:
    """Bytes that may differ without harm (flag, born time, property text) stay as the client wrote them."""
    data, sizes = batch("T4", count)
    chosen = random.Random(count)
    accepted = 0
    for _ in range(300):
        damaged = bytearray(data)
        position = chosen.randrange(len(damaged))
        damaged[position] ^= 1 << chosen.randrange(8)
        answer = client.call(request("T4", damaged, sizes))
        if answer.code == 0:
            accepted += 1
            header = answer.read_header(SendMessageResponseHeader)
            messages = stored(client, "T4", header.queue_offset, count)
            assert len(messages) == count
            assert all(m.body_crc_ok() and m.topic == "T4" and m.queue_id == 0 for m in messages)
    assert 0 < accepted < 300
    assert client.call(send_request("T4")).code == 0


def large_batch(topic: str, properties: bytes) -> tuple[bytearray, list[int], list[bytes]]:
    """A batch that comes in many reads: the worker stamps it where it was received."""
    bodies = [random.Random(n).randbytes(20_000) for n in range(40)]
    data, sizes = encode_batch(
        topic=topic.encode(), queue_id=0, bodies=bodies, properties=properties, born_timestamp=1
    )
    return bytearray(data), sizes, bodies


@pytest.mark.parametrize("extra", [b"", b"DELAY\x010\x02"], ids=["fast path", "ordinary path"])
def test_a_batch_that_comes_in_many_reads_is_stored_as_it_was_sent(
    rig: WorkerRig, client: Client, extra: bytes
) -> None:
    data, sizes, bodies = large_batch("T5", b"TAGS\x01A\x02UNIQ_KEY\x01U\x02" + extra)
    for _ in range(3):
        answer = client.call(request("T5", data, sizes))
        assert answer.code == 0, answer.remark
        first = answer.read_header(SendMessageResponseHeader).queue_offset
        messages = stored(client, "T5", first, len(bodies))
        assert [m.body for m in messages] == bodies
        assert [m.queue_offset for m in messages] == list(range(first, first + len(bodies)))
        assert all(m.body_crc_ok() and m.tags == "A" and m.born_timestamp == 1 for m in messages)


def test_a_batch_that_comes_in_many_reads_is_refused_whole(rig: WorkerRig, client: Client) -> None:
    data, sizes, _ = large_batch("T5", b"TAGS\x01A\x02UNIQ_KEY\x01U\x02")
    before = rig.page.words[WRITE_POSITION]
    for in_a_body in (200, len(data) // 2, len(data) - 1_000):
        damaged = bytearray(data)
        damaged[in_a_body] ^= 1
        answer = client.call(request("T5", damaged, sizes))
        assert answer.code == ResponseCode.MESSAGE_ILLEGAL, answer
    assert rig.page.words[WRITE_POSITION] == before
