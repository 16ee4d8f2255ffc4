"""Messages of a pull: what is taken out of records in one go is what taking them apart one by one gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.base.errors import MessageIllegal, ShmqError
from shmq.client.pulled_message import COPIED_BYTES, PulledMessage, cut_messages, start_consuming
from shmq.model import properties as names
from shmq.model.compression import compress
from shmq.model.host import pack_host
from shmq.model.message_ext import MessageExt
from shmq.model.properties import encode_properties
from shmq.model.record import (
    BODY_AT,
    MAGIC_V1,
    RECORD_OVERHEAD_V1,
    encode_record,
    iter_records,
    parse_record,
    stamp_record,
)
from shmq.model.record_array import HEAD_DTYPE, body_ends, gathered
from shmq.model.sys_flag import BORN_HOST_V6, COMPRESSED, STORE_HOST_V6

BOUNDS = (3, 9)
ATTRIBUTES = (
    *("body", "queue_offset", "store_size", "topic", "queue_id", "physical_offset", "sys_flag"),
    *("body_crc", "born_host", "store_host", "born_timestamp", "store_timestamp", "reconsume_times"),
    *("tags", "keys", "msg_id", "transaction_id", "flag", "stored_body", "record"),
)


def record(number: int = 0, body: bytes = b"body", topic: bytes = b"T", **fields: object) -> bytes:
    properties = encode_properties({"TAGS": "TagA", "UNIQ_KEY": f"K{number}"})
    made = encode_record(
        **{
            "topic": topic,
            "body": body,
            "properties": properties,
            "queue_id": 1,
            "born_timestamp": 5,
            **fields,
        }  # type: ignore[arg-type]
    )
    stamp_record(made, 0, number, number * 1000, 6)
    return bytes(made)


def seen(message: MessageExt, name: str) -> object:
    try:
        value = getattr(message, name)
    except ShmqError as refusal:
        return type(refusal)
    return bytes(value) if isinstance(value, memoryview) else value


def cut(*records: bytes) -> list[PulledMessage]:
    return cut_messages(memoryview(b"".join(records)), "broker-a", BOUNDS)


hosts = st.sampled_from([pack_host("10.0.0.1", 1), pack_host("fe80::1", 1)])
changes = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=3)
records = st.lists(
    st.builds(
        lambda body, topic, properties, packed, host, changed: changed_record(
            encode_record(
                topic=topic,
                body=compress(body) if packed else body,
                properties=properties,
                queue_id=0,
                born_timestamp=1,
                sys_flag=COMPRESSED if packed else 0,
                born_host=host,
            ),
            changed,
        ),
        st.binary(max_size=40),
        st.binary(min_size=1, max_size=140),
        st.binary(max_size=300),
        st.booleans(),
        hosts,
        changes,
    ),
    max_size=4,
)
"""Records of every kind, some of them damaged anywhere but in their first size."""


def changed_record(encoded: bytearray, changed: list[tuple[int, int]]) -> bytes:
    for at, value in changed:
        encoded[4 + at % (len(encoded) - 4)] = value
    return bytes(encoded)


@given(records)
def test_each_message_shows_what_its_record_alone_does(parts: list[bytes]) -> None:
    for found, part in zip(cut(*parts), parts, strict=True):
        try:
            alone = MessageExt(part)
        except MessageIllegal:
            assert seen(found, "body") is seen(found, "topic") is MessageIllegal
            continue
        for name in ATTRIBUTES:
            assert seen(found, name) == seen(alone, name), name


@given(records, st.integers(0, 2000), st.integers(0, 255))
def test_sizes_are_followed_as_far_as_they_fit(parts: list[bytes], at: int, value: int) -> None:
    whole = bytearray(b"".join(parts))
    if whole:
        whole[at % len(whole)] = value
    try:
        alone = list(iter_records(whole))
    except MessageIllegal:
        with pytest.raises(MessageIllegal):
            cut(bytes(whole))
    else:
        assert [bytes(message.record) for message in cut(bytes(whole))] == alone


@given(st.lists(st.tuples(st.binary(max_size=20), changes), min_size=1, max_size=4))
def test_arrays_find_bodies_where_each_record_has_its_own(
    parts: list[tuple[bytes, list[tuple[int, int]]]],
) -> None:
    made = [changed_record(bytearray(record(body=body)), changed) for body, changed in parts]
    sizes = np.array([len(part) for part in made])
    ends = np.cumsum(sizes)
    starts = ends - sizes
    whole = b"".join(made)
    heads = gathered(whole, BODY_AT, starts).view(HEAD_DTYPE).ravel()
    found = body_ends(whole, heads, starts, ends)
    try:
        fields = [parse_record(part) for part in made]
    except MessageIllegal:
        assert found is None
        return
    plain = all(
        (own.size, own.magic) == (len(part), MAGIC_V1)
        and own.body_length
        and not own.sys_flag & (BORN_HOST_V6 | STORE_HOST_V6)
        for own, part in zip(fields, made, strict=True)
    )
    expected = [start + own.topic_at - 1 for start, own in zip(starts.tolist(), fields, strict=True)]
    assert (found.tolist() if found is not None else None) == (expected if plain else None)


def overlong(topic_length: int, properties_length: int) -> bytes:
    """A V1 record whose lengths add up, though one of them is over its limit."""
    made = bytearray(encode_record(topic=b"", body=b"body", properties=b"", queue_id=1, born_timestamp=5))[
        :-3
    ]
    made += bytes((topic_length,)) + b"T" * topic_length + properties_length.to_bytes(2, "big")
    made += b"p" * properties_length
    made[:4] = len(made).to_bytes(4, "big")
    return bytes(made)


@pytest.mark.parametrize("lengths", [(128, 0), (1, 0x8000)])
def test_lengths_over_their_limits_are_no_message(lengths: tuple[int, int]) -> None:
    sound, part = record(), overlong(*lengths)
    good, bad = cut(sound, part)
    assert good.body == b"body" and seen(bad, "body") is MessageIllegal
    starts = np.array([0, len(sound)])
    ends = np.array([len(sound), len(sound) + len(part)])
    heads = gathered(sound + part, BODY_AT, starts).view(HEAD_DTYPE).ravel()
    assert body_ends(sound + part, heads, starts, ends) is None
    assert body_ends(sound, heads[:1], starts[:1], ends[:1]) is not None


def test_bodies_of_large_records_wait_until_they_are_looked_at() -> None:
    body = b"x" * COPIED_BYTES
    received = memoryview(record(0, body) + record(1, b"small"))
    large, small = cut_messages(received, "broker-a", BOUNDS)
    assert large.stored_body.obj is received.obj, "nothing was copied"
    assert (large.body, small.body) == (body, b"small") and large.body is large.body


def test_compressed_bodies_are_given_as_they_were_sent() -> None:
    packed = compress(b"z" * 5000)
    (message,) = cut(record(body=packed, sys_flag=COMPRESSED))
    assert (message.body, bytes(message.stored_body)) == (b"z" * 5000, packed)


def test_a_message_knows_its_broker_and_its_queue_s_bounds() -> None:
    first, second = cut(record(4), record(5))
    assert first.broker_name == second.broker_name == "broker-a"
    assert (first.properties[names.MIN_OFFSET], first.properties[names.MAX_OFFSET]) == ("3", "9")
    assert (first.queue_offset, second.queue_offset) == (4, 5)
    assert first.store_size == len(record(4)) > RECORD_OVERHEAD_V1
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        first.colour  # noqa: B018


def test_the_start_of_consumption_is_a_property_read_before_or_after() -> None:
    early, late = cut(record(0), record(1))
    assert names.CONSUME_START_TIME not in early.properties and early.consume_start_ms == 0
    start_consuming([early, late], 77)
    assert early.properties[names.CONSUME_START_TIME] == late.properties[names.CONSUME_START_TIME] == "77"
    assert early.consume_start_ms == late.consume_start_ms == 77


def test_tries_made_here_count_beside_those_of_the_broker() -> None:
    (message,) = cut(record(reconsume_times=2))
    message.count_local_retry()
    assert message.reconsume_times == 3
