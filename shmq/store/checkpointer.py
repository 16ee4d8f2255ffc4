"""Checkpointer: makes ConsumeQueues durable and notes how far everything is. A thread of the supervisor.

    1  target = flushed_position, below any claim that is still being published, and the last store time
    2  fdatasync every ConsumeQueue file that got units since the last checkpoint, and every index file that
       became full (the index builder goes on with the next one meanwhile); sum the log up to target and sync
       the side files (`checksums.py`)
    3  write the checkpoint: log and units below target are on the disk

In this order, as the units of all records below `flushed_position` were written before it moved; so the
checkpoint never claims what a power cut can take. It runs when the log's flushed end is 64 MiB further than
the last checkpoint, which bounds what a start after a power cut has to read, or when something was flushed
and the thorough interval is over. A thread of its own: ten thousand queues take seconds to sync, and the
flusher must not wait for them.

Which queues moved is seen in the page: maxima against those of the last time, block by block, so that a table
of many quiet queues costs one comparison per block. If it dies, the last checkpoint stands. No numpy here.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from shmq.base import faults, log
from shmq.base.clock import monotonic_ms
from shmq.model.settings import BrokerSettings
from shmq.model.unit import UNIT_BYTES
from shmq.shm.append_journal import JournalState
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import TOPIC, Directory
from shmq.shm.page_layout import (
    FLUSHED_POSITION,
    JOURNAL_CLAIM_START,
    JOURNAL_STATE,
    LAST_STORE_TIME,
    QUEUE_MAX,
    QUEUE_SLOTS_USED,
    QUEUE_TABLE,
    QUEUE_WORDS,
    WRITE_POSITION,
)
from shmq.shm.producer_table import ProducerTable
from shmq.store.checkpoint import Checkpoint
from shmq.store.checksums import LogChecksums
from shmq.store.index_file import full_index_files
from shmq.store.index_sums import note_index
from shmq.store.names import StoreLayout
from shmq.store.producer_file import save_producers
from shmq.store.sparse_files import sync_paths
from shmq.store.step_thread import StepThread

LOG_BYTES_MAX = 64 << 20
"""A checkpoint is written at least once in so many bytes of log."""

BLOCK_SLOTS = 512
"""Queue slots compared at once."""

_logger = log.get(__name__)

faults.declare({"checkpoint.queues_synced": "ConsumeQueues are durable, the checkpoint is the one before"})


class Checkpointer:
    """Writes the checkpoint file."""

    def __init__(
        self, layout: StoreLayout, page: ControlPage, settings: BrokerSettings, checksums: LogChecksums
    ) -> None:
        """Begin with the checkpoint on the disk, and the maxima in the page if recovery has synced them.

        It has when the checkpoint is where the log ends. A fast restart goes on with a page whose queues are
        ahead of the last checkpoint: nobody knows which units are on the disk, so all count as new.
        """
        self._layout = layout
        self._page = page
        self._checksums = checksums
        self._index_slots = settings.max_hash_slot_num
        self._interval_ms = settings.flush_commit_log_thorough_interval
        self._checkpoint = Checkpoint.load(layout.checkpoint)
        self._directory = Directory(page)
        self._producers = ProducerTable(page)
        self._names: dict[int, tuple[str, int]] = {}
        self._synced: dict[int, list[int]] = {}
        self._known_files: set[tuple[str, int, int]] = set()
        self._sealed_index = {
            path
            for path, end_ms in full_index_files(layout.index)
            if end_ms <= self._checkpoint.index_timestamp
        }
        self._written_ms = monotonic_ms()
        self._thread = StepThread("checkpointer", lambda: self.step(monotonic_ms()))
        self._failed = self._refused = False
        maxima = self._moved()[1]
        if self._checkpoint.confirm_offset >= page.words[WRITE_POSITION]:
            self._synced.update(maxima)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start(at_once=False)

    def stop(self) -> None:
        """End the thread and write a last checkpoint. After the flusher's stop. Twice is harmless."""
        if self._thread.stop():
            self.write()

    def wake(self) -> None:
        """Look whether it is time; the flusher calls this when something was appended (its `TELL_MS`)."""
        self._thread.wake()

    def step(self, now_ms: int) -> int | None:
        """Write a checkpoint if it is due; return the pause in ms until one may be, None: when woken.

        It is woken before the flush, so what is only written counts as something to come back for.
        """
        if self._failed or not self._behind(WRITE_POSITION):
            return None
        ahead = self._behind(FLUSHED_POSITION)
        due_in = self._written_ms + self._interval_ms - now_ms
        if not ahead or (ahead < LOG_BYTES_MAX and due_in > 0):
            return max(due_in, 0) or self._interval_ms
        self.write()
        return self._interval_ms if self._behind(WRITE_POSITION) and not self._failed else None

    def _behind(self, word: int) -> int:
        """How many bytes the last checkpoint is behind a position."""
        return int(self._page.words[word]) - self._checkpoint.confirm_offset

    def write(self) -> None:
        """Sync the queues that moved, then note it.

        After a failed sync nothing is noted any more in this run: the kernel may have dropped units, and a
        second sync would succeed over the loss. The next start rebuilds them from the log. A note that cannot
        be written (no space) is written later: it only is an old one until then.
        """
        if self._failed:
            return
        words = self._page.words
        store_time, target = words[LAST_STORE_TIME], self._settled(words[FLUSHED_POSITION])
        moved, maxima = self._moved()
        files = [file for row in moved for file in self._files_of(*row)]
        full = full_index_files(self._layout.index)
        unsealed = [path for path, _ in full if path not in self._sealed_index]
        try:
            sync_paths([*files, *unsealed, *([self._layout.index] if unsealed else [])], self._layout.root)
        except OSError as error:
            self._failed = True
            log.event(_logger, logging.CRITICAL, "checkpoint_failed", error=error)
            return
        self._synced.update(maxima)
        self._sealed_index = {path for path, _ in full}
        self._written_ms = monotonic_ms()
        before = self._checkpoint
        noted = replace(
            before,
            physic_timestamp=max(store_time, before.physic_timestamp),
            logics_timestamp=max(store_time, before.logics_timestamp),
            index_timestamp=full[-1][1] if full else 0,
            confirm_offset=target,
        )
        try:
            for path in unsealed:
                note_index(self._layout, path, self._index_slots)
            self._note(noted)
        except OSError as error:
            if not self._refused:
                log.event(_logger, logging.ERROR, "checkpoint_not_written", error=error)
            self._refused = True
            return
        self._refused = False
        self._checkpoint = noted

    def _note(self, noted: Checkpoint) -> None:
        """Write what the checkpoint speaks of, then the checkpoint itself."""
        self._checksums.complete(noted.confirm_offset)
        self._checksums.sync()
        faults.reach("checkpoint.queues_synced")
        save_producers(self._layout, self._producers, noted.confirm_offset)
        noted.save(self._layout.checkpoint)

    def _settled(self, position: int) -> int:
        """The end of what lies below `position` and has moved its queues' maxima.

        A claim stores `write_position` first and maxima after it. Its process may be stopped or die in
        between, while its records are flushed: they then belong to the next checkpoint.
        """
        words = self._page.words
        if words[JOURNAL_STATE] == JournalState.EMPTY:
            return position
        return min(position, int(words[JOURNAL_CLAIM_START]))

    def _moved(self) -> tuple[list[tuple[str, int, int, int]], dict[int, list[int]]]:
        """The queues whose maximum moved since the last checkpoint, as (topic, queue id, old maximum,
        maximum), and the maxima of the blocks they are in.
        """
        for entry in self._directory.catch_up():
            if entry.kind == TOPIC:
                for n in range(entry.queue_count):
                    self._names[entry.first_slot + n] = (entry.topic, entry.first_queue_id + n)
        words = self._page.words
        moved: list[tuple[str, int, int, int]] = []
        maxima: dict[int, list[int]] = {}
        used = words[QUEUE_SLOTS_USED]
        for block in range(0, used, BLOCK_SLOTS):
            first = QUEUE_TABLE + block * QUEUE_WORDS + QUEUE_MAX
            count = min(BLOCK_SLOTS, used - block)
            now = words[first : first + count * QUEUE_WORDS : QUEUE_WORDS].tolist()
            before = self._synced.get(block, [])
            if now == before:
                continue
            maxima[block] = now
            for n, (old, maximum) in enumerate(zip_longest(before, now, fillvalue=0)):
                if maximum > old and block + n in self._names:
                    moved.append((*self._names[block + n], old, maximum))
        return moved, maxima

    def _files_of(self, topic: str, queue_id: int, first: int, end: int) -> list[Path]:
        """The files that hold units `[first, end)`, and the folders of files that were not synced before."""
        size = self._layout.queue_file_bytes
        position = first * UNIT_BYTES
        paths: list[Path] = []
        for start in range(position - position % size, end * UNIT_BYTES, size):
            path = self._layout.queue_file_path(topic, queue_id, start)
            paths.append(path)
            if (topic, queue_id, start) not in self._known_files:
                self._known_files.add((topic, queue_id, start))
                paths += [path.parent, path.parent.parent, self._layout.consume_queue]
        return paths
