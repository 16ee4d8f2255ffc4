"""Batches on their way: whatever way their properties are encoded, the records say the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.client.outgoing_batch import NUMPY_FROM, OutgoingBatch
from shmq.client.producer_config import ProducerConfig
from shmq.model.message import Message
from shmq.model.properties import decode_properties
from shmq.model.record import iter_records, parse_record
from shmq.model.record_batch import check_batch

TOPIC = "T"
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00\x01\x02 "), max_size=6)


def prepared(messages: list[Message]) -> OutgoingBatch:
    return OutgoingBatch(messages, ProducerConfig(), may_compress=False)


def read_back(batch: OutgoingBatch) -> list[tuple[bytes, dict[str, str]]]:
    """Bodies and properties of the batch's records, after the check that a worker makes."""
    data, sizes = batch.records(3)
    check_batch(bytearray(data), sizes, TOPIC.encode(), 3, 1 << 20)
    found = []
    for record in iter_records(data):
        fields = parse_record(record)
        body = bytes(record[fields.body_at : fields.body_at + fields.body_length])
        found.append((body, decode_properties(bytes(record[fields.properties_at : fields.end]))))
    return found


def promised(batch: OutgoingBatch) -> list[tuple[bytes, dict[str, str]]]:
    return [(bytes(message.body), dict(message.properties)) for message in batch.messages]


SHAPES = {
    "nothing": lambda n: (None, None),
    "same tag": lambda n: ("A", None),
    "same tag and keys": lambda n: ("A", "k"),
    "keys of one length": lambda n: ("A", f"order-{n:04d}"),
    "keys of one length, no tag": lambda n: (None, f"order-{n:04d}"),
    "keys of many lengths": lambda n: ("A", f"order-{n}"),
    "some have keys": lambda n: ("A", f"{n}" if n % 2 else None),
    "keys that are one length in characters only": lambda n: ("A", "é" if n % 2 else "e"),
    "many tags": lambda n: (f"T{n}", f"order-{n:04d}"),
    "some have tags": lambda n: ("A" if n % 2 else None, f"order-{n:04d}"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, NUMPY_FROM - 1, NUMPY_FROM, 100])
def test_records_hold_what_the_messages_say(shape: str, count: int) -> None:
    batch = prepared([Message(TOPIC, b"%d" % n, *SHAPES[shape](n)) for n in range(count)])
    found = read_back(batch)
    assert found == promised(batch)
    assert [properties["UNIQ_KEY"] for _, properties in found] == batch.keys and len(set(batch.keys)) == count


def test_a_retry_sends_the_same_records_and_a_second_send_keeps_its_keys() -> None:
    messages = [Message(TOPIC, b"b", "A", f"k{n:02d}") for n in range(20)]
    batch = prepared(messages)
    assert bytes(batch.records(3)[0]) == bytes(batch.records(3)[0])
    again = prepared(messages)
    assert again.keys == batch.keys and read_back(again) == read_back(batch)


def test_a_sequence_and_a_user_property_take_the_general_way() -> None:
    messages = [Message(TOPIC, b"b", "A", f"k{n:02d}") for n in range(20)]
    messages[7].put_user_property("mine", "x")
    batch = prepared(messages)
    batch.number("1.2.3")
    found = read_back(batch)
    assert found == promised(batch)
    assert found[0][1]["SHMQ_SEQUENCE"] == "1.2.3" and found[7][1]["mine"] == "x"


def test_a_sequence_after_the_plain_way_was_prepared() -> None:
    batch = prepared([Message(TOPIC, b"b", "A", f"k{n:02d}") for n in range(20)])
    batch.number("1.2.3")
    found = read_back(batch)
    assert found == promised(batch) and found[0][1]["SHMQ_SEQUENCE"] == "1.2.3"


@given(st.lists(st.tuples(TEXT, TEXT, st.binary(min_size=1, max_size=5)), min_size=1, max_size=40))
def test_any_plain_messages(rows: list[tuple[str, str, bytes]]) -> None:
    batch = prepared([Message(TOPIC, body, tags, keys) for tags, keys, body in rows])
    assert read_back(batch) == promised(batch)
