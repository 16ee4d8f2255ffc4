"""Batches of request 320: the way by arrays gives what the way by elements gives, or leaves it to that."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shmq.base.errors import MessageIllegal
from shmq.handlers.batch_elements import (
    VECTOR_MIN,
    BatchRecords,
    Envelope,
    batch_records,
    records_at_once,
    records_one_by_one,
)
from shmq.handlers.send_reply import joined_ids
from shmq.model.host import UNIX_HOST, pack_host
from shmq.protocol.bodies.batch import BatchElement, encode_batch_elements

ENVELOPE = Envelope(
    topic=b"T",
    queue_id=3,
    sys_flag=1,
    born_timestamp=1_700_000_000_000,
    born_host=pack_host("10.1.2.3", 4567),
    store_host=UNIX_HOST,
    reconsume_times=0,
    body_bytes_max=1000,
)
JAVA = b"KEYS\x01order-%06d\x02UNIQ_KEY\x01%032X\x02WAIT\x01true\x02TAGS\x01Tag%d"
"""As Apache RocketMQ's Java client writes them: in a hash map's order, without a last separator."""

PIECES = [
    *(b"TAGS\x01A\x02", b"TAGS\x01\x02", b"TAGS\x01B", b"TAGS", b"TAGSX\x01A\x02", b"XTAGS\x01A\x02"),
    *(
        b"UNIQ_KEY\x01U\x02",
        b"UNIQ_KEY\x01\x02",
        b"UNIQ_KEY\x01,\x02",
        b"KEYS\x01k l\x02",
        b"WAIT\x01true\x02",
    ),
    *(b"WAIT\x01false\x02", b"DELAY\x010\x02", b"DELAY\x013\x02", b"DELAY\x01x\x02", b"TRAN_MSG\x01true\x02"),
    *(b"TRAN_MSG\x01false\x02", b"TIMER_DELAY_MS\x015\x02", b"TIMER_DELIVER_MS\x01x\x02"),
    *(b"TIMER_OUT_MS\x019\x02", b"SHMQ_WAIT_FOR\x01FLUSHED\x02", b"SHMQ_WAIT_FOR\x01?\x02"),
    *(b"a\x01DELAY\x013\x02", b"\x00", b"\x01", b"\x02", b"\x03", b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x80"),
    *("é".encode(), "TAGS\x01\U0001f600\x02".encode()),
]
PROPERTIES = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)), max_size=6).map(b"".join)
BODIES = st.one_of(st.just(b"body"), st.just(b"x" * 1000), st.binary(min_size=1, max_size=9))
FLAGS = st.integers(-(1 << 31), (1 << 31) - 1)
ELEMENTS = st.builds(BatchElement, BODIES, PROPERTIES, FLAGS)


def java_batch(count: int, body: bytes = b"body", more: bytes = b"") -> list[BatchElement]:
    return [BatchElement(body, JAVA % (n, n << 99, n % 3) + more, n) for n in range(count)]


def outcome(elements: bytes, envelope: Envelope = ENVELOPE) -> BatchRecords | str:
    """What the general way gives, or its refusal; the quick way, if it gives anything, gives the same."""
    view = memoryview(elements)
    quick = records_at_once(view, envelope)
    try:
        general = records_one_by_one(view, envelope)
    except MessageIllegal as refusal:
        assert quick is None
        with pytest.raises(MessageIllegal) as found:
            batch_records(view, envelope)
        assert str(found.value) == str(refusal)
        return str(refusal)
    assert general.data == batch_records(view, envelope).data
    if quick is not None:
        assert quick.data == general.data
        assert quick.sizes == general.sizes
        assert list(quick.tags_codes) == general.tags_codes
        assert quick.unique_keys == general.unique_keys
    return general


def is_quick(elements: list[BatchElement], envelope: Envelope = ENVELOPE) -> bool:
    encoded = encode_batch_elements(elements)
    assert not isinstance(outcome(encoded, envelope), str)
    return records_at_once(memoryview(encoded), envelope) is not None


@given(st.lists(ELEMENTS, min_size=1, max_size=3), st.integers(VECTOR_MIN - 2, 24), st.data())
def test_both_ways_give_the_same_for_whatever_is_among_the_elements(
    some: list[BatchElement], count: int, data: st.DataObject
) -> None:
    elements = [some[n % len(some)] for n in range(count)]
    if data.draw(st.booleans()):
        elements.insert(data.draw(st.integers(0, count)), data.draw(ELEMENTS))
    outcome(encode_batch_elements(elements))


@given(
    PROPERTIES, st.lists(st.tuples(st.integers(0, 23), st.integers(0, 99), st.integers(0, 255)), max_size=4)
)
@example(b"", [])
@example(b"TAGS\x01A\x02", [(5, 6, 0)])
@example(b"TAGS\x01A", [(5, 6, 2)])
def test_both_ways_give_the_same_for_properties_of_nearly_one_shape(
    properties: bytes, changes: list[tuple[int, int, int]]
) -> None:
    rows = [bytearray(properties) for _ in range(24)]
    for row, column, value in changes if properties else ():
        rows[row][column % len(properties)] = value
    outcome(encode_batch_elements([BatchElement(b"body", bytes(row), 7) for row in rows]))


def test_both_ways_give_the_same_for_each_pair_of_odd_pieces() -> None:
    for pair in product(PIECES, repeat=2):
        alike = [BatchElement(b"body", b"".join(pair), 7)] * VECTOR_MIN
        outcome(encode_batch_elements(alike))
        if pair[0] == pair[1]:
            outcome(encode_batch_elements([*alike, BatchElement(b"body", b"UNIQ_KEY\x01longer\x02")]))


DAMAGE = st.tuples(
    st.integers(0, 23),
    st.one_of(st.integers(0, 30), st.integers(-110, -1)),
    st.sampled_from(
        [b"\0", b"\1", b"\2", b"\x16", b"\x7f", b"\x80", b"\xff", b"\0\0\0\x16", b"\xff\xff\xff\xff", b""]
    ),
)
"""In which element, where in it, and what stands there then; nothing: the byte is gone."""


@given(st.lists(DAMAGE, min_size=1, max_size=4), st.booleans(), st.integers(-3, 3))
def test_both_ways_give_the_same_for_damaged_bytes(
    damage: list[tuple[int, int, bytes]], alike: bool, longer: int
) -> None:
    elements = java_batch(24)
    if not alike:
        elements[3] = BatchElement(b"another", elements[3].properties, 3)
    rows = [bytearray(encode_batch_elements([element])) for element in elements]
    for number, at, there in damage:
        place = at % len(rows[number])
        rows[number][place : place + max(1, len(there))] = there
    encoded = b"".join(rows)
    outcome(encoded + bytes(longer) if longer >= 0 else encoded[:longer])


@pytest.mark.parametrize("more", [b"", b"\x02"])
@pytest.mark.parametrize("count", [VECTOR_MIN, 1000])
def test_the_usual_batches_of_a_java_client_go_the_quick_way(count: int, more: bytes) -> None:
    elements = java_batch(count, more=more)
    assert is_quick(elements)
    bodies = [element._replace(body=b"x" * (1 + n % 50)) for n, element in enumerate(elements)]
    assert is_quick(bodies)
    keys = [element._replace(properties=b"KEYS\x01%d\x02" % n + more) for n, element in enumerate(elements)]
    assert is_quick(keys)
    assert is_quick([*elements[:-1], elements[-1]._replace(properties=b"")])
    large = ENVELOPE._replace(body_bytes_max=1 << 20)
    assert is_quick(java_batch(VECTOR_MIN, b"x" * 5000, more), large)
    assert is_quick([*java_batch(VECTOR_MIN, b"x" * 5000, more), *elements[:3]], large)


def test_what_is_small_or_has_other_records_goes_the_general_way() -> None:
    assert not is_quick(java_batch(VECTOR_MIN - 1))
    six = pack_host("fe80::1", 1)
    for other in ({"topic": b"T" * 128}, {"born_host": six}, {"store_host": six}, {"reconsume_times": 1}):
        assert not is_quick(java_batch(VECTOR_MIN), ENVELOPE._replace(**other))


@pytest.mark.parametrize("length", [32_765, 32_766, 32_767])
def test_the_longest_properties_have_room_for_their_last_separator(length: int) -> None:
    for last in (b"\x02", b"x"):
        elements = [BatchElement(b"b", b"k\x01" + b"v" * (length - 3) + last)] * VECTOR_MIN
        found = outcome(encode_batch_elements(elements))
        assert isinstance(found, str) == (length == 32_767 and last == b"x")


@given(st.integers(0, 1 << 62), st.lists(st.integers(91, 1 << 22), min_size=1, max_size=40))
def test_joined_ids_name_each_record(first: int, sizes: list[int]) -> None:
    starts = [first + sum(sizes[:n]) for n in range(len(sizes))]
    assert joined_ids("AB" * 8, first, sizes) == ",".join(f"{'AB' * 8}{start:016X}" for start in starts)
