"""Frames cut out of a stream: whole, byte by byte, truncated, oversized."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.base.errors import FrameFault
from shmq.protocol.frame import FRAME_BYTES_MAX, FrameDecoder


def frame(header=b"{}", body=b"", serialization=0):
    return struct.pack(">iI", 4 + len(header) + len(body), serialization << 24 | len(header)) + header + body


FRAMES = [frame(), frame(b"head", b"body"), frame(b"", b"b" * 300), frame(b"h" * 70), frame(b"", b"")]
STREAM = b"".join(FRAMES)


def test_frames_of_one_read_come_out_at_once_and_uncopied():
    decoder = FrameDecoder()
    found = decoder.feed(STREAM)
    assert found == FRAMES and decoder.buffered == 0
    assert all(view.obj is STREAM for view in found)


def test_frames_come_out_byte_by_byte():
    decoder = FrameDecoder()
    found = []
    for at in range(len(STREAM)):
        found += decoder.feed(STREAM[at : at + 1])
    assert found == FRAMES and decoder.buffered == 0


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.booleans())
def test_frames_come_out_however_the_stream_is_cut(cuts, mutable):
    decoder = FrameDecoder()
    found = []
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(edges):
        piece = STREAM[start:end]
        found += decoder.feed(bytearray(piece) if mutable else piece)
    assert found == FRAMES and decoder.buffered == 0


def test_a_frame_with_a_tail_leaves_the_tail_for_the_next_one():
    decoder = FrameDecoder()
    assert decoder.feed(FRAMES[1] + FRAMES[2][:5]) == [FRAMES[1]]
    assert decoder.buffered == 5
    assert decoder.feed(FRAMES[2][5:]) == [FRAMES[2]]


def test_a_truncated_frame_is_just_not_there_yet():
    for end in range(len(FRAMES[1])):
        decoder = FrameDecoder()
        assert decoder.feed(FRAMES[1][:end]) == [] and decoder.buffered == end


@pytest.mark.parametrize("length", [-1, -(2**31), 0, 3, FRAME_BYTES_MAX - 3, 2**31 - 1])
@pytest.mark.parametrize("split", [8, 1, 5])
def test_an_impossible_length_is_refused_at_its_eighth_byte(length, split):
    decoder = FrameDecoder()
    raw = struct.pack(">iI", length, 0)
    with pytest.raises(FrameFault):
        for at in range(0, 8, split):
            decoder.feed(raw[at : at + split])
    assert decoder.buffered <= 8


def test_the_largest_frame_is_accepted_and_costs_nothing_before_its_bytes_arrive():
    decoder = FrameDecoder()
    assert decoder.feed(struct.pack(">iI", FRAME_BYTES_MAX - 4, 10)) == []
    assert decoder.buffered == 8


def test_a_header_longer_than_its_frame_is_refused():
    with pytest.raises(FrameFault, match="header of 7 bytes"):
        FrameDecoder().feed(struct.pack(">iI", 10, 7) + b"123456")
    with pytest.raises(FrameFault, match="over the limit"):
        FrameDecoder().feed(b"\x16\x03\x01\x02\x00\x01\x00\x01")  # a TLS client hello


def test_a_lower_limit_counts_the_length_field():
    assert FrameDecoder(12).feed(frame(b"1234")) == [frame(b"1234")]
    with pytest.raises(FrameFault, match="limit of 12"):
        FrameDecoder(12).feed(frame(b"12345"))


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_random_bytes_end_in_a_fault_or_in_waiting_never_otherwise(pieces):
    decoder = FrameDecoder()
    try:
        for piece in pieces:
            for view in decoder.feed(piece):
                assert len(view) >= 8
    except FrameFault:
        pass


def test_frames_may_be_read_right_into_their_room():
    decoder = FrameDecoder()
    found = []
    stream = memoryview(STREAM)
    while stream:
        room = decoder.room if decoder.missing else memoryview(b"")
        if not room:
            found += decoder.feed(stream[:9])
            stream = stream[9:]
            continue
        count = min(len(room), 50, len(stream))
        room[:count] = stream[:count]
        stream = stream[count:]
        whole = decoder.arrived(count)
        assert (whole is None) == (count < len(room))
        found += [] if whole is None else [whole]
    assert found == FRAMES and decoder.buffered == 0 and decoder.missing == 0


def test_what_is_missing_is_known_once_the_lengths_are():
    decoder = FrameDecoder()
    assert decoder.missing == 0
    decoder.feed(FRAMES[2][:7])
    assert decoder.missing == 0
    decoder.feed(FRAMES[2][7:10])
    assert decoder.missing == len(FRAMES[2]) - 10 == len(decoder.room)


def test_a_frame_that_came_in_pieces_may_be_changed_by_whoever_got_it():
    decoder = FrameDecoder()
    decoder.feed(FRAMES[2][:100])
    (first,) = decoder.feed(FRAMES[2][100:] + FRAMES[1])[:1]
    assert not first.readonly
    first[-1] = 0
    assert decoder.feed(FRAMES[2]) == [FRAMES[2]]
