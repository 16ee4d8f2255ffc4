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

from shmq.base import faults
from shmq.base.errors import QueueGone
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage

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

faults.declare(
    {
        "journal.entries_written": "the claim is described, the journal is still EMPTY",
        "journal.prepared": "PREPARED, no byte of the claim written",
        "journal.committed": "COMMITTED, no position stored",
        "journal.position_stored": "write_position stored, queue maxima not",
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


class AppendJournal:
    """The journal of a page. The holder of the AppendLock calls; one object per process."""

    __slots__ = ("_claim", "_words")

    def __init__(self, page: ControlPage) -> None:
        """Look at the journal of `page`."""
        self._words = page.words
        self._claim: Claim | None = None

    @property
    def state(self) -> JournalState:
        """How far the last claim got."""
        return JournalState(self._words[at.JOURNAL_STATE])

    def empty(self) -> bool:
        """Tell whether no claim is under way."""
        return self._words[at.JOURNAL_STATE] == _EMPTY

    def prepare(
        self, start: int, end: int, store_time: int, entries: Sequence[Entry], pairs: Sequence[Pair] = ()
    ) -> None:
        """Describe the claim of `[start, end)` and its new positions; the journal becomes PREPARED.

        QueueGone, before anything is stored, when slots have another generation by now: the caller drops
        these sends and prepares again.
        """
        words = self._words
        assert words[at.JOURNAL_STATE] == _EMPTY and start == words[at.WRITE_POSITION] <= end
        assert len(entries) <= at.JOURNAL_ENTRIES_MAX and len(pairs) <= at.JOURNAL_PAIRS_MAX
        gone = [
            slot
            for slot, generation, _, _ in entries
            if words[at.QUEUE_TABLE + slot * at.QUEUE_WORDS] != generation
        ]
        if gone:
            raise QueueGone(gone)
        at_word = at.JOURNAL_ENTRIES
        for slot, generation, old_max, new_max in entries:
            assert words[at.QUEUE_TABLE + slot * at.QUEUE_WORDS + at.QUEUE_MAX] == old_max < new_max
            words[at_word] = slot
            words[at_word + 1] = generation
            words[at_word + 2] = old_max
            words[at_word + 3] = new_max
            at_word += at.JOURNAL_ENTRY_WORDS
        at_word = at.JOURNAL_PAIRS
        for word, value in pairs:
            words[at_word] = word
            words[at_word + 1] = value
            at_word += at.JOURNAL_PAIR_WORDS
        words[at.JOURNAL_ENTRY_COUNT] = len(entries)
        words[at.JOURNAL_PAIR_COUNT] = len(pairs)
        words[at.JOURNAL_STORE_TIME] = store_time
        words[at.JOURNAL_CLAIM_START] = start
        words[at.JOURNAL_CLAIM_END] = end
        faults.reach("journal.entries_written")
        words[at.JOURNAL_STATE] = _PREPARED
        self._claim = Claim(start, end, store_time, entries, pairs)
        faults.reach("journal.prepared")

    def committed(self) -> None:
        """Declare all bytes and units written: from here the claim is carried out whoever dies."""
        assert self._words[at.JOURNAL_STATE] == _PREPARED
        self._words[at.JOURNAL_STATE] = _COMMITTED
        faults.reach("journal.committed")

    def publish(self) -> None:
        """Store write_position, then queue maxima, then the other words; then the journal is EMPTY."""
        assert self._claim is not None and self._words[at.JOURNAL_STATE] == _COMMITTED
        self._apply(self._claim)
        self._claim = None
        self.clear()

    def _apply(self, claim: Claim) -> None:
        """Store the claim's positions. May be repeated: it stores the same values."""
        words = self._words
        assert words[at.WRITE_POSITION] in (claim.start, claim.end)
        words[at.WRITE_POSITION] = claim.end
        faults.reach("journal.position_stored")
        for slot, _, _, new_max in claim.entries:
            words[at.QUEUE_TABLE + slot * at.QUEUE_WORDS + at.QUEUE_MAX] = new_max
        faults.reach("journal.maxima_stored")
        words[at.LAST_STORE_TIME] = claim.store_time
        for word, value in claim.pairs:
            words[word] = value
        faults.reach("journal.words_stored")

    def read_claim(self) -> Claim:
        """Return the claim that the page describes. Repair only, while the journal is not EMPTY."""
        words = self._words
        entries = words[
            at.JOURNAL_ENTRIES : at.JOURNAL_ENTRIES + words[at.JOURNAL_ENTRY_COUNT] * at.JOURNAL_ENTRY_WORDS
        ]
        pairs = words[
            at.JOURNAL_PAIRS : at.JOURNAL_PAIRS + words[at.JOURNAL_PAIR_COUNT] * at.JOURNAL_PAIR_WORDS
        ]
        return Claim(
            words[at.JOURNAL_CLAIM_START],
            words[at.JOURNAL_CLAIM_END],
            words[at.JOURNAL_STORE_TIME],
            list(zip(entries[::4], entries[1::4], entries[2::4], entries[3::4], strict=True)),
            list(zip(pairs[::2], pairs[1::2], strict=True)),
        )

    def apply_again(self) -> None:
        """Carry out the claim of a dead holder. Repair only, while the journal is COMMITTED."""
        self._apply(self.read_claim())

    def clear(self) -> None:
        """Declare the claim done, or undone. The holder after publishing, or repair after its last store."""
        self._words[at.JOURNAL_STATE] = _EMPTY
        faults.reach("journal.emptied")
