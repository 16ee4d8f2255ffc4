"""Sequences of idempotent producers: stored once, the first place answered, known after every start."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base.errors import IllegalOperation, MessageIllegal, SequenceRefused
from shmq.model.record import encode_record
from shmq.model.sequence import PRODUCER_WINDOW, parse_sequence, sequence_text
from shmq.shm.page_layout import MIN_OFFSET, WRITE_POSITION
from shmq.shm.producer_table import ProducerTable, SequenceRef
from shmq.store.append_request import AppendRequest
from tests.helpers.store import OpenStore, small_settings

ID = 0x5EED


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OpenStore]:
    with OpenStore(tmp_path / "store", small_settings(producer_slots=4)) as opened:
        yield opened


def ref(store: OpenStore, number: int, producer_id: int = ID) -> SequenceRef:
    """The sequence in the row of its producer, which gets one at its first."""
    table = ProducerTable(store.page)
    found = table.find(producer_id)
    if found is None:
        row = table.row_to_give()
        if table.generation(row) and table.generation(row) % 2 == 0:
            store.page.words[table.generation_word(row)] += 1
        found = row, table.give(row, producer_id, 1 << 50)
    return SequenceRef(*found, number)


def send(store: OpenStore, number: int, *, topic: str = "A", key: str = "", count: int = 1) -> AppendRequest:
    """One send of the producer: a message, or a batch whose first message has the sequence."""
    data, sizes = bytearray(), []
    for n in range(count):
        text = f"UNIQ_KEY\x01{key or number}-{n}\x02"
        if n == 0:
            text += f"SHMQ_SEQUENCE\x01{sequence_text(ID, number)}\x02"
        record = encode_record(
            topic=topic.encode(), body=b"%d" % number, properties=text.encode(), queue_id=0, born_timestamp=0
        )
        data += record
        sizes.append(len(record))
    return AppendRequest(store.queue(topic), data, sizes, [0] * count, sequence=ref(store, number))


def test_what_was_sent_before_is_not_stored_again(store: OpenStore) -> None:
    (first,) = store.append(send(store, 0))
    end = store.page.words[WRITE_POSITION]
    (again,) = store.append(send(store, 0))
    assert (again.physical_offset, again.queue_offset, again.end) == (
        first.physical_offset,
        first.queue_offset,
        first.end,
    )
    assert (again.store_time, again.queue_id, first.queue_id) == (first.store_time, 0, None)
    assert store.page.words[WRITE_POSITION] == end


def test_twice_in_one_turn_is_stored_once(store: OpenStore) -> None:
    outcomes = store.append(send(store, 0), send(store, 1), send(store, 0), send(store, 2))
    assert [outcome.queue_offset for outcome in outcomes] == [0, 1, 0, 2]
    assert store.store.max(store.queue("A")) == 3


def test_the_first_queue_is_answered_whichever_the_retry_chose(store: OpenStore) -> None:
    store.append(send(store, 5, topic="A"))
    (again,) = store.append(send(store, 5, topic="B"))
    assert again.error is None and store.store.max(store.queue("B")) == 0


def test_a_batch_is_one_send(store: OpenStore) -> None:
    (first,) = store.append(send(store, 0, count=20))
    (again,) = store.append(send(store, 0, count=20))
    assert (again.physical_offset, again.end) == (first.physical_offset, first.end)
    (larger,) = store.append(send(store, 0, count=30))
    assert isinstance(larger.error, MessageIllegal) and "repeated whole" in str(larger.error)


def test_another_message_with_a_copied_sequence_is_stored(store: OpenStore) -> None:
    store.append(send(store, 0))
    (copy,) = store.append(send(store, 0, key="another"))
    assert copy.error is None and copy.queue_offset == 1


def test_sequences_may_come_in_any_order_within_the_window(store: OpenStore) -> None:
    dice = random.Random(3)
    numbers = list(range(3 * PRODUCER_WINDOW))
    for begin in range(0, len(numbers), 256):
        part = numbers[begin : begin + 256]
        dice.shuffle(part)
        numbers[begin : begin + 256] = part
    places: dict[int, int] = {}
    for n, number in enumerate(numbers):
        (stored,) = store.append(send(store, number))
        assert stored.error is None and stored.queue_offset == n
        places[number] = n
        back = number - dice.randrange(500)
        if back in places:
            (again,) = store.append(send(store, back))
            assert again.queue_offset == places[back]
    assert store.store.max(store.queue("A")) == len(numbers)


def test_what_the_window_cannot_tell_is_refused(store: OpenStore) -> None:
    store.append(send(store, 10))
    (ahead,) = store.append(send(store, 11 + PRODUCER_WINDOW))
    assert isinstance(ahead.error, SequenceRefused) and "ahead" in str(ahead.error)
    store.append(send(store, 10 + PRODUCER_WINDOW))
    (old,) = store.append(send(store, 10))
    assert isinstance(old.error, SequenceRefused) and "behind" in str(old.error)
    (never,) = store.append(send(store, 9))
    assert isinstance(never.error, SequenceRefused)
    assert store.store.max(store.queue("A")) == 2


def test_a_row_that_passed_to_another_producer_is_not_touched(store: OpenStore) -> None:
    late = send(store, 0)
    store.append(send(store, 1))
    for producer_id in range(1, 5):
        ref(store, 0, producer_id)
    (refused,) = store.append(late)
    assert isinstance(refused.error, SequenceRefused) and "given to another" in str(refused.error)
    assert ProducerTable(store.page).find(ID) is None


def test_a_first_copy_that_was_deleted_is_not_stored_again(store: OpenStore) -> None:
    store.append(send(store, 0))
    store.page.words[MIN_OFFSET] = store.page.words[WRITE_POSITION]
    (again,) = store.append(send(store, 0))
    assert isinstance(again.error, IllegalOperation) and "deleted" in str(again.error)


@pytest.mark.parametrize("end", ["clean", "crash", "power", "power without the file", "file damaged"])
def test_sequences_are_known_after_every_kind_of_start(store: OpenStore, end: str) -> None:
    """Those before the last checkpoint from the file, the later ones from the log."""
    numbers = range(600)
    first = [store.append(send(store, number))[0].physical_offset for number in numbers[:400]]
    if end != "power without the file":
        store.flusher.flush()
        store.checkpointer.write()
        assert store.layout.producers.exists()
    first += [store.append(send(store, number))[0].physical_offset for number in numbers[400:]]
    store.flusher.flush()
    if end == "file damaged":
        data = bytearray(store.layout.producers.read_bytes())
        data[100] ^= 1
        store.layout.producers.write_bytes(data)
    if end == "clean":
        store.reopen()
    else:
        store.crash(keep_page=end == "crash")
    again = [store.append(send(store, number))[0].physical_offset for number in numbers]
    assert again == first
    (fresh,) = store.append(send(store, 600))
    assert fresh.queue_offset == 600


def test_the_text_is_read_strictly() -> None:
    assert parse_sequence(sequence_text(ID, 7)) == (ID, 7)
    for text in ("", "5eed:7", "0000000000000000:7", f"{ID:016x}:", f"{ID:016x}:-1", f"{ID:016x}:{1 << 62}"):
        with pytest.raises(MessageIllegal, match="SHMQ_SEQUENCE"):
            parse_sequence(text)
