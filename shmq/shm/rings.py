"""Ring blocks: which slots must be rung when a shared word changes, and the protocol that loses no wake-up.

A block is 32 bytes (4 words), byte i for the process of slot i; only its owner stores a byte. There is one
block per queue (`queue_table`) and a few global ones (`page_layout`: FLUSH_RINGS, SEGMENT_RINGS,
POLICY_RINGS, APPEND_RINGS).

    sleeper   park: byte = 1; fence; look again at the positions; only then sleep
              woken: clear the bell, unpark or not, look
    changer   store the position; fence; ring_parked (loads the block once, rings the owners)

One of the two always sees the other: without the fences both loads may overtake both stores. An appender's
fence is the release of the semaphore, a locked instruction.
"""

from __future__ import annotations

from collections.abc import Sequence

from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage
from shmq.shm.doorbell import Doorbell
from shmq.shm.word import fence

__all__ = ["clear_slot", "fence", "park", "ring_all", "ring_parked", "unpark"]


def park(page: ControlPage, block: int, slot: int) -> None:
    """Ask to be rung when the block's word changes. The caller looks again afterwards, then may sleep."""
    page.raw[block * 8 + slot] = 1
    fence()


def unpark(page: ControlPage, block: int, slot: int) -> None:
    """Do not ask any more; a ring already under way may still come."""
    page.raw[block * 8 + slot] = 0


def ring_parked(page: ControlPage, block: int, bells: Sequence[Doorbell], unrung: int | None = None) -> None:
    """Ring every slot that is parked in the block, but `unrung`. Call after the store and its fence."""
    words = page.words
    if words[block] or words[block + 1] or words[block + 2] or words[block + 3]:
        for slot, parked in enumerate(page.raw[block * 8 : block * 8 + at.SLOT_COUNT]):
            if parked and slot != unrung:
                bells[slot].ring()


def ring_all(bells: Sequence[Doorbell]) -> None:
    """Ring every slot, as a crash may have swallowed any ring. Supervisor, after a child's death."""
    for bell in bells:
        bell.ring()


def clear_slot(page: ControlPage, slot: int) -> None:
    """Take a dead slot's byte out of every block. Supervisor; nobody else stores it any more."""
    raw = page.raw
    for block in (at.FLUSH_RINGS, at.SEGMENT_RINGS, at.POLICY_RINGS, at.APPEND_RINGS):
        raw[block * 8 + slot] = 0
    used = page.words[at.QUEUE_SLOTS_USED]
    first = (at.QUEUE_TABLE + at.QUEUE_RINGS) * at.WORD_BYTES + slot
    step = at.QUEUE_WORDS * at.WORD_BYTES
    raw[first : first + used * step : step] = bytes(
        used
    )  # a strided copy, byte by byte: 65,536 queues in 1 ms
