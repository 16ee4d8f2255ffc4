"""Typed headers: every class through every codec, and the checks of the table."""

import dataclasses
import importlib
import inspect
import pkgutil
from dataclasses import dataclass

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmq.base.errors import InvalidParameter
from shmq.protocol import grant, headers, internal
from shmq.protocol.command import decode_frame
from shmq.protocol.header_table import HEADER_VERSION, I32, I64, codec_of, table_of
from shmq.protocol.headers.client import UnregisterClientHeader
from shmq.protocol.headers.log_batch import SendLogBatchHeader, pack_sizes
from shmq.protocol.headers.offset import QueryConsumerOffsetHeader
from shmq.protocol.headers.pull import PullMessageHeader
from shmq.protocol.headers.send import SendMessageHeader, SendMessageResponseHeader, SendMessageV2Header
from shmq.protocol.send_answer import pack_send_answer

MODULES = [
    importlib.import_module(f"shmq.protocol.headers.{m.name}") for m in pkgutil.iter_modules(headers.__path__)
]
CLASSES = [
    found
    for module in (*MODULES, internal, grant)
    for name, found in inspect.getmembers(module, inspect.isclass)
    if found.__module__ == module.__name__ and dataclasses.is_dataclass(found) and name.endswith("Header")
]
OWN_RULES = {SendLogBatchHeader, UnregisterClientHeader}

KINDS = {
    "str": st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    "bool": st.booleans(),
    "bytes": st.binary(min_size=1, max_size=10),
    "i32": st.integers(-(2**31), 2**31 - 1),
    "i64": st.integers(-(2**63), 2**63 - 1),
}


def fields_of(header):
    """The positional array as a peer's decoder sees it."""
    return cbor2.loads(codec_of(type(header)).to_cbor(header))


def any_header(data, header_class):
    values = {}
    for row in table_of(header_class):
        choice = KINDS[row.kind] if row.mandatory else st.just(row.default) | KINDS[row.kind]
        values[row.name] = data.draw(choice)
    return header_class(**values)


@pytest.mark.parametrize("header_class", [c for c in CLASSES if c not in OWN_RULES], ids=lambda c: c.__name__)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_header_survives_both_forms(header_class, data):
    header = any_header(data, header_class)
    codec = codec_of(header_class)
    fields = fields_of(header)
    assert fields[0] == HEADER_VERSION and len(fields) == len(codec.table) + 1
    assert codec.from_fields(fields) == header
    ext = codec.to_ext(header)
    assert all(type(value) is str for value in ext.values())
    assert codec.from_ext(ext) == header


@pytest.mark.parametrize("header_class", CLASSES, ids=lambda c: c.__name__)
def test_mandatory_fields_come_first_and_wire_names_are_unique(header_class):
    table = table_of(header_class)
    assert len({row.wire for row in table}) == len(table)
    assert [row.mandatory for row in table] == sorted((row.mandatory for row in table), reverse=True)
    assert "__slots__" in vars(header_class)


SEND = SendMessageHeader("g", "t", "TBW102", 4, 0, 0, 17, 0, "p\x01q\x02", batch=True)


def test_the_send_header_has_rocketmqs_names_long_and_short():
    long = codec_of(SendMessageHeader).to_ext(SEND)
    assert list(long) == [
        *(
            "producerGroup",
            "topic",
            "defaultTopic",
            "defaultTopicQueueNums",
            "queueId",
            "sysFlag",
            "bornTimestamp",
        ),
        *("flag", "properties", "reconsumeTimes", "unitMode", "batch"),
    ]
    short = codec_of(SendMessageV2Header).to_ext(SEND)
    assert list(short) == list("abcdefghijkm") and short["m"] == "true" and short["k"] == "false"
    for header_class in (SendMessageHeader, SendMessageV2Header):
        for ext in (long, short):
            found = codec_of(header_class).from_ext(ext)
            assert dataclasses.astuple(found) == dataclasses.astuple(SEND)


