"""Rows of the producer table: given out by the coordinator, found by workers.

A worker that meets an idempotent producer it does not know asks the coordinator for a row once. When all
rows are in use the one unused for longest passes on: its generation becomes odd in a claim without a record,
so that a send on its way is refused; then its window is emptied and the new producer's generation stored. A
death in between leaves an odd generation, which is the first to be given out again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from shmq.base import faults, log
from shmq.base.clock import now_ms
from shmq.model.sequence import Sequence
from shmq.shm.append_journal import AppendJournal
from shmq.shm.append_lock import AppendLock
from shmq.shm.control_page import ControlPage
from shmq.shm.producer_table import ProducerTable, SequenceRef

KNOWN_MAX = 4096

faults.declare({"producer.row_ended": "a row's old producer has lost it, its new one has it not yet"})

_logger = log.get(__name__)


class ProducerRows:
    """Gives out rows. Coordinator's loop only."""

    def __init__(self, page: ControlPage, lock: AppendLock, *, clock_ms: Callable[[], int] = now_ms) -> None:
        """`lock` is the coordinator's own."""
        self._table = ProducerTable(page)
        self._journal = AppendJournal(page)
        self._lock = lock
        self._clock_ms = clock_ms

    def ensure(self, producer_id: int) -> None:
        """Give a producer a row unless it has one; SystemBusy when this broker keeps none."""
        if self._table.find(producer_id) is not None:
            return
        row = self._table.row_to_give()
        generation = self._table.generation(row)
        if generation and generation % 2 == 0:
            with self._lock:
                self._journal.publish_words([(self._table.generation_word(row), generation + 1)])
            log.event(_logger, logging.INFO, "producer_row_passed_on", row=row)
        faults.reach("producer.row_ended")
        self._table.give(row, producer_id, self._clock_ms())


class ProducerFinder:
    """A worker's memory of the rows it has met."""

    def __init__(self, page: ControlPage) -> None:
        """Nothing is known yet."""
        self._table = ProducerTable(page)
        self._known: dict[int, tuple[int, int]] = {}

    def find(self, sequence: Sequence) -> SequenceRef | None:
        """Return where a sequence belongs; None when its producer has no row: ask the coordinator."""
        known = self._known.get(sequence.producer_id)
        if known is None or self._table.generation(known[0]) != known[1]:
            known = self._table.find(sequence.producer_id)
            if known is None:
                self._known.pop(sequence.producer_id, None)
                return None
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[sequence.producer_id] = known
        return SequenceRef(*known, sequence.number)
