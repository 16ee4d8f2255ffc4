"""Queue table: one slot per (topic, queue id), a cache line each: generation, min, max, allocated, ring
block.

    word 0  GENERATION  0 never used, odd while changing or deleted, even while alive; a QueueRef holds the
    even one
         1  MIN         first queue offset still there; stored by retention
         2  MAX         next queue offset; stored under the AppendLock, through the journal, only
         3  ALLOCATED   units whose file space is allocated; advisory, stored by whoever allocated
         4..7           ring block of this queue (`rings`)

Slots are made by the coordinator (or by recovery, before it lives) and deleted by a claim of its own: the
slot's generation becomes odd through the journal, so a send on its way fails alone. Names are in the
directory, not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shmq.base.errors import SystemBusy
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage


class QueueRef(NamedTuple):
    """A queue as the page knows it. It stays true until the slot's generation is another one."""

    topic: str
    queue_id: int
    slot: int
    generation: int


def generation_word(slot: int) -> int:
    """Return the page word that holds the generation of `slot`."""
    return at.QUEUE_TABLE + slot * at.QUEUE_WORDS + at.QUEUE_GENERATION


def max_word(slot: int) -> int:
    """Return the page word that holds the max of `slot`."""
    return at.QUEUE_TABLE + slot * at.QUEUE_WORDS + at.QUEUE_MAX


def ring_block(slot: int) -> int:
    """Return the first word of the ring block of `slot`."""
    return at.QUEUE_TABLE + slot * at.QUEUE_WORDS + at.QUEUE_RINGS


class QueueTable:
    """The queue slots of a page."""

    __slots__ = ("_capacity", "_words")

    REUSE_ABOVE_PERCENT = 90
    """Deleted slots are given out again only when so much of the table was used."""

    def __init__(self, page: ControlPage) -> None:
        """Look at the slots of `page`."""
        self._words = page.words
        self._capacity = page.queue_slots

    def generation(self, slot: int) -> int:
        """Return the slot's generation."""
        return self._words[at.QUEUE_TABLE + slot * at.QUEUE_WORDS]

    def alive(self, queue: QueueRef) -> bool:
        """Tell whether `queue` still is what it was when the reference was made."""
        return self._words[at.QUEUE_TABLE + queue.slot * at.QUEUE_WORDS] == queue.generation

    def min(self, slot: int) -> int:
        """Return the first queue offset that is still there."""
        return self._words[at.QUEUE_TABLE + slot * at.QUEUE_WORDS + at.QUEUE_MIN]

    def set_min(self, slot: int, queue_offset: int) -> None:
        """Store the first queue offset that is still there. Retention, or recovery."""
        self._words[at.QUEUE_TABLE + slot * at.QUEUE_WORDS + at.QUEUE_MIN] = queue_offset

    def max(self, slot: int) -> int:
        """Return the next queue offset. The visible position, not this, bounds what may be read."""
        return self._words[at.QUEUE_TABLE + slot * at.QUEUE_WORDS + at.QUEUE_MAX]

    def set_max(self, slot: int, queue_offset: int) -> None:
        """Store the next queue offset. Recovery only: in a running broker only the journal moves it."""
        self._words[at.QUEUE_TABLE + slot * at.QUEUE_WORDS + at.QUEUE_MAX] = queue_offset

    def allocated(self, slot: int) -> int:
        """Return how many units have allocated file space, as far as somebody noted it."""
        return self._words[at.QUEUE_TABLE + slot * at.QUEUE_WORDS + at.QUEUE_ALLOCATED]

    def set_allocated(self, slot: int, units: int) -> None:
        """Note how many units have file space. Whoever allocated; a lost note costs one more fallocate."""
        self._words[at.QUEUE_TABLE + slot * at.QUEUE_WORDS + at.QUEUE_ALLOCATED] = units

    def new_slots(self, offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """Give out neighbouring slots with these (min, max) and return the first and their common, even
        generation.

        Coordinator, or recovery. A death in here wastes at most these slots until the next page. SystemBusy
        when the table is full.
        """
        words = self._words
        count = len(offsets)
        first = self._find_room(count)
        slots = range(first, first + count)
        generation = (max((words[generation_word(slot)] for slot in slots), default=0) | 1) + 1
        for slot, (low, high) in zip(slots, offsets, strict=True):
            words[generation_word(slot)] = generation - 1
            self.set_min(slot, low)
            words[max_word(slot)] = high
            self.set_allocated(slot, 0)
            words[generation_word(slot)] = generation
        words[at.QUEUE_SLOTS_USED] = max(words[at.QUEUE_SLOTS_USED], first + count)
        return first, generation

    def _find_room(self, count: int) -> int:
        """Return the first of `count` free neighbours: fresh ones, or deleted ones near the table's end."""
        used = self._words[at.QUEUE_SLOTS_USED]
        fits = used + count <= self._capacity
        if fits and (used + count) * 100 <= self._capacity * self.REUSE_ABOVE_PERCENT:
            return used
        run = 0
        for slot in range(used):
            run = run + 1 if self.generation(slot) % 2 else 0
            if run == count:
                return slot - count + 1
        if fits:
            return used
        raise SystemBusy(
            f"all {self._capacity} queue slots are used: delete topics, or use fewer queues per topic"
        )
