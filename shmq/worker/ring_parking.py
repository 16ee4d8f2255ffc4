"""This worker's bytes in the page's ring words: for queues with held pulls, and for the flushed position.

Runs in the worker's event loop; only this worker stores these bytes. Parking ends with a fence, so that the
look that follows cannot overtake it (``shm/rings.py``). Two reasons to wait for the flush share one byte.
"""

from __future__ import annotations

from shmq.shm import page_layout
from shmq.shm.append_journal import positions
from shmq.shm.control_page import ControlPage
from shmq.shm.doorbell import Doorbell
from shmq.shm.queue_table import QueueRef, QueueTable, ring_block
from shmq.shm.rings import park, unpark


class WorkerRings:
    """The ring bytes of one worker slot; implements ``broker.pull_holds.RingParking``."""

    def __init__(self, page: ControlPage, slot: int, flusher: Doorbell | None) -> None:
        """Look at ``page`` for the process of ``slot``.

        ``flusher`` is rung when a send begins to wait, as without it the flusher would let its interval pass
        (ASYNC_FLUSH); None where every append wakes it anyway.
        """
        self._flusher = flusher
        self._page = page
        self._slot = slot
        self._queues = QueueTable(page)
        self._acks_wait = False
        self._holds_wait = False

    def park(self, queue: QueueRef) -> None:
        """Ask to be rung when messages are appended to this queue."""
        park(self._page, ring_block(queue.slot), self._slot)

    def unpark(self, queue: QueueRef) -> None:
        """Do not ask any more."""
        unpark(self._page, ring_block(queue.slot), self._slot)

    def max_offset(self, queue: QueueRef) -> int:
        """Return the queue's max offset, visible or not."""
        return self._queues.max(queue.slot)

    def positions(self) -> tuple[int, int] | None:
        """Return where the log ends, and up to where it is visible; None while a claim is being published."""
        return positions(self._page)

    def await_flush(self, wanted: bool) -> None:
        """Held pulls wait for appended messages to become visible."""
        if wanted != self._holds_wait:
            self._holds_wait = wanted
            self._update()

    def await_acks(self, wanted: bool) -> None:
        """Sends wait for the flush."""
        if wanted != self._acks_wait:
            self._acks_wait = wanted
            self._update()
            if wanted and self._flusher is not None:
                self._flusher.ring()

    def _update(self) -> None:
        if self._acks_wait or self._holds_wait:
            park(self._page, page_layout.FLUSH_RINGS, self._slot)
        else:
            unpark(self._page, page_layout.FLUSH_RINGS, self._slot)
