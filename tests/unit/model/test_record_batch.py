"""Log-ready batches: what is encoded passes the check, what is damaged does not harm the log."""

import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmq.base.errors import MessageIllegal
from shmq.model import record as layout
from shmq.model.host import pack_host
from shmq.model.message_ext import MessageExt
from shmq.model.message_id import KeyBlock, unique_key_block
from shmq.model.record import check_record, encode_record, iter_records, parse_record
from shmq.model.record_batch import check_batch, encode_batch, stamp_batch, stamp_hosts
from shmq.model.subscription import java_hash

TOPIC = b"TopicTest"
KEYS = KeyBlock("7F00000112340000AABBCCDDEEFF")
TAG_A = b"TAGS\x01TagA\x02"


def batch(bodies, properties=TAG_A, keys=KEYS, **more):
    return encode_batch(
        topic=TOPIC, queue_id=3, bodies=bodies, properties=properties, born_timestamp=17, keys=keys, **more
    )


def check(buffer, sizes, *, topic=TOPIC, queue_id=3, max_body=1024):
    return check_batch(buffer, sizes, topic, queue_id, max_body)


BATCHES = {
    "one length": ([b"a" * 10] * 20, TAG_A),
    "one length without tag": ([b"a" * 10] * 20, b""),
    "bodies of many lengths": ([b"a" * (1 + i) for i in range(20)], TAG_A),
    "tags of one length": ([b"a" * 10] * 20, [b"TAGS\x01Tag%d\x02" % (i % 5) for i in range(20)]),
    "properties of many lengths": (
        [b"a" * 10] * 20,
        [b"TAGS\x01%b\x02KEYS\x01k%d\x02" % (b"t" * (1 + i % 3), i) for i in range(20)],
    ),
    "a single record": ([b"x"], TAG_A),
}


@pytest.mark.parametrize("bodies,properties", BATCHES.values(), ids=BATCHES.keys())
def test_an_encoded_batch_passes_the_check_and_reads_back(bodies, properties):
    buffer, sizes = batch(bodies, properties)
    found = check(buffer, sizes)
    assert not found.needs_slow_path
    stamp_batch(buffer, found.starts, 70, 4096, 99, pack_host("10.0.0.2", 10911), pack_host("10.0.0.1", 5))
    messages = [MessageExt(record) for record in iter_records(buffer)]
    assert [bytes(message.body) for message in messages] == bodies
    assert [message.queue_offset for message in messages] == list(range(70, 70 + len(bodies)))
    assert [message.physical_offset for message in messages] == (4096 + found.starts).tolist()
    assert [message.msg_id for message in messages] == [KEYS[i] for i in range(len(bodies))]
    assert found.tags_codes.tolist() == [java_hash(m.tags) if m.tags else 0 for m in messages]
    assert {(m.store_timestamp, m.born_timestamp, m.store_host, m.born_host, m.topic) for m in messages} == {
        (99, 17, "10.0.0.2:10911", "10.0.0.1:5", "TopicTest")
    }
    position = 0
    for size in sizes:
        assert check_record(buffer, position, len(buffer)) == size
        position += size


def test_a_batch_record_equals_the_record_encoded_alone():
    buffer, _ = batch([b"body-1", b"body-2"], [TAG_A, TAG_A], keys=None, flags=[5, 6], sys_flags=0x301)
    alone = [
        encode_record(
            topic=TOPIC, body=body, properties=TAG_A, queue_id=3, born_timestamp=17, flag=flag, sys_flag=0x301
        )
        for body, flag in ((b"body-1", 5), (b"body-2", 6))
    ]
    # hosts are the broker's to stamp: a batch leaves them zero
    for record in alone:
        record[48:56] = record[64:72] = bytes(8)
    assert bytes(buffer) == b"".join(alone)


def test_a_kept_buffer_is_written_into_when_large_enough():
    kept = bytearray(10_000)
    view, sizes = batch([b"b" * 100] * 10, buffer=kept)
    assert view.obj is kept and len(view) == sum(sizes)
    assert bytes(view) == bytes(batch([b"b" * 100] * 10)[0])
    larger, _ = batch([b"b" * 1000] * 10, buffer=kept)
    assert isinstance(larger, bytearray)


def test_an_empty_body_is_refused_when_encoding():
    with pytest.raises(MessageIllegal, match="message 1 of the batch has an empty body"):
        batch([b"a", b"", b"c"])


