"""MessageStore: the one door to the store for workers and the coordinator. Wires, delegates, decides nothing.

    append        append_claim.py        one turn's requests, in as many claims as it takes
    read          read.py                records of a queue as views
    offset_by_time, store_time_at        queue_times.py
    lookup_key    index_lookup.py        physical offsets by key
    record_at     commit_log.py          one record by physical offset

One object per process and thread, over a control page that is valid already. Nothing here knows commands,
topics' rules or sockets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shmq.base.errors import Bug, Unavailable
from shmq.model.record import check_record
from shmq.model.settings import BrokerSettings
from shmq.shm.append_lock import AppendLock
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.counters import has_died_of_sigbus
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import (
    CONFIRM_OFFSET,
    DISK_FULL,
    FILES_UNLINKED,
    FLUSHED_POSITION,
    INDEXED_POSITION,
    MIN_OFFSET,
    WRITE_POSITION,
    ZEROED_POSITION,
)
from shmq.shm.queue_table import QueueRef, QueueTable
from shmq.store.append_claim import Appender
from shmq.store.append_request import AppendOutcome, AppendRequest
from shmq.store.commit_log import CommitLog
from shmq.store.consume_queues import ConsumeQueues
from shmq.store.doubts import Doubts
from shmq.store.index_lookup import IndexLookup
from shmq.store.names import StoreLayout
from shmq.store.promised import is_promised
from shmq.store.queue_times import Boundary, QueueTimes
from shmq.store.read import ExactFilter, QueueReader, ReadResult


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """Positions of the log, and how full its disk is (0..1)."""

    min_offset: int
    write_position: int
    flushed_position: int
    confirm_offset: int
    visible_position: int
    zeroed_position: int
    indexed_position: int
    disk_ratio: float
    disk_bytes: int
    state: str = "OK"
    """OK, or why no message is taken: DISK_FULL, FLUSH_FAILED, READ_ONLY."""


class MessageStore:
    """The store as one process uses it."""

    def __init__(
        self,
        layout: StoreLayout,
        settings: BrokerSettings,
        page: ControlPage,
        slot: int,
        lock: AppendLock | None,
        bells: Sequence[Doorbell],
        by_write: bool,
    ) -> None:
        """Use `open`."""
        writable = lock is not None
        self.layout = layout
        self.page = page
        self.table = QueueTable(page)
        wary = has_died_of_sigbus(page)
        self.log = CommitLog(layout, writable=writable, wary=wary, by_write=by_write)
        self.queues = ConsumeQueues(layout, writable=writable, wary=wary)
        self._doubts = Doubts(page, bells)
        self.reader = QueueReader(page, self.table, self.log, self.queues, self._doubts)
        self._times = QueueTimes(self.reader, self.table, self.log, self.queues)
        self._index = IndexLookup(layout, settings)
        self._appender = (
            Appender(page, slot, lock, self.log, self.queues, bells) if lock is not None else None
        )
        self._files_unlinked = page.words[FILES_UNLINKED]

    @classmethod
    def open(
        cls,
        root: Path,
        settings: BrokerSettings,
        page: ControlPage,
        slot: int,
        lock: AppendLock | None,
        bells: Sequence[Doorbell],
        *,
        by_write: bool = False,
    ) -> MessageStore:
        """Open the store at `root` over `page`. `lock` None: reads only.

        `slot` is the caller's appender slot. `by_write`: claims are written to the log's file, not copied
        into its map (`commit_log.write_bytes`); for processes with one thread, as a write lets others run.
        """
        return cls(StoreLayout.of(root, settings), settings, page, slot, lock, bells, by_write)

    def append(
        self, requests: Sequence[AppendRequest], *, rings_flusher: bool = True
    ) -> list[AppendOutcome | None]:
        """Append in order; None for requests that wait for a segment. See `Appender.append`."""
        if self._appender is None:
            raise Bug("this store was opened for reading")
        return self._appender.append(requests, rings_flusher=rings_flusher)

    def read(
        self,
        queue: QueueRef,
        queue_offset: int,
        max_count: int,
        max_bytes: int,
        tag_hashes: frozenset[int] | None = None,
        exact: ExactFilter | None = None,
    ) -> ReadResult:
        """Read visible records of `queue` from `queue_offset`. See `QueueReader.read`."""
        self.follow_retention()
        return self.reader.read(queue, queue_offset, max_count, max_bytes, tag_hashes, exact)

    def min(self, queue: QueueRef) -> int:
        """The first queue offset that is still there."""
        return self.table.min(queue.slot)

    def max(self, queue: QueueRef) -> int:
        """One behind the last visible message's queue offset."""
        return self.reader.visible_max(queue)

    def is_flushed(self, end: int) -> bool:
        """Tell whether the log is on the disk up to `end`."""
        return self.page.words[FLUSHED_POSITION] >= end

    def record_at(self, physical_offset: int) -> memoryview | None:
        """The visible record that begins exactly there; None without one, or when it is not sound."""
        self.follow_retention()
        low = self.page.words[MIN_OFFSET]
        record = self.log.record_at(physical_offset, low, self.page.visible_position())
        if record is None or check_record(record, 0, len(record)) != len(record):
            return None
        return record

    def message_at(self, queue: QueueRef, queue_offset: int, physical_offset: int) -> memoryview | None:
        """The visible record of a message of a queue; None when it is not there (any more), or damaged for
        good.

        For whoever makes another record of it, so that damage does not become a sound message. Unavailable:
        it is damaged and being looked at, ask again soon.
        """
        record = self.record_at(physical_offset)
        if record is None or not is_promised(record, physical_offset, queue.queue_id, queue_offset):
            self.doubt(queue, queue_offset)
            return None
        return record

    def doubt(self, queue: QueueRef, queue_offset: int) -> None:
        """Have a message looked at that is not sound. Unavailable while that may help."""
        is_there = queue_offset >= self.table.min(queue.slot)
        if is_there and self._doubts.may_be_mended(queue, queue_offset):
            raise Unavailable(f"message {queue_offset} of {queue.topic} is damaged and being looked at")

    def store_time_at(self, queue: QueueRef, queue_offset: int) -> int | None:
        """When that message was stored (ms); None when it is not there (any more)."""
        return self._times.store_time_at(queue, queue_offset)

    def offset_by_time(self, queue: QueueRef, ts_ms: int, boundary: Boundary = Boundary.LOWER) -> int:
        """The queue offset that belongs to a time. See `QueueTimes.offset_by_time`."""
        return self._times.offset_by_time(queue, ts_ms, boundary)

    def lookup_key(self, topic: str, key: str, max_count: int, begin: int, end: int) -> list[int]:
        """Physical offsets of messages of `topic` with `key`, stored in `[begin, end]` ms, newest first.

        Keys are found by hash: the caller looks at the record. See `IndexLookup.lookup`.
        """
        return self._index.lookup(topic, key, max_count, begin, end)

    def facts(self) -> StoreFacts:
        """Positions and disk use, for runtime statistics."""
        words = self.page.words
        disk = os.statvfs(self.layout.root)
        used = disk.f_blocks - disk.f_bfree
        return StoreFacts(
            words[MIN_OFFSET],
            words[WRITE_POSITION],
            words[FLUSHED_POSITION],
            words[CONFIRM_OFFSET],
            self.page.visible_position(),
            words[ZEROED_POSITION],
            words[INDEXED_POSITION],
            used / max(1, used + disk.f_bavail),
            disk.f_blocks * disk.f_frsize,
            "DISK_FULL" if words[DISK_FULL] and self.page.state is PageState.OK else self.page.state.name,
        )

    def follow_retention(self) -> None:
        """Let go of maps of files that were deleted since the last look, so that their disk space is free.

        Before every read, and when retention rings: a process that only waits must not hold them.
        """
        unlinked = self.page.words[FILES_UNLINKED]
        if unlinked != self._files_unlinked:
            self._files_unlinked = unlinked
            self.log.drop_below(self.page.words[MIN_OFFSET])
            self.queues.drop_below(lambda queue: self.table.min(queue.slot))
            self._index.forget_gone()
            if self._appender is not None:
                self._appender.forget_segments()

    def forget_ended(self) -> None:
        """Let go of maps of deleted queues, so that their unlinked files free their disk blocks.

        Called in every process after a topic was deleted.
        """
        self.queues.drop_where(lambda queue: not self.table.alive(queue))

    def close(self) -> None:
        """Forget all maps; views handed out stay valid."""
        self.log.close()
        self.queues.close()
        self._index.close()
