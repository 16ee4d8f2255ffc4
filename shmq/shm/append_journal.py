"""AppendJournal: what a claim is about to change, written before it does, so that its holder may die at any
instruction.

    EMPTY --prepare--> PREPARED --committed--> COMMITTED --publish--> EMPTY

    PREPARED    bytes [claim_start, claim_end) and the entries' units are being written: repair zeroes them
    COMMITTED   they are whole: repair stores the new positions again

An entry is (queue slot, slot generation, old max, new max), a pair (page word, new value); a word named in a
pair is stored on no other path. All calls happen under the AppendLock, in the process that holds it, except
those repair makes while the world stands still. Inside, only a QueueGone may come back to the caller: any
other exception must end the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from shmq.base.errors import QueueGone
from shmq.base.faults import declare, reach
from shmq.shm.control_page import ControlPage
from shmq.shm.page_layout import (
    JOURNAL_CLAIM_END,
    JOURNAL_CLAIM_START,
    JOURNAL_ENTRIES,
    JOURNAL_ENTRIES_MAX,
    JOURNAL_ENTRY_COUNT,
    JOURNAL_ENTRY_WORDS,
    JOURNAL_PAIR_COUNT,
    JOURNAL_PAIR_WORDS,
    JOURNAL_PAIRS,
    JOURNAL_PAIRS_MAX,
    JOURNAL_STATE,
    JOURNAL_STORE_TIME,
    LAST_STORE_TIME,
    QUEUE_MAX,
    QUEUE_TABLE,
    QUEUE_WORDS,
    WRITE_POSITION,
)

Entry = tuple[int, int, int, int]
"""(queue slot, slot generation, old max, new max)."""

Pair = tuple[int, int]
"""(page word, new value)."""


class JournalState(IntEnum):
    """How far a claim got (word JOURNAL_STATE)."""

    EMPTY = 0
    PREPARED = 1
    COMMITTED = 2


_EMPTY, _PREPARED, _COMMITTED = (int(state) for state in JournalState)

declare(
    {
        "journal.entry_written": "one entry described, count and positions are those of the claim before",
        "journal.entries_written": "the claim is described, the journal is still EMPTY",
        "journal.prepared": "PREPARED, no byte of the claim written",
        "journal.committed": "COMMITTED, no position stored",
        "journal.position_stored": "write_position stored, queue maxima not",
        "journal.max_stored": "one queue maximum stored, others perhaps not",
        "journal.maxima_stored": "queue maxima stored, other words not",
        "journal.words_stored": "everything stored, the journal still COMMITTED",
        "journal.emptied": "EMPTY, the semaphore still taken",
    }
)


class Claim(NamedTuple):
    """A claim as the journal describes it."""

    start: int
    end: int
    store_time: int
    entries: Sequence[Entry]
    pairs: Sequence[Pair]


def positions(page: ControlPage) -> tuple[int, int] | None:
    """Return where the log ends, and up to where it is visible: no queue has news unless one moved.

    None while a claim is being published: some of its queues may have moved and others not yet. The journal
    is looked at last: a publisher leaves EMPTY before it stores the end of the log, and stores EMPTY after
    the maxima of its queues. Any process.
    """
    words = page.words
    found = words[WRITE_POSITION], page.visible_position()
    return found if words[JOURNAL_STATE] == JournalState.EMPTY else None


class AppendJournal:
    """The journal of a page. The holder of the AppendLock calls; one object per process."""

    __slots__ = ("_entries", "_pairs", "_words")

    def __init__(self, page: ControlPage) -> None:
        """Look at the journal of `page`."""
        self._words = page.words
        self._entries: Sequence[Entry] = ()
        self._pairs: Sequence[Pair] = ()

    @property
    def state(self) -> JournalState:
        """How far the last claim got."""
        return JournalState(self._words[JOURNAL_STATE])

    def empty(self) -> bool:
        """Tell whether no claim is under way."""
        return self._words[JOURNAL_STATE] == _EMPTY

    def prepare(
        self, start: int, end: int, store_time: int, entries: Sequence[Entry], pairs: Sequence[Pair] = ()
    ) -> None:
        """Describe the claim of `[start, end)` and its new positions; the journal becomes PREPARED.

        QueueGone when slots have another generation by now: the journal is still EMPTY, the caller drops
        these sends and prepares again.
        """
        words = self._words
        assert words[JOURNAL_STATE] == _EMPTY and start == words[WRITE_POSITION] <= end
        assert len(entries) <= JOURNAL_ENTRIES_MAX and len(pairs) <= JOURNAL_PAIRS_MAX
        gone = []
        at = JOURNAL_ENTRIES
        for slot, generation, old_max, new_max in entries:
            queue = QUEUE_TABLE + slot * QUEUE_WORDS
            if words[queue] != generation:
                gone.append(slot)
                continue
            assert words[queue + QUEUE_MAX] == old_max < new_max
            words[at] = slot
            words[at + 1] = generation
            words[at + 2] = old_max
            words[at + 3] = new_max
            at += JOURNAL_ENTRY_WORDS
            reach("journal.entry_written")
        if gone:
            raise QueueGone(gone)
        at = JOURNAL_PAIRS
        for word, value in pairs:
            words[at] = word
            words[at + 1] = value
            at += JOURNAL_PAIR_WORDS
        words[JOURNAL_ENTRY_COUNT] = len(entries)
        words[JOURNAL_PAIR_COUNT] = len(pairs)
        words[JOURNAL_STORE_TIME] = store_time
        words[JOURNAL_CLAIM_START] = start
        words[JOURNAL_CLAIM_END] = end
        reach("journal.entries_written")
        words[JOURNAL_STATE] = _PREPARED
        self._entries, self._pairs = entries, pairs
        reach("journal.prepared")

    def committed(self) -> None:
        """Declare all bytes and units written: from here the claim is carried out whoever dies."""
        assert self._words[JOURNAL_STATE] == _PREPARED
        self._words[JOURNAL_STATE] = _COMMITTED
        reach("journal.committed")

    def publish(self) -> None:
        """Store write_position, then queue maxima, then the other words; then the journal is EMPTY."""
        assert self._words[JOURNAL_STATE] == _COMMITTED
        self._apply(self._entries, self._pairs)
        self.clear()

    def publish_words(self, pairs: Sequence[Pair]) -> None:
        """Store words in a claim that writes no record: all of them, or none. Under the AppendLock."""
        words = self._words
        position = words[WRITE_POSITION]
        self.prepare(position, position, words[LAST_STORE_TIME], (), pairs)
        self.committed()
        self.publish()

    def _apply(self, entries: Sequence[Entry], pairs: Sequence[Pair]) -> None:
        """Store the positions of the claim on the page. May be repeated: it stores the same values."""
        words = self._words
        end = words[JOURNAL_CLAIM_END]
        assert words[WRITE_POSITION] <= end
        words[WRITE_POSITION] = end
        reach("journal.position_stored")
        for slot, _, _, new_max in entries:
            words[QUEUE_TABLE + slot * QUEUE_WORDS + QUEUE_MAX] = new_max
            reach("journal.max_stored")
        reach("journal.maxima_stored")
        words[LAST_STORE_TIME] = words[JOURNAL_STORE_TIME]
        for word, value in pairs:
            words[word] = value
        reach("journal.words_stored")

    def read_claim(self) -> Claim:
        """Return the claim that the page describes. Repair only, while the journal is not EMPTY."""
        words = self._words
        entries = words[JOURNAL_ENTRIES:][: words[JOURNAL_ENTRY_COUNT] * JOURNAL_ENTRY_WORDS]
        pairs = words[JOURNAL_PAIRS:][: words[JOURNAL_PAIR_COUNT] * JOURNAL_PAIR_WORDS]
        return Claim(
            words[JOURNAL_CLAIM_START],
            words[JOURNAL_CLAIM_END],
            words[JOURNAL_STORE_TIME],
            list(zip(entries[::4], entries[1::4], entries[2::4], entries[3::4], strict=True)),
            list(zip(pairs[::2], pairs[1::2], strict=True)),
        )

    def apply_again(self) -> None:
        """Carry out the claim of a dead holder. Repair only, while the journal is COMMITTED."""
        claim = self.read_claim()
        self._apply(claim.entries, claim.pairs)

    def clear(self) -> None:
        """Declare the claim done, or undone. The holder after publishing, or repair after its last store."""
        self._words[JOURNAL_STATE] = _EMPTY
        reach("journal.emptied")