@pytest.mark.parametrize(
    "name,text",
    [
        ("queueId", "x"),
        ("queueId", ""),
        ("queueId", "2147483648"),
        ("queueId", "1.5"),
        ("queueId", "9" * 5000),
        ("queueOffset", "9223372036854775808"),
        ("topic", None),
        ("commitOffset", None),
    ],
)
def test_a_wrong_or_missing_text_names_its_field(name, text):
    codec = codec_of(PullMessageHeader)
    ext = codec.to_ext(PullMessageHeader("g", "t", 0, 0, 32, 0, 0, 0, 0))
    ext.pop(name)
    if text is not None:
        ext[name] = text
    with pytest.raises(InvalidParameter, match=rf"PullMessageHeader: field {name} is") as caught:
        codec.from_ext(ext)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "position,value",
    [
        (1, 5),
        (1, None),
        (1, b"g"),
        (3, "0"),
        (3, True),
        (3, 2**31),
        (3, None),
        (4, 2**63),
        (3, 1.0),
        (10, 5),
        (10, b""),
    ],
)
def test_a_wrong_or_missing_value_names_its_field(position, value):
    codec = codec_of(PullMessageHeader)
    fields = fields_of(PullMessageHeader("g", "t", 0, 0, 32, 0, 0, 0, 0, "sub"))
    fields[position] = value
    with pytest.raises(InvalidParameter, match=codec.table[position - 1].wire):
        codec.from_fields(fields)


@pytest.mark.parametrize(
    "fields", [[], [0, "g", "t", 1], ["1", "g", "t", 1], [None], [True, "g", "t", 1, None]]
)
def test_an_array_that_does_not_begin_with_its_version_is_refused(fields):
    with pytest.raises(InvalidParameter):
        codec_of(QueryConsumerOffsetHeader).from_fields(fields)


def test_a_shorter_array_takes_defaults_and_a_longer_one_is_cut():
    codec = codec_of(QueryConsumerOffsetHeader)
    expected = QueryConsumerOffsetHeader("g", "t", 1)
    assert codec.from_fields([1, "g", "t", 1]) == expected
    assert codec.from_fields([2, "g", "t", 1, None, "a later version's field", 1]) == expected
    with pytest.raises(InvalidParameter, match="queueId is missing"):
        codec.from_fields([1, "g", "t"])
    for alien in (1.5, [2], {}, cbor2.undefined):
        with pytest.raises(InvalidParameter, match="null, bool, int, text or bytes"):
            codec.from_fields([2, "g", "t", 1, None, alien])


@pytest.mark.parametrize(
    "text,value", [("true", True), ("TRUE", True), ("false", False), ("yes", False), ("", None)]
)
def test_booleans_are_read_as_java_reads_them(text, value):
    codec = codec_of(QueryConsumerOffsetHeader)
    ext = {"consumerGroup": "g", "topic": "t", "queueId": "1", "setZeroIfNotFound": text, "unknown": "x"}
    assert codec.from_ext(ext).set_zero_if_not_found is value


def test_an_empty_group_of_a_leaving_client_counts_as_absent():
    found = codec_of(UnregisterClientHeader).from_ext(
        {"clientID": "c", "producerGroup": "", "consumerGroup": "g"}
    )
    assert found == UnregisterClientHeader("c", None, "g")


def test_a_log_batch_header_keeps_sizes_and_count_together():
    header = SendLogBatchHeader("g", "t", 0, 3, pack_sizes([100, 200, 2**32 - 1]), "TBW102", 4)
    assert header.size_list() == [100, 200, 2**32 - 1]
    codec = codec_of(SendLogBatchHeader)
    assert codec.from_fields(fields_of(header)) == header
    assert codec.from_ext(codec.to_ext(header)) == header
    for count, sizes in ((0, b""), (2, bytes(4)), (-1, b""), (1, bytes(5))):
        with pytest.raises(InvalidParameter, match="sizes"):
            SendLogBatchHeader("g", "t", 0, count, sizes, "TBW102", 4)


def test_bytes_travel_as_base64_in_text_headers():
    ext = codec_of(SendLogBatchHeader).to_ext(SendLogBatchHeader("g", "t", 0, 1, b"\x01\x02\x03\x04", "d", 4))
    assert ext["sizes"] == "AQIDBA=="
    ext["sizes"] = "not base64!"
    with pytest.raises(InvalidParameter, match="base64"):
        codec_of(SendLogBatchHeader).from_ext(ext)


def test_an_annotation_without_a_kind_is_our_own_mistake():
    @dataclass(slots=True)
    class Wrong:
        values: list[int]

    with pytest.raises(TypeError, match="header fields are"):
        table_of(Wrong)


def test_a_plain_int_is_a_64_bit_number():
    @dataclass(slots=True)
    class Plain:
        a: int
        b: I64
        c: I32 | None = None

    assert [row.kind for row in table_of(Plain)] == ["i64", "i64", "i32"]


@pytest.mark.parametrize("flushed", [None, False, True])
def test_the_packed_send_answer_tells_whether_the_message_is_on_the_disk(flushed):
    answer = decode_frame(pack_send_answer(7, 1, 2, 3, flushed))
    expected = SendMessageResponseHeader("", 1, 2, physical_offset=3, flushed=flushed)
    assert answer.read_header(SendMessageResponseHeader) == expected
