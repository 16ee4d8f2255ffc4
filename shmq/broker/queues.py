"""The queues of topics on the control page and on disk: made, found and ended by the coordinator.

A queue begins as a slot of the queue table with a directory entry; its files are made by the first append.
It ends in an append claim that writes no record, only the slot's generation (now odd) through the append
journal, so a send on its way fails alone and a death in between is repaired; then its files are unlinked.
Implements `broker.topics.QueueSlots`. Holds the AppendLock for the claims, with the coordinator's own slot.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

from shmq.base import faults
from shmq.base.errors import SystemBusy
from shmq.base.files import fsync_folder
from shmq.shm import page_layout as at
from shmq.shm.append_journal import AppendJournal
from shmq.shm.append_lock import AppendLock
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import TOPIC, Directory, DirectoryView, DirectoryWriter, Entry
from shmq.shm.queue_table import QueueRef, QueueTable, generation_word
from shmq.store.names import StoreLayout

faults.declare(
    {
        "delete.before_claim": "topics.json without the topic is durable, its queues still live",
        "delete.retired": "the queues' generations are odd, topics.json does not know the last maxima yet",
        "delete.unlinked": "the files are gone, nobody was told",
    }
)


class Queues:
    """All queues of this broker."""

    def __init__(
        self,
        page: ControlPage,
        directory: DirectoryView,
        lock: AppendLock,
        layout: StoreLayout,
        forget_maps: Callable[[], None],
    ) -> None:
        """`forget_maps` lets this process's own store drop its maps of ended queues."""
        self._page = page
        self._directory = directory
        self._writer = DirectoryWriter(page)
        self._log = Directory(page)
        self._history: dict[str, list[Entry]] = {}
        self._table = QueueTable(page)
        self._journal = AppendJournal(page)
        self._lock = lock
        self._layout = layout
        self._forget_maps = forget_maps

    # -- questions --

    def refs(self, topic: str) -> list[QueueRef]:
        """The living queues of a topic, by queue id."""
        self._directory.catch_up()
        return self._directory.queues(topic)

    def ref(self, topic: str, queue_id: int) -> QueueRef | None:
        """One living queue, or None."""
        self._directory.catch_up()
        return self._directory.queue(topic, queue_id)

    def topics(self) -> list[str]:
        """The topics with a living queue, in a table or not."""
        self._directory.catch_up()
        return self._directory.topics()

    def count(self, topic: str) -> int:
        """How many living queues the topic has."""
        return len(self.refs(topic))

    def reserve(self, queues: int) -> None:
        """Raise SystemBusy unless so many neighbouring slots are free, or could be by reuse."""
        used = self._page.words[at.QUEUE_SLOTS_USED]
        if used + queues <= self._page.queue_slots:
            return
        retired = sum(1 for slot in range(used) if self._table.generation(slot) % 2)
        if retired < queues:
            raise SystemBusy(
                f"{queues} more queues do not fit, as all {self._page.queue_slots} queue slots are used: "
                "delete topics, or start the broker with a larger queueSlots"
            )

    # -- changes --

    def create(self, topic: str, first_queue_id: int, starts: Sequence[int]) -> None:
        """Add queues; they may be written to as soon as this returns."""
        self._writer.add_queues(topic, first_queue_id, [(start, start) for start in starts])
        self._directory.catch_up()

    def retire(self, topic: str) -> list[int]:
        """End all queues of the topic, return their last maxima by queue id. Repeats."""
        living = self.refs(topic)
        faults.reach("delete.before_claim")
        for first in range(0, len(living), at.JOURNAL_PAIRS_MAX):
            self._end(living[first : first + at.JOURNAL_PAIRS_MAX])
        faults.reach("delete.retired")
        return self._last_maxima(topic)

    def remove_files(self, topic: str) -> None:
        """Unlink the files of a topic whose queues have ended. Repeats."""
        self._forget_maps()
        self._unlink(topic)
        faults.reach("delete.unlinked")

    def _last_maxima(self, topic: str) -> list[int]:
        """The maxima of a topic whose queues have ended, as far as their slots were not given out again."""
        for entry in self._log.catch_up():
            if entry.kind == TOPIC:
                self._history.setdefault(entry.topic, []).append(entry)
        maxima: list[int] = []
        for _, _, _, first_queue_id, count, first_slot, generation in self._history.get(topic, ()):
            maxima.extend([0] * (first_queue_id + count - len(maxima)))
            for n in range(count):
                if self._table.generation(first_slot + n) == generation + 1:
                    last = self._table.max(first_slot + n)
                    maxima[first_queue_id + n] = max(maxima[first_queue_id + n], last)
        return maxima

    def _end(self, refs: Sequence[QueueRef]) -> None:
        """One claim without a record: every generation becomes odd, or none."""
        pairs = [(generation_word(ref.slot), ref.generation + 1) for ref in refs]
        with self._lock:
            self._journal.publish_words(pairs)

    def _unlink(self, topic: str) -> None:
        folder = self._layout.consume_queue / topic
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
            fsync_folder(self._layout.consume_queue)
