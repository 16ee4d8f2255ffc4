from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.base.errors import InvalidParameter, StoreDamaged, SystemBusy
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import (
    OFFSETS,
    TOPIC,
    Directory,
    DirectoryView,
    DirectoryWriter,
    Entry,
    _decode,
    _encode,
)
from shmq.shm.queue_table import QueueRef, generation_word

NUMBER = st.integers(0, 2**32 - 1)
ENTRY = st.builds(
    Entry,
    st.sampled_from([TOPIC, OFFSETS]),
    st.text(max_size=60),
    st.text(max_size=200),
    NUMBER,
    NUMBER,
    NUMBER,
    st.integers(0, 2**63 - 1),
)


@given(st.lists(ENTRY, max_size=5))
def test_entries_come_back_as_they_were(entries: list[Entry]) -> None:
    data = b"".join(map(_encode, entries))
    assert len(data) % 8 == 0
    assert _decode(data) == entries


@given(ENTRY, st.data())
def test_a_cut_off_entry_is_damage(entry: Entry, data: st.DataObject) -> None:
    whole = _encode(entry)
    kept = whole[: data.draw(st.integers(1, len(whole) - 8))]
    with pytest.raises(StoreDamaged):
        _decode(kept)


def test_a_reader_catches_up_with_what_was_published(page: ControlPage, page_name: str) -> None:
    other = ControlPage.attach(page_name, readonly=True)
    writer, view = DirectoryWriter(page), DirectoryView(other)
    assert view.queue("T", 0) is None
    made = writer.add_queues("T", 0, [(0, 0)] * 3)
    assert view.queue("T", 0) is None, "not before it looks"
    assert view.catch_up()
    assert not view.catch_up()
    assert view.queues("T") == made == [QueueRef("T", n, n, 2) for n in range(3)]
    assert view.queue("T", 2) == made[2]
    assert view.queue("T", 3) is None and view.queue("T", -1) is None
    other.close()


def test_more_queues_are_another_entry(page: ControlPage) -> None:
    writer, view = DirectoryWriter(page), DirectoryView(page)
    writer.add_queues("T", 0, [(0, 0)] * 2)
    writer.add_queues("U", 0, [(0, 0)])
    writer.add_queues("T", 2, [(0, 0)] * 2)
    view.catch_up()
    assert [(ref.queue_id, ref.slot) for ref in view.queues("T")] == [(0, 0), (1, 1), (2, 3), (3, 4)]
    assert view.topics() == ["T", "U"]


def test_a_deleted_topic_is_gone_and_made_again_its_new_entry_wins(page: ControlPage) -> None:
    writer, view = DirectoryWriter(page), DirectoryView(page)
    writer.add_queues("T", 0, [(0, 9)] * 3)
    view.catch_up()
    for slot in range(3):
        page.words[generation_word(slot)] += 1
    assert view.queue("T", 0) is None
    assert view.queues("T") == [] and view.topics() == []
    again = writer.add_queues("T", 0, [(9, 9)])
    view.catch_up()
    assert view.queues("T") == again
    assert DirectoryView(page).queues("T") == again, "also for one who reads the log from its start"


def test_a_slot_given_to_another_topic_does_not_revive_the_old_one(page: ControlPage) -> None:
    writer = DirectoryWriter(page)
    writer.add_queues("OLD", 0, [(0, 0)] * page.queue_slots)
    page.words[generation_word(5)] += 1
    writer.add_queues("NEW", 0, [(0, 0)])
    view = DirectoryView(page)
    assert view.queue("NEW", 0) == QueueRef("NEW", 0, 5, 4)
    assert view.queue("OLD", 5) is None


def test_offset_slots_are_found_by_group_topic_and_queue(page: ControlPage) -> None:
    writer, view = DirectoryWriter(page), DirectoryView(page)
    assert writer.add_offsets("g", "T", 0, 2) == 0
    assert writer.add_offsets("h", "T", 0, 1) == 2
    assert writer.add_offsets("g", "T", 3, 1) == 3
    view.catch_up()
    assert view.offset_slots("g", "T") == [0, 1, None, 3]
    assert view.offset_slot("g", "T", 1) == 1
    assert view.offset_slot("g", "T", 2) is None
    assert view.offset_slot("g", "U", 0) is None
    assert view.offset_slot("g", "T", 9) is None
    assert view.offset_groups() == [("g", "T"), ("h", "T")]


def test_an_entry_that_was_not_published_does_not_exist(page: ControlPage) -> None:
    writer = DirectoryWriter(page)
    writer.add_queues("T", 0, [(0, 0)])
    length = page.words[at.DIRECTORY_LENGTH]
    writer.add_queues("U", 0, [(0, 0)])
    page.words[at.DIRECTORY_LENGTH] = length  # as if the writer had died before its last store
    assert DirectoryView(page).topics() == ["T"]
    writer.add_queues("V", 0, [(0, 0)])
    assert DirectoryView(page).topics() == ["T", "V"]


def test_a_full_directory_is_a_clear_error_and_publishes_nothing(page: ControlPage) -> None:
    directory = Directory(page)
    entry = Entry(OFFSETS, "g" * 200, "t" * 800, 0, 1, 0, 0)
    for _ in range(4):
        directory.append(entry)
    assert len(directory.catch_up()) == 4
    with pytest.raises(SystemBusy, match="directory of 4096 bytes is full"):
        directory.append(entry)
        directory.append(entry)
    assert directory.catch_up() == []


def test_a_group_name_that_no_request_may_carry_is_refused(page: ControlPage) -> None:
    with pytest.raises(InvalidParameter):
        Directory(page).append(Entry(OFFSETS, "g" * 256, "t", 0, 1, 0, 0))
