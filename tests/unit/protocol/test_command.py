"""Commands in all three serializations: whole, truncated, with trailing bytes, and RocketMQ's own vectors."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmq.base.errors import FrameFault, InvalidParameter
from shmq.protocol.codes import VERSION, LanguageCode, RequestCode, ResponseCode
from shmq.protocol.command import Command, Serialization, decode_frame, encode_command, next_opaque
from shmq.protocol.frame import FRAME_BYTES_MAX
from shmq.protocol.headers.naming import GetRouteInfoHeader
from shmq.protocol.headers.offset import QueryConsumerOffsetHeader
from shmq.protocol.headers.pull import PullMessageResponseHeader
from shmq.protocol.headers.send import SendMessageHeader, SendMessageV2Header

JSON_VECTOR = (
    bytes.fromhex("000000800000007C")
    + b'{"code":105,"extFields":{"topic":"T1"},"flag":0,"language":"JAVA","opaque":7,'
    + b'"serializeTypeCurrentRPC":"JSON","version":479}'
)
BINARY_VECTOR = bytes.fromhex(
    "00000026 01000022 0069 00 01DF 00000007 00000000 00000000 0000000D 0005 746F706963 00000002 5431"
)
CBOR_VECTOR = bytes.fromhex("00000012 0200000E 87 01 1869 00 07 F6 83 01 625431 F4 F6")
VECTORS = {"json": JSON_VECTOR, "binary": BINARY_VECTOR}

SEND = {
    "producer_group": "group",
    "topic": "T",
    "default_topic": "TBW102",
    "default_topic_queue_nums": 4,
    "queue_id": -1,
    "sys_flag": 0,
    "born_timestamp": 1700000000000,
    "flag": -5,
    "properties": "UNIQ_KEY\x01AB\x02TAGS\x01ä\x7f\x02",
    "max_reconsume_times": 3,
}


def frame_of(command):
    return b"".join(encode_command(command))


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
def test_rocketmqs_own_frames_are_read(vector):
    command = decode_frame(vector)
    assert (command.code, command.opaque, command.flag, command.version) == (105, 7, 0, 479)
    assert command.language == LanguageCode.JAVA and command.remark is None and command.body is None
    assert command.read_header(GetRouteInfoHeader) == GetRouteInfoHeader("T1")


@pytest.mark.parametrize("serialization,vector", [(0, JSON_VECTOR), (1, BINARY_VECTOR)])
def test_the_same_frames_are_written_byte_for_byte(serialization, vector):
    command = Command(105, opaque=7, language=0, ext={"topic": "T1"}, serialization=serialization)
    assert frame_of(command) == vector


def test_the_bytes_of_a_cbor_frame_are_these():
    command = Command(105, opaque=7, header=GetRouteInfoHeader("T1"))
    assert frame_of(command) == CBOR_VECTOR
    assert decode_frame(CBOR_VECTOR).read_header(GetRouteInfoHeader) == GetRouteInfoHeader("T1")


@pytest.mark.parametrize("serialization", Serialization)
@pytest.mark.parametrize("header_class", [SendMessageHeader, SendMessageV2Header])
@pytest.mark.parametrize("body", [None, b"", b"body", [b"two ", memoryview(b"parts")]])
def test_a_request_arrives_as_it_was_sent(serialization, header_class, body):
    request = Command.request(
        RequestCode.SEND_MESSAGE_V2,
        header_class(**SEND),
        body,
        ext={"bname": "b"},
        serialization=serialization,
    )
    found = decode_frame(frame_of(request))
    assert (found.code, found.opaque, found.flag) == (310, request.opaque, 0)
    assert (found.serialization, found.version, found.language) == (
        serialization,
        VERSION,
        LanguageCode.PYTHON,
    )
    assert found.read_header(SendMessageHeader) == SendMessageHeader(**SEND)
    assert found.ext_value("bname") == "b" and found.ext_value("none") is None
    assert found.body_bytes() == request.body_bytes()
    assert not found.is_response and not found.is_oneway


@pytest.mark.parametrize("serialization", Serialization)
def test_a_response_has_the_opaque_and_serialization_of_its_request(serialization):
    request = decode_frame(frame_of(Command.request(11, serialization=serialization, oneway=True)))
    assert request.is_oneway
    header = PullMessageResponseHeader(0, 5, 1, 9)
    response = decode_frame(frame_of(request.response(ResponseCode.PULL_NOT_FOUND, "no more", header, b"x")))
    assert response.is_response and not response.is_oneway
    assert (response.opaque, response.serialization) == (request.opaque, serialization)
    assert (response.code, response.remark, response.body) == (19, "no more", b"x")
    assert response.read_header(PullMessageResponseHeader) == header


@pytest.mark.parametrize("serialization", Serialization)
def test_a_command_without_header_reads_a_header_without_mandatory_fields_only(serialization):
    found = decode_frame(frame_of(Command.request(14, serialization=serialization)))
    with pytest.raises(InvalidParameter, match="consumerGroup is missing"):
        found.read_header(QueryConsumerOffsetHeader)


def test_body_buffers_are_passed_on_uncopied():
    view = memoryview(b"view")
    buffers = encode_command(Command.request(10, None, [b"one", view]))
    assert buffers[1] == b"one" and buffers[2] is view


def test_the_body_of_a_received_frame_is_a_view_into_it():
    frame = frame_of(Command.request(10, None, b"body"))
    assert decode_frame(frame).body.obj is frame


@pytest.mark.parametrize("serialization", Serialization)
def test_a_frame_of_any_other_length_than_it_says_is_refused(serialization):
    frame = frame_of(Command.request(10, SendMessageHeader(**SEND), b"body", serialization=serialization))
    for end in range(len(frame)):
        with pytest.raises(FrameFault):
            decode_frame(frame[:end])
    with pytest.raises(FrameFault):
        decode_frame(frame + b"x")


@pytest.mark.parametrize("serialization", Serialization)
def test_a_truncated_or_longer_header_is_refused(serialization):
    frame = frame_of(Command.request(10, SendMessageHeader(**SEND), serialization=serialization))
    header = frame[8:]
    for broken in [header[:end] for end in range(len(header))] + [header + b"\0", header + header]:
        with pytest.raises(FrameFault):
            decode_frame(
                (4 + len(broken)).to_bytes(4, "big")
                + bytes([serialization])
                + len(broken).to_bytes(3, "big")
                + broken
            )


@pytest.mark.parametrize("serialization", [3, 22, 255])
def test_an_unknown_serialization_is_refused(serialization):
    with pytest.raises(FrameFault, match="serialization"):
        decode_frame(bytes([0, 0, 0, 4, serialization, 0, 0, 0]))


def test_a_number_over_64_bits_is_refused_by_its_sender():
    with pytest.raises(FrameFault, match="64 bits"):
        encode_command(Command(2**64))


def test_a_received_array_can_be_sent_on_unread():
    received = decode_frame(frame_of(Command.request(10, SendMessageHeader(**SEND))))
    assert decode_frame(frame_of(received)).read_header(SendMessageHeader) == SendMessageHeader(**SEND)


def test_an_oversized_frame_is_refused_by_its_sender():
    with pytest.raises(FrameFault, match="over the limit"):
        encode_command(Command.request(10, None, bytes(FRAME_BYTES_MAX)))


def test_opaques_count_up_and_fit_31_bits():
    first, second = next_opaque(), next_opaque()
    assert second == first + 1 and 0 <= second < 2**31


@pytest.mark.parametrize("serialization", Serialization)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_mutated_frame_is_read_or_refused_never_anything_else(serialization, data):
    command = Command(
        310,
        opaque=5,
        header=SendMessageV2Header(**SEND),
        body=b"body",
        ext={"k": "v"},
        serialization=serialization,
    )
    frame = bytearray(frame_of(command))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(4, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode_frame(frame)
        found.read_header(SendMessageHeader)
    except (FrameFault, InvalidParameter):
        pass


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([0, 1, 2]), st.binary(max_size=60))
def test_a_random_header_is_read_or_refused_never_anything_else(serialization, header):
    frame = (
        (4 + len(header)).to_bytes(4, "big")
        + bytes([serialization])
        + len(header).to_bytes(3, "big")
        + header
    )
    with contextlib.suppress(FrameFault):
        decode_frame(frame)
