"""Producer table: which sends of an idempotent producer are stored, and where. A row per producer.

    word 0     ID           the producer's id, 63 random bits; 0 before the row is used
         1     GENERATION   0 never used, odd while the row passes to another producer, even while it is valid
         2     HIGHEST      the highest sequence stored, -1 without any; a hint, may lag by one claim
         3     LAST_USED    ms of its last append; a hint, the row unused for longest is given out again
         8..   WINDOW       1,024 words: that of sequence s is s % 1024

A word of the window is 0, or (lap mod 65,536) << 47 | physical offset, where lap = s // 1024 + 1. It is
stored by the claim that stores the message, through its journal: both are there or neither. Sequences may
come in any order and leave gaps, but no further apart than the window: what it has forgotten must not look
new. Rows are given out by the coordinator, and filled by recovery. Source of the idea: Kafka's producer id
and sequence (KIP-98); RocketMQ has no such thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from shmq.base.errors import SystemBusy
from shmq.model.sequence import PRODUCER_WINDOW
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage

ID, GENERATION, HIGHEST, LAST_USED = range(4)
_LAP_SHIFT = 47
_POSITION_MASK = (1 << _LAP_SHIFT) - 1
_LAPS = 1 << 16
_AGE_MAX = _LAPS // 2

FRESH = -1
"""Not stored yet: append it."""
GONE = -2
"""The row belongs to another producer by now."""
FORGOTTEN = -3
"""So old that the window cannot tell any more."""
AHEAD = -4
"""More than a window ahead of the highest: sequences in between would be forgotten before they came."""


class SequenceRef(NamedTuple):
    """One sequence of a producer whose row is known."""

    row: int
    generation: int
    number: int


def lap_word(number: int, physical_offset: int) -> int:
    """Return the window's word of a sequence stored at a position."""
    return (number // PRODUCER_WINDOW + 1) % _LAPS << _LAP_SHIFT | physical_offset


class ProducerTable:
    """The rows of a page."""

    __slots__ = ("_capacity", "_first", "_words")

    def __init__(self, page: ControlPage) -> None:
        """Look at the rows of `page`; a page may have none."""
        self._words = page.words
        self._first = page.producers_start
        self._capacity = page.producer_slots

    @property
    def capacity(self) -> int:
        """How many producers it holds."""
        return self._capacity

    def word(self, sequence: SequenceRef) -> int:
        """Return the page word of a sequence."""
        window = self._first + sequence.row * at.PRODUCER_WORDS + at.PRODUCER_HEAD_WORDS
        return window + sequence.number % PRODUCER_WINDOW

    def generation_word(self, row: int) -> int:
        """Return the page word of a row's generation."""
        return self._first + row * at.PRODUCER_WORDS + GENERATION

    def judge(self, sequence: SequenceRef) -> int:
        """Return where a sequence is stored, or FRESH, GONE, FORGOTTEN, AHEAD. Under the AppendLock."""
        words, head = self._words, self._first + sequence.row * at.PRODUCER_WORDS
        if words[head + GENERATION] != sequence.generation:
            return GONE
        word = words[self.word(sequence)]
        highest = words[head + HIGHEST]
        if word:
            age = ((sequence.number // PRODUCER_WINDOW + 1) - (word >> _LAP_SHIFT)) % _LAPS
            if age == 0:
                return word & _POSITION_MASK
            if age >= _AGE_MAX:
                return FORGOTTEN
        if highest >= 0 and sequence.number > highest + PRODUCER_WINDOW:
            return AHEAD
        if sequence.number <= highest - PRODUCER_WINDOW:
            return FORGOTTEN
        return FRESH

    def note(self, sequence: SequenceRef, now_ms: int) -> None:
        """Store the hints of a published sequence. Under the AppendLock."""
        words, head = self._words, self._first + sequence.row * at.PRODUCER_WORDS
        words[head + HIGHEST] = max(words[head + HIGHEST], sequence.number)
        words[head + LAST_USED] = now_ms

    def find(self, producer_id: int) -> tuple[int, int] | None:
        """Return (row, generation) of a producer, None when it has no row."""
        for row, known in enumerate(self._heads(ID)):
            if known == producer_id:
                generation = self._words[self.generation_word(row)]
                return (row, generation) if generation and generation % 2 == 0 else None
        return None

    def _heads(self, word: int) -> list[int]:
        """One head word of every row."""
        first = self._first + word
        end = self._first + self._capacity * at.PRODUCER_WORDS
        return list(self._words[first : end : at.PRODUCER_WORDS]) if self._capacity else []

    # ---- changes: coordinator, or recovery before it lives

    def row_to_give(self) -> int:
        """Return the row the next producer gets: an unused one, one whose change was not finished, else the
        one unused for longest. SystemBusy when the page has no rows."""
        if not self._capacity:
            raise SystemBusy("this broker keeps no sequences of producers (producerSlots=0)")
        generations = self._heads(GENERATION)
        for row, generation in enumerate(generations):
            if generation % 2 or not generation:
                return row
        used = self._heads(LAST_USED)
        return min(range(self._capacity), key=used.__getitem__)

    def generation(self, row: int) -> int:
        """Return a row's generation."""
        return self._words[self.generation_word(row)]

    def give(self, row: int, producer_id: int, now_ms: int) -> int:
        """Give a row whose generation is 0 or odd to a producer and return the new generation.

        Nobody uses the row before the generation is stored, which is last; repeated after a death.
        """
        words, head = self._words, self._first + row * at.PRODUCER_WORDS
        generation = words[head + GENERATION]
        assert generation % 2 or not generation
        for word in range(head + at.PRODUCER_HEAD_WORDS, head + at.PRODUCER_WORDS):
            words[word] = 0
        words[head + HIGHEST] = -1
        words[head + LAST_USED] = now_ms
        words[head + ID] = producer_id
        words[head + GENERATION] = generation + 1 if generation % 2 else 2
        return words[head + GENERATION]

    def rows(self) -> Iterator[tuple[int, int, list[int]]]:
        """Give id, highest sequence and window of every valid row, longest unused first."""
        words = self._words
        heads = [self._first + row * at.PRODUCER_WORDS for row in range(self._capacity)]
        valid = [head for head in heads if words[head + GENERATION] and not words[head + GENERATION] % 2]
        for head in sorted(valid, key=lambda head: words[head + LAST_USED]):
            window = words[head + at.PRODUCER_HEAD_WORDS : head + at.PRODUCER_WORDS]
            yield words[head + ID], words[head + HIGHEST], list(window)

    # ---- recovery only, on a page nobody else uses yet

    def restore_row(self, producer_id: int, highest: int, window: Sequence[int], end: int) -> None:
        """Take over a saved row, without what points to or behind `end`, where the log now ends."""
        if not self._capacity:
            return
        head = self._first + self._row_of(producer_id) * at.PRODUCER_WORDS
        self._words[head + HIGHEST] = highest
        for place, word in enumerate(window, head + at.PRODUCER_HEAD_WORDS):
            self._words[place] = word if word & _POSITION_MASK < end else 0

    def restore(self, producer_id: int, number: int, physical_offset: int) -> None:
        """Note a stored sequence; of two records with one sequence (copies of a message) the first counts."""
        if not self._capacity:
            return
        row = self._row_of(producer_id)
        sequence = SequenceRef(row, self.generation(row), number)
        if self.judge(sequence) in (FRESH, AHEAD):
            self._words[self.word(sequence)] = lap_word(number, physical_offset)
        self.note(sequence, physical_offset)

    def _row_of(self, producer_id: int) -> int:
        found = self.find(producer_id)
        if found is not None:
            return found[0]
        row = self.row_to_give()
        if self.generation(row) and not self.generation(row) % 2:
            self._words[self.generation_word(row)] += 1
        self.give(row, producer_id, 0)
        return row
