"""The CommitLog record against vectors made by RocketMQ's own decoder, and against damage."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.base.errors import MessageIllegal
from shmq.model.host import pack_host
from shmq.model.record import (
    BODY_AT,
    MAGIC_V1,
    MAGIC_V2,
    RECORD_OVERHEAD_V1,
    check_record,
    encode_blank,
    encode_record,
    iter_records,
    parse_record,
    record_size,
    stamp_record,
)
from shmq.model.sys_flag import BORN_HOST_V6, STORE_HOST_V6

SAMPLE = bytes.fromhex(
    "00000073 DAA320A7 77D18982 00000003 00000000 0000000000000007 0000000000000400 00000000"
    "0000018BCFE56800 0A000001 0000C350 0000018BCFE5687B 0A000002 00002A9F 00000000 0000000000000000"
    "00000005 48656C6C6F 01 54 0012 4B455953016B3102 54414753015461674102"
)
PROPERTIES = b"KEYS\x01k1\x02TAGS\x01TagA\x02"


def sample_record() -> bytearray:
    record = encode_record(
        topic=b"T",
        body=b"Hello",
        properties=PROPERTIES,
        queue_id=3,
        born_timestamp=1700000000000,
        born_host=pack_host("10.0.0.1", 50000),
        store_host=pack_host("10.0.0.2", 10911),
    )
    stamp_record(record, 0, 7, 1024, 1700000000123)
    return record


def test_an_encoded_and_stamped_record_equals_the_vector_of_the_original_decoder():
    assert bytes(sample_record()) == SAMPLE


def test_stamped_fields_are_zero_before_stamping():
    record = encode_record(topic=b"T", body=b"x", properties=b"", queue_id=0, born_timestamp=1)
    fields = parse_record(record)
    assert (fields.queue_offset, fields.physical_offset, fields.store_timestamp) == (0, 0, 0)
    assert fields.size == RECORD_OVERHEAD_V1 + 2


def test_parse_finds_every_part_of_a_record():
    fields = parse_record(b"junk" + SAMPLE + b"more", 4)
    assert fields.size == 115 and fields.magic == MAGIC_V1
    assert (fields.queue_id, fields.queue_offset, fields.physical_offset) == (3, 7, 1024)
    assert (fields.born_timestamp, fields.store_timestamp) == (1700000000000, 1700000000123)
    assert fields.born_host == pack_host("10.0.0.1", 50000)
    assert fields.body_at == 4 + BODY_AT and fields.body_length == 5
    assert fields.end == 4 + len(SAMPLE)


@pytest.mark.parametrize("born", ["10.0.0.1", "fe80::1"])
@pytest.mark.parametrize("store", ["10.0.0.2", "::1"])
def test_hosts_of_both_families_are_encoded_with_their_flag_and_stamped_at_their_place(born, store):
    record = encode_record(
        topic=b"topic",
        body=b"body",
        properties=PROPERTIES,
        queue_id=1,
        born_timestamp=5,
        born_host=pack_host(born, 1),
        store_host=pack_host(store, 2),
    )
    stamp_record(record, 0, 11, 12, 13)
    fields = parse_record(record)
    assert bool(fields.sys_flag & BORN_HOST_V6) == (":" in born)
    assert bool(fields.sys_flag & STORE_HOST_V6) == (":" in store)
    assert (fields.queue_offset, fields.physical_offset, fields.store_timestamp) == (11, 12, 13)
    assert (fields.born_host, fields.store_host) == (pack_host(born, 1), pack_host(store, 2))
    assert record[fields.topic_at : fields.topic_at + fields.topic_length] == b"topic"
    assert check_record(record, 0, len(record)) == len(record)


def test_a_topic_over_127_bytes_takes_the_second_version():
    topic = b"%RETRY%" + b"g" * 130
    record = encode_record(topic=topic, body=b"b", properties=b"", queue_id=0, born_timestamp=0)
    fields = parse_record(record)
    assert fields.magic == MAGIC_V2 and fields.topic_length == len(topic)
    assert record[fields.topic_at : fields.topic_at + fields.topic_length] == topic
    assert check_record(record, 0, len(record)) == len(record)


def test_a_number_out_of_range_is_the_senders_fault():
    with pytest.raises(MessageIllegal, match="does not fit"):
        encode_record(topic=b"T", body=b"b", properties=b"", queue_id=1 << 31, born_timestamp=0)


def test_check_tells_record_blank_and_garbage_apart():
    blank = encode_blank(4096) + bytes(100)
    assert blank[:8] == bytes.fromhex("00001000CBD43194")
    assert check_record(SAMPLE, 0, len(SAMPLE)) == 115
    assert check_record(blank, 0, len(blank)) == 0
    assert check_record(bytes(200), 0, 200) == -1
    assert check_record(SAMPLE, 0, 7) == -1


def test_check_sees_every_truncation():
    for end in range(len(SAMPLE)):
        assert check_record(SAMPLE, 0, end) == -1


def test_check_sees_a_damaged_body_unless_told_not_to():
    damaged = bytearray(SAMPLE)
    damaged[BODY_AT] ^= 1
    assert check_record(damaged, 0, len(damaged)) == -1
    assert check_record(damaged, 0, len(damaged), check_crc=False) == 115


@pytest.mark.parametrize("position", [0, 4, 84, 93, 95])
@pytest.mark.parametrize("value", [-1, 0, 2**31 - 1, -(2**31)])
def test_a_wrong_length_anywhere_is_refused_not_followed(position, value):
    damaged = bytearray(SAMPLE)
    struct.pack_into(">i", damaged, position, value)
    with pytest.raises(MessageIllegal):
        parse_record(damaged)
    assert check_record(damaged, 0, len(damaged)) == -1


@given(st.data())
def test_a_flipped_byte_never_moves_the_end_of_an_accepted_record(data):
    damaged = bytearray(SAMPLE)
    position = data.draw(st.integers(0, len(SAMPLE) - 1))
    damaged[position] ^= data.draw(st.integers(1, 255))
    size = check_record(damaged, 0, len(damaged))
    assert size in (-1, 0, 115)


@given(st.binary(max_size=300))
def test_random_bytes_are_no_record(raw):
    assert check_record(raw, 0, len(raw)) <= 0


def test_iteration_yields_each_record_and_refuses_a_rest():
    two = SAMPLE + bytes(sample_record())
    assert [bytes(view) for view in iter_records(two)] == [SAMPLE, SAMPLE]
    assert record_size(two, 115) == 115
    with pytest.raises(MessageIllegal):
        list(iter_records(two + b"\0\0"))
    with pytest.raises(MessageIllegal):
        list(iter_records(two[:-1]))
