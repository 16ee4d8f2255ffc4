from __future__ import annotations

import pytest

from shmq.base.errors import QueueGone
from shmq.shm import page_layout as at
from shmq.shm.append_journal import AppendJournal, JournalState
from shmq.shm.control_page import ControlPage
from shmq.shm.queue_table import QueueTable, generation_word


@pytest.fixture
def journal(page: ControlPage) -> AppendJournal:
    QueueTable(page).new_slots([(0, 5), (0, 7)])
    page.words[at.WRITE_POSITION] = 100
    return AppendJournal(page)


ENTRIES = [(0, 2, 5, 6), (1, 2, 7, 9)]


def test_positions_move_only_when_published(page: ControlPage, journal: AppendJournal) -> None:
    table = QueueTable(page)
    journal.prepare(100, 250, 1234, ENTRIES, [(at.POLICY_EPOCH, 8)])
    assert journal.state is JournalState.PREPARED and not journal.empty()
    journal.committed()
    assert journal.state is JournalState.COMMITTED
    assert (page.words[at.WRITE_POSITION], table.max(0), table.max(1)) == (100, 5, 7)
    journal.publish()
    assert journal.empty()
    assert (page.words[at.WRITE_POSITION], table.max(0), table.max(1)) == (250, 6, 9)
    assert (page.words[at.LAST_STORE_TIME], page.words[at.POLICY_EPOCH]) == (1234, 8)


def test_deleted_queues_are_named_before_anything_is_stored(
    page: ControlPage, journal: AppendJournal
) -> None:
    page.words[generation_word(1)] += 1
    with pytest.raises(QueueGone) as gone:
        journal.prepare(100, 250, 1234, ENTRIES)
    assert gone.value.slots == [1]
    assert journal.empty() and page.words[at.JOURNAL_CLAIM_END] == 0
    journal.prepare(100, 200, 1234, ENTRIES[:1])


def test_another_process_reads_the_claim_from_the_page(page: ControlPage, journal: AppendJournal) -> None:
    journal.prepare(100, 250, 1234, ENTRIES, [(at.POLICY_EPOCH, 8)])
    assert AppendJournal(page).read_claim() == (100, 250, 1234, ENTRIES, [(at.POLICY_EPOCH, 8)])


def test_a_later_claim_hides_what_an_earlier_longer_one_left(
    page: ControlPage, journal: AppendJournal
) -> None:
    journal.prepare(100, 250, 1234, ENTRIES, [(at.POLICY_EPOCH, 8)])
    journal.committed()
    journal.publish()
    journal.prepare(250, 300, 1235, [(1, 2, 9, 10)])
    assert journal.read_claim() == (250, 300, 1235, [(1, 2, 9, 10)], [])


def test_applying_again_does_what_publishing_does_any_number_of_times(
    page: ControlPage, journal: AppendJournal
) -> None:
    journal.prepare(100, 250, 1234, ENTRIES, [(at.POLICY_EPOCH, 8)])
    journal.committed()
    repairing = AppendJournal(page)
    repairing.apply_again()
    repairing.apply_again()
    repairing.clear()
    table = QueueTable(page)
    assert (page.words[at.WRITE_POSITION], table.max(0), table.max(1)) == (250, 6, 9)
    assert page.words[at.POLICY_EPOCH] == 8


def test_a_full_journal_holds_its_1024_entries_and_128_pairs(
    page: ControlPage, journal: AppendJournal
) -> None:
    entries = [(0, 2, 5, 6)] * at.JOURNAL_ENTRIES_MAX
    pairs = [(at.POLICY_EPOCH, n) for n in range(at.JOURNAL_PAIRS_MAX)]
    queue_table_before = bytes(page.raw[at.QUEUE_TABLE * 8 :])
    journal.prepare(100, 250, 1234, entries, pairs)
    assert journal.read_claim().entries == entries
    assert bytes(page.raw[at.QUEUE_TABLE * 8 :]) == queue_table_before
    with pytest.raises(AssertionError):
        AppendJournal(page).prepare(100, 250, 1234, entries, pairs)


@pytest.mark.parametrize(
    ("start", "end", "entries", "pairs"),
    [
        (99, 250, ENTRIES, []),
        (100, 99, ENTRIES, []),
        (100, 250, [(0, 2, 4, 6)], []),
        (100, 250, [(0, 2, 5, 5)], []),
        (100, 250, [(0, 2, 5, 6)] * 1025, []),
        (100, 250, ENTRIES, [(at.POLICY_EPOCH, 1)] * (at.JOURNAL_PAIRS_MAX + 1)),
    ],
)
def test_a_claim_that_cannot_be_right_is_our_own_mistake(
    journal: AppendJournal,
    start: int,
    end: int,
    entries: list[tuple[int, int, int, int]],
    pairs: list[tuple[int, int]],
) -> None:
    with pytest.raises(AssertionError):
        journal.prepare(start, end, 1, entries, pairs)
    assert journal.empty()


def test_the_steps_come_in_one_order(journal: AppendJournal) -> None:
    with pytest.raises(AssertionError):
        journal.committed()
    with pytest.raises(AssertionError):
        journal.publish()
