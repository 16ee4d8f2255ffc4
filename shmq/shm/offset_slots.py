"""Consumer offset slots: two words per (group, topic, queue): committed and pulled consumer offset, -1 for
none.

Workers store them (one word each, last writer wins, as in RocketMQ), the coordinator makes slots and persists
them, so no commit waits for a disk and none is lost with a process. Where a slot is says the directory.
"""

from __future__ import annotations

from shmq.base import faults
from shmq.base.errors import SystemBusy
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage

NO_OFFSET = -1

faults.declare({"offset.stored": "a committed offset is on the page, nobody was told"})


class OffsetSlots:
    """The table of consumer offsets of a page."""

    __slots__ = ("_capacity", "_first", "_words")

    def __init__(self, page: ControlPage) -> None:
        """Look at the slots of `page`."""
        self._words = page.words
        self._first = page.offset_slots_start
        self._capacity = page.offset_slots

    def committed(self, slot: int) -> int:
        """Return the next queue offset the group will read, -1 when it never committed."""
        return self._words[self._first + slot * at.OFFSET_WORDS + at.OFFSET_COMMITTED]

    def commit(self, slot: int, consumer_offset: int) -> None:
        """Store the group's next queue offset; it may go back (a reset). Any worker, or the coordinator."""
        self._words[self._first + slot * at.OFFSET_WORDS + at.OFFSET_COMMITTED] = consumer_offset
        faults.reach("offset.stored")

    def pulled(self, slot: int) -> int:
        """Return the queue offset up to which the group has pulled, -1 when it never did."""
        return self._words[self._first + slot * at.OFFSET_WORDS + at.OFFSET_PULLED]

    def set_pulled(self, slot: int, queue_offset: int) -> None:
        """Store up to where the group has pulled. Any worker."""
        self._words[self._first + slot * at.OFFSET_WORDS + at.OFFSET_PULLED] = queue_offset

    def word_of(self, slot: int) -> int:
        """Return the index of the page's word that holds the committed offset, for a claim that moves it."""
        return self._first + slot * at.OFFSET_WORDS + at.OFFSET_COMMITTED

    def reset(self, slot: int) -> None:
        """Forget both numbers: the group or the topic was deleted. Coordinator."""
        self.commit(slot, NO_OFFSET)
        self.set_pulled(slot, NO_OFFSET)

    def new_slots(self, count: int) -> int:
        """Give out `count` neighbouring slots without offsets and return the first. Coordinator only.

        SystemBusy when the table is full: more groups and queues than this broker was set up for.
        """
        first = self._words[at.OFFSET_SLOTS_USED]
        if first + count > self._capacity:
            raise SystemBusy(
                f"all {self._capacity} consumer offset slots are used: "
                "delete consumer groups that nobody uses and restart the broker"
            )
        for slot in range(first, first + count):
            self.reset(slot)
        self._words[at.OFFSET_SLOTS_USED] = first + count
        return first
