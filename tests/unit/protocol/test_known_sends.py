"""A send read as one of a known kind is the send the general decoder reads; all else is left to that."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shmq.base.errors import FrameFault
from shmq.client.outgoing import Outgoing
from shmq.client.producer_config import ProducerConfig
from shmq.client.send_template import SendTemplate
from shmq.model.message import Message
from shmq.protocol.cbor_header import _decode_any, decode_cbor_header
from shmq.protocol.command import Command, encode_command
from shmq.protocol.frame import HEADER_LENGTH_MASK, LENGTHS, LENGTHS_BYTES
from shmq.protocol.headers.send import SendMessageV2Header
from shmq.protocol.known_sends import HEADS_MAX, LEARN_EVERY, SEND_CODE, SIZES_MAX, KnownSends

CONFIG = ProducerConfig()


def header_of(group: str, topic: str, queue_id: int, key: str, opaque: int = 7, flag: int = 0) -> bytes:
    """Return the header of a send as a client makes it."""
    template = SendTemplate(SendMessageV2Header(group, topic, "TBW102", 4, queue_id, 0, 0, 0))
    outgoing = Outgoing(Message(topic, b"body", tags="A", keys=key, flag=flag), CONFIG)
    frame = template.frame(outgoing, queue_id, opaque)
    assert frame is not None
    return header_in(bytes(frame[0]))


def header_in(frame: bytes) -> bytes:
    """Cut the header out of a frame."""
    _, word = LENGTHS.unpack_from(frame)
    return frame[LENGTHS_BYTES : LENGTHS_BYTES + (word & HEADER_LENGTH_MASK)]


def general(header: bytes) -> Any:
    """Return what the general decoder says, with the type of each value; None when it refuses."""
    try:
        parts = _decode_any(header)
    except FrameFault:
        return None
    fields = None if parts[4] is None else [(type(value), repr(value)) for value in parts[4]]
    return (*parts[:4], fields, parts[5])


def quick(known: KnownSends, header: bytes) -> Any:
    """Return the same of the quick one; None when it leaves the header alone."""
    found = known.read(header)
    if found is None:
        return None
    opaque, fields = found
    return SEND_CODE, 0, opaque, None, [(type(value), repr(value)) for value in fields], None


def learnt(*headers: bytes) -> KnownSends:
    """Know the like of these headers, as far as they can be known."""
    known = KnownSends()
    for header in headers:
        try:
            parts = _decode_any(header)
        except FrameFault:
            continue
        for _ in range(LEARN_EVERY if parts[4] is not None else 0):
            known.learn(header, parts[4] or [])
    return known


names = st.text(st.sampled_from("abcXYZ_09"), min_size=1, max_size=40)
edits = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4)
headers = st.builds(
    header_of,
    names,
    names,
    st.integers(0, 300),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**31 - 1),
)


def edited(header: bytes, changes: list[tuple[int, int]], cut: int, more: bytes) -> bytes:
    """Return a header with some bytes changed, its end cut off, and something put there."""
    data = bytearray(header)
    for place, value in changes:
        data[place % len(data)] = value
    return bytes(data[: len(data) - cut]) + more


@given(headers, headers)
def test_another_send_of_a_known_kind_is_read_without_the_decoder(one: bytes, other: bytes) -> None:
    known = learnt(one)
    expected = general(one)
    assert quick(known, one) == expected
    assert quick(known, other) in (None, general(other))
    assert quick(learnt(one, other), other) == general(other)


@settings(max_examples=300)
@given(headers, edits, st.integers(0, 3), st.binary(max_size=3), edits)
def test_whatever_comes_it_is_read_as_the_decoder_reads_it(
    header: bytes, changes: list[tuple[int, int]], cut: int, more: bytes, others: list[tuple[int, int]]
) -> None:
    hostile = edited(header, changes, cut, more)
    for known in (learnt(header), learnt(hostile), learnt(header, hostile)):
        for data in (hostile, edited(header, others, 0, b""), edited(hostile, others, 0, b""), header):
            found = quick(known, data)
            assert found is None or found == general(data)


def test_the_codecs_own_shorter_numbers_are_left_to_the_decoder() -> None:
    command = Command.request(
        SEND_CODE, SendMessageV2Header("G", "T", "TBW102", 4, 1, 0, 1_700_000_000_000, 0, "A\x01b\x02")
    )
    plain = header_in(b"".join(bytes(part) for part in encode_command(command)))
    full = header_of("G", "T", 1, "k")
    known = learnt(plain, full)
    assert known.read(full) is not None
    assert known.read(plain) is None


def test_properties_that_are_no_utf8_are_left_to_the_decoder() -> None:
    header = header_of("G", "T", 1, "key")
    assert learnt(header).read(header.replace(b"key", b"k\xffy")) is None


def test_a_topics_queues_are_one_kind() -> None:
    known = learnt(header_of("G", "T", 1, "key"))
    for queue_id in (0, 255, 70_000, 0x7FFFFFFF):
        header = header_of("G", "T", queue_id, "key")
        assert quick(known, header) == general(header)


def test_values_are_not_shared_between_two_sends() -> None:
    header = header_of("G", "T", 1, "key")
    known = learnt(header)
    first, second = known.read(header), known.read(header)
    assert first is not None and second is not None and first[1] == second[1]
    assert first[1] is not second[1]


def test_what_is_known_is_bounded() -> None:
    known = KnownSends()
    for number in range(3 * HEADS_MAX):
        header = header_of("G", f"T{number:05}", 1, "key")
        parts = _decode_any(header)
        for _ in range(LEARN_EVERY):
            known.learn(header, parts[4] or [])
        assert known.read(header) is not None
        assert len(known._heads) <= HEADS_MAX
    for size in range(1, 60):
        header = header_of("G" * size, "T", 1, "key")
        for _ in range(LEARN_EVERY):
            known.learn(header, _decode_any(header)[4] or [])
    assert len(known._sizes) <= SIZES_MAX


def test_a_process_learns_by_itself() -> None:
    header = header_of("LearnsByItself", "T", 1, "key")
    expected = decode_cbor_header(memoryview(header))
    for _ in range(2 * LEARN_EVERY):
        assert decode_cbor_header(memoryview(header)) == expected