def test_a_dirty_buffer_leaves_no_trace():
    kept = bytearray(b"\xff" * 50_000)
    for bodies in ([b"b" * 100] * 10, [b"c" * 3000] * 10):
        assert bytes(batch(bodies, buffer=kept)[0]) == bytes(batch(bodies)[0])


def test_large_bodies_are_encoded_like_small_ones():
    bodies = [bytes([i]) * 40_000 for i in range(5)]
    buffer, sizes = batch(bodies)
    check(buffer, sizes, max_body=40_000)
    assert [bytes(MessageExt(record).body) for record in iter_records(buffer)] == bodies


def test_keys_of_a_block_are_32_hex_digits_and_differ_between_blocks():
    first, second = unique_key_block(), unique_key_block()
    assert len(first[0]) == 32 and set(first[65535]) <= set("0123456789ABCDEF")
    assert first[0] != first[1] and first.prefix != second.prefix


@pytest.mark.parametrize(
    "offset,value,reason",
    [
        (layout.TOTAL_SIZE_AT, 5, "total size"),
        (layout.MAGIC_AT, layout.MAGIC_V2, "magic"),
        (layout.QUEUE_ID_AT, 4, "queue id"),
        (layout.SYS_FLAG_AT, 0x4, "sysFlag"),
        (layout.SYS_FLAG_AT, 0x10, "sysFlag"),
        (layout.SYS_FLAG_AT, 0x80, "sysFlag"),
        (layout.RECONSUME_TIMES_AT, 1, "reconsume"),
        (layout.PREPARED_TRANSACTION_OFFSET_AT + 4, 1, "prepared"),
        (layout.BODY_LENGTH_AT, 0, "body"),
        (layout.BODY_LENGTH_AT, -1, "body"),
        (layout.BODY_LENGTH_AT, 2**31 - 1, "body"),
        (layout.BODY_LENGTH_AT, 500, "body length does not fit"),
        (layout.BODY_LENGTH_AT, 11, "topic"),
        (layout.BODY_CRC_AT, 1, "CRC"),
    ],
)
@pytest.mark.parametrize("victim", [0, 7, 19])
def test_a_wrong_field_refuses_the_whole_batch_and_names_the_record(offset, value, reason, victim):
    buffer, sizes = batch([b"a" * 10] * 20)
    struct.pack_into(">i", buffer, victim * sizes[0] + offset, value)
    with pytest.raises(MessageIllegal, match=rf"record {victim}: .*{reason}"):
        check(buffer, sizes)


def test_another_topic_or_too_large_a_body_is_refused():
    buffer, sizes = batch([b"a" * 10] * 3)
    with pytest.raises(MessageIllegal, match="topic"):
        check(buffer, sizes, topic=b"TopicTesu")
    with pytest.raises(MessageIllegal, match=r"topic|too small"):
        check(buffer, sizes, topic=b"TopicTest2")
    with pytest.raises(MessageIllegal, match="over 9 bytes"):
        check(buffer, sizes, max_body=9)


@pytest.mark.parametrize("sizes", [[], [10], [-1], [2**40]])
def test_sizes_that_do_not_add_up_are_refused(sizes):
    buffer, _ = batch([b"a" * 10] * 3)
    with pytest.raises(MessageIllegal):
        check(buffer, sizes)


def test_sizes_that_add_up_by_a_negative_member_are_refused():
    buffer, sizes = batch([b"a" * 10] * 3)
    with pytest.raises(MessageIllegal, match="too small"):
        check(buffer, [len(buffer) + 1000, -1000])
    with pytest.raises(MessageIllegal):
        check(buffer, [sizes[0] - 1, sizes[1] + 1, sizes[2]])


@pytest.mark.parametrize(
    "more",
    [
        b"DELAY\x013\x02",
        b"TIMER_DELAY_SEC\x013\x02",
        b"TRAN_MSG\x01true\x02",
        b"REAL_TOPIC\x01x\x02",
        b"INNER_NUM\x012\x02",
        b"__CRC32#\x010000000000\x02",
        b"RETRY_TOPIC\x01x\x02",
        b"TAGS\x01second\x02",
    ],
)
@pytest.mark.parametrize("uniform", [True, False])
def test_a_property_of_the_brokers_own_sends_the_batch_down_the_ordinary_path(more, uniform):
    properties = TAG_A + more if uniform else [TAG_A] * 5 + [TAG_A + more]
    buffer, sizes = batch([b"a" * 10] * 6, properties)
    assert check(buffer, sizes).needs_slow_path


