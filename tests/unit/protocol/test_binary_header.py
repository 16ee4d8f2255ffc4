"""The ROCKETMQ binary header."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.base.errors import FrameFault
from shmq.protocol.binary_header import decode_binary_header, encode_binary_header

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.integers(-(2**15), 2**15 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.none() | texts.filter(bool),
    st.none() | st.dictionaries(texts, texts, min_size=1, max_size=5),
)
def test_what_is_written_is_read(code, opaque, remark, ext):
    raw = encode_binary_header(code, 1, opaque, 3, 479, remark, ext)
    assert decode_binary_header(memoryview(raw)) == (code, 1, opaque, 3, 479, remark, ext)


def test_no_remark_and_no_ext_travel_as_length_zero():
    raw = encode_binary_header(105, 0, 7, 0, 479, "", {})
    assert raw == bytes.fromhex("0069 00 01DF 00000007 00000000 00000000 00000000")
    assert decode_binary_header(memoryview(raw))[5:] == (None, None)


@pytest.mark.parametrize("code", [32768, 200050, -40000])
def test_a_code_that_does_not_fit_16_bits_is_refused_when_written(code):
    with pytest.raises(FrameFault, match="does not fit"):
        encode_binary_header(code, 0, 0, 0, 0, None, None)


@pytest.mark.parametrize("position", [13, 17, 28])
@pytest.mark.parametrize("length", [-1, 1000, 2**31 - 1, -(2**31), 3])
def test_a_wrong_length_is_refused(position, length):
    raw = bytearray(encode_binary_header(105, 0, 7, 0, 479, None, {"topic": "T1"}))
    struct.pack_into(">i", raw, position, length)
    with pytest.raises(FrameFault):
        decode_binary_header(memoryview(raw))


def test_every_truncation_and_every_tail_is_refused():
    raw = encode_binary_header(105, 0, 7, 0, 479, "remark", {"topic": "T1", "x": ""})
    for end in range(len(raw)):
        with pytest.raises(FrameFault):
            decode_binary_header(memoryview(raw[:end]))
    with pytest.raises(FrameFault):
        decode_binary_header(memoryview(raw + b"\0"))


def test_bytes_that_are_no_utf8_are_refused():
    raw = encode_binary_header(105, 0, 7, 0, 479, None, {"topic": "T1"}).replace(b"T1", b"\xff\xfe")
    with pytest.raises(FrameFault):
        decode_binary_header(memoryview(raw))