@pytest.mark.parametrize("properties", [b"", b"a\x01b\x02", b"DELAY\x013\x02", b"KEYS\x01k\x02TAGS\x01a\x02"])
def test_properties_that_do_not_begin_with_tag_or_key_take_the_ordinary_path(properties):
    buffer, sizes = batch([b"a" * 10] * 6, properties, keys=None)
    assert check(buffer, sizes).needs_slow_path


@pytest.mark.parametrize("properties", [TAG_A + b"a\x01b\0c\x02", [TAG_A] * 5 + [TAG_A + b"a\x01b\0c\x02"]])
def test_a_nul_in_the_properties_is_refused_as_recovery_would(properties):
    buffer, sizes = batch([b"a" * 10] * 6, properties)
    with pytest.raises(MessageIllegal, match="NUL"):
        check(buffer, sizes)


def test_a_nul_in_one_value_of_otherwise_equal_properties_is_refused():
    buffer, sizes = batch([b"a" * 10] * 6)
    at = buffer.rindex(b"UNIQ_KEY\x01") + 15
    buffer[at] = 0
    with pytest.raises(MessageIllegal, match="record 5: properties hold a NUL"):
        check(buffer, sizes)


def test_a_separator_hidden_in_a_value_cannot_bring_in_a_reserved_name():
    buffer, sizes = batch([b"a" * 10] * 6, TAG_A + b"note\x01xDELAY_13\x02")
    at = buffer.rindex(b"xDELAY_13")
    buffer[at : at + 9] = b"\x02DELAY\x0113"
    assert check(buffer, sizes).needs_slow_path


def test_properties_over_the_limit_are_refused_when_encoding():
    with pytest.raises(MessageIllegal, match="32767"):
        batch([b"a"], TAG_A + b"x\x01" + b"y" * 32767 + b"\x02")


def test_a_tag_outside_ascii_gets_the_hash_of_its_utf16_units():
    buffer, sizes = batch([b"a"] * 4, "TAGS\x01中文\x02".encode())
    assert check(buffer, sizes).tags_codes.tolist() == [646394] * 4


def test_hosts_can_be_stamped_before_the_offsets():
    buffer, sizes = batch([b"a" * 10] * 3)
    starts = check(buffer, sizes).starts
    stamp_hosts(buffer, starts, pack_host("1.2.3.4", 5), pack_host("6.7.8.9", 10))
    stamp_batch(buffer, starts, 1, 2, 3)
    assert {(m.store_host, m.born_host) for m in map(MessageExt, iter_records(buffer))} == {
        ("1.2.3.4:5", "6.7.8.9:10")
    }


SHAPES = {name: batch(bodies, properties) for name, (bodies, properties) in BATCHES.items()}
SHAPES["random bodies"] = batch([os.urandom(40) for _ in range(8)], TAG_A + b"WAIT\x01true\x02")


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(sorted(SHAPES)), st.data())
def test_a_flipped_byte_is_refused_or_leaves_a_log_that_can_be_read_to_its_end(name, data):
    buffer, sizes = bytearray(SHAPES[name][0]), SHAPES[name][1]
    buffer[data.draw(st.integers(0, len(buffer) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = check(buffer, sizes)
    except MessageIllegal:
        return
    stamp_batch(buffer, found.starts, 1, 2, 3, bytes(8), bytes(8))
    at = 0
    for index, size in enumerate(sizes):
        assert check_record(buffer, at, len(buffer)) == size
        fields = parse_record(buffer, at)
        assert 0 not in buffer[fields.properties_at : fields.end]
        message = MessageExt(memoryview(buffer)[at : at + size])
        assert message.topic == "TopicTest" and message.body_crc_ok()
        if not found.needs_slow_path:
            assert found.tags_codes[index] == (java_hash(message.tags) if message.tags else 0)
        at += size


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.lists(st.integers(-(2**31), 2**31), max_size=4))
def test_random_bytes_are_refused(raw, sizes):
    with pytest.raises(MessageIllegal):
        check(raw, sizes)


def test_a_batch_with_more_messages_than_a_block_has_keys_is_refused_when_encoding():
    with pytest.raises(MessageIllegal, match="at most 65536"):
        batch([b"x"] * 65537)
