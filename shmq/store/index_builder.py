"""IndexBuilder: follows the log and puts the keys of every record into the index files. A service of the
coordinator.

It reads from INDEXED_POSITION up to the visible position, a bounded piece per step, all records of a piece at
once: per piece the new items are one array, written as one block; then the slots; then the header, whose
count makes them valid. So after a death in between, slots may name items that do not count: `_mend` follows
those chains down when the file is opened again, and the piece is indexed once more. The lag is WRITE_POSITION
- INDEXED_POSITION.

Full files are synced by the checkpointer, another process, before it counts them as durable; this only syncs
what is left at a clean stop. Disk blocks are allocated ahead of their use, so a full disk stops the index (it
goes on when there is room) and never kills the coordinator. Only this writes index files; no lock.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shmq.base import faults, log
from shmq.base.clock import SYSTEM_CLOCK, Clock
from shmq.base.file_sums import forget
from shmq.model.record import BLANK_BYTES_MIN
from shmq.model.settings import BrokerSettings
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import SlotCounters, has_died_of_sigbus
from shmq.shm.page_layout import INDEXED_POSITION, MIN_OFFSET
from shmq.shm.worker_slots import COORDINATOR_SLOT
from shmq.store.commit_log import CommitLog
from shmq.store.index_file import (
    DIFF_SECONDS_MAX,
    HEADER,
    ITEM,
    IndexFile,
    IndexHeader,
    index_file_bytes,
    index_names,
    name_for,
)
from shmq.store.index_keys import keys_of
from shmq.store.index_sums import note_index
from shmq.store.log_scan import IntArray, Scan, ScanEnd, scan
from shmq.store.names import StoreLayout
from shmq.store.sparse_files import sync_paths

STEP_RECORDS = 4096
"""Records per step: some 10 ms of the coordinator's loop."""

WARY_BYTES = 64 << 20
WARY_RECORDS = 4
"""Records per step once a process died of SIGBUS, and what they need at most: read with care."""

IDLE_MS = 1000
SPARSE_MS = 250
BUSY_MS = 50
"""Pause when the log stood still, and when it grew but is indexed to its end: lets pieces get large.

A piece costs a millisecond or two whatever is in it, and the core it runs on is one that messages wait for.
"""

SPARSE_RECORDS = 128
"""With fewer records in a piece, the next one waits longer."""

REFUSED_MS = 1000
"""Pause after the disk refused."""

WINDOW_BYTES = 4 << 20
"""Item space allocated at a time."""

ITEM_DTYPE = np.dtype([("hash", ">i4"), ("physical", ">i8"), ("seconds", ">i4"), ("older", ">i4")])
assert ITEM_DTYPE.itemsize == ITEM.size

_logger = log.get(__name__)

faults.declare(
    {
        "index.file_made": "the next file is there, with nothing in it",
        "index.items_written": "items written, no slot names them",
        "index.slots_written": "slots name items that the header does not count",
        "index.header_written": "the keys count, INDEXED_POSITION does not know",
    }
)


class IndexBuilder:
    """Builds the key index of one store."""

    def __init__(
        self, layout: StoreLayout, settings: BrokerSettings, page: ControlPage, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Go on where INDEXED_POSITION says."""
        self._layout = layout
        self._page = page
        self._counters = SlotCounters(page, COORDINATOR_SLOT)
        self._clock = clock
        self._enabled = settings.message_index_enable
        self._slots = settings.max_hash_slot_num
        self._items = settings.max_index_num
        self._log = CommitLog(layout, writable=False)
        self._wary = has_died_of_sigbus(page)
        self._file: _OpenIndex | None = None
        self._filled: list[Path] = []
        self._refused = False

    @property
    def lag(self) -> int:
        """Visible bytes of the log whose keys are not indexed yet."""
        return max(0, self._page.visible_position() - int(self._page.words[INDEXED_POSITION]))

    def step(self, now_ms: int) -> int:
        """Index a piece; return the monotonic ms of the next step."""
        if not self._enabled:
            self._page.words[INDEXED_POSITION] = self._page.visible_position()
            return now_ms + IDLE_MS
        if not self.lag:
            return now_ms + IDLE_MS
        # What arrives during this piece waits for the next one: going on at once for each new message
        # would take a whole core from the producer that sends them.
        wanted = self._page.visible_position()
        try:
            records = self._piece()
        except OSError as error:
            if not self._refused:
                log.event(_logger, logging.ERROR, "index_stopped", error=error, lag=self.lag)
            self._refused = True
            return now_ms + REFUSED_MS
        self._refused = False
        if self._page.words[INDEXED_POSITION] < wanted:
            return now_ms
        return now_ms + (BUSY_MS if records >= SPARSE_RECORDS else SPARSE_MS)

    def _piece(self) -> int:
        """Index the next records of one segment; return how many."""
        words = self._page.words
        position = max(int(words[INDEXED_POSITION]), int(words[MIN_OFFSET]))
        visible = self._page.visible_position()
        end = self._layout.segment_start(position) + self._layout.segment_bytes
        if self._wary:
            segment = self._log.window(position, min(visible, end, position + WARY_BYTES))
        else:
            segment = self._log.segment(position)
        stop = min(visible, end) - segment.start
        found = scan(
            segment.map,
            position - segment.start,
            stop,
            segment.start,
            check_bodies=False,
            check_text=False,
            records_max=WARY_RECORDS if self._wary else STEP_RECORDS,
        )
        records, hashes = keys_of(segment.map, found)
        self._put(found, records, hashes)
        faults.reach("index.header_written")
        position = segment.start + found.stop
        if found.end is ScanEnd.BLANK or end - position < BLANK_BYTES_MIN:
            position = end
        elif found.end is ScanEnd.BROKEN:
            position = self._skip_damage(position, found.broken_size, end)
        words[INDEXED_POSITION] = position
        return len(found.physical_offsets)

    def _skip_damage(self, position: int, size: int, end: int) -> int:
        """Where to go on behind bytes below the visible position that hold no record (recovery has reported
        them).
        """
        behind = position + size if size else end
        log.event(_logger, logging.WARNING, "index_skipped_damage", position=position, size=behind - position)
        return behind

    # ---- files

    def _put(self, found: Scan, records: IntArray, hashes: IntArray) -> None:
        """Put the entries into the newest file, or into several."""
        physical, times = found.physical_offsets[records], found.store_times[records]
        done = 0
        while done < len(hashes):
            file = self._newest_file()
            done = max(done, file.known(physical))
            if done == len(hashes):
                break
            count = _whole_records(physical[done:], file.room)
            if not count:
                self._file = self._make(file.header)
                self._filled.append(file.path)
                continue
            part = slice(done, done + count)
            file.put(hashes[part], physical[part], times[part])
            self._counters.add("index_keys", count)
            done += count

    def _newest_file(self) -> _OpenIndex:
        """The newest file, mended if a predecessor died in it; the first one is made."""
        if self._file is None:
            names = index_names(self._layout.index)
            path = self._layout.index / names[-1] if names else None
            if path is None:
                self._file = self._make(IndexHeader())
            else:
                forget(self._layout.checksums, path)
                self._file = _OpenIndex(IndexFile(path, self._slots, self._items, writable=True))
                self._file.mend()
        return self._file

    def _make(self, before: IndexHeader) -> _OpenIndex:
        """Make the next file under a name of its own time: whole length, slot table allocated, and with the
        provisional begin and end that RocketMQ copies from the file `before`: what that one holds is known.
        """
        temp = self._layout.identity.parent / "next-index"
        now_ms = self._clock.now_ms()
        names = index_names(self._layout.index)
        while names and name_for(now_ms) <= names[-1]:
            now_ms += 1
        path = self._layout.index / name_for(now_ms)
        temp.unlink(missing_ok=True)
        fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(fd, index_file_bytes(self._slots, self._items))
            os.posix_fallocate(fd, 0, index_file_bytes(self._slots, 0))
            os.pwrite(fd, before.following().encode(), 0)
        finally:
            os.close(fd)
        temp.rename(path)
        faults.reach("index.file_made")
        made = _OpenIndex(IndexFile(path, self._slots, self._items, writable=True))
        log.event(_logger, logging.INFO, "index_file_made", name=path.name)
        return made

    def follow_retention(self) -> None:
        """Let go of segments that were deleted."""
        self._log.drop_below(self._page.words[MIN_OFFSET])

    def close(self) -> None:
        """Sync every file written to in this run: at a clean stop all keys are promised."""
        if self._file is not None:
            sync_paths([*self._filled, self._file.path, self._layout.index], self._layout.root)
            note_index(self._layout, self._file.path, self._slots)
            self._file = None
        self._log.close()


def _whole_records(physical: IntArray, room: int) -> int:
    """How many entries fit into `room` so that no record's keys are split over two files."""
    if len(physical) <= room:
        return len(physical)
    count = room
    while count and physical[count - 1] == physical[count]:
        count -= 1
    return count


class _OpenIndex:
    """The file being filled: its header as numbers, its tables as arrays over the map."""

    def __init__(self, file: IndexFile) -> None:
        self._file = file
        self.header = file.header()
        self._slots: npt.NDArray[np.signedinteger[npt.NBitBase]] = np.frombuffer(
            file.file.map, ">i4", file.slots, HEADER.size
        )
        self._allocated = file.items_at

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def room(self) -> int:
        """How many items still fit (RocketMQ leaves one place free at the end)."""
        return self._file.items - self.header.index_count

    def known(self, physical: IntArray) -> int:
        """How many of these entries, in log order, are in this file or an older one already."""
        if not self.header.end_timestamp:
            return 0
        return int(np.searchsorted(physical, self.header.end_physical_offset, side="right"))

    def put(self, hashes: IntArray, physical: IntArray, times: IntArray) -> None:
        """Append items; they are in log order and fit."""
        header, count = self.header, len(hashes)
        first = header.index_count
        if first == 1:
            header.begin_timestamp, header.begin_physical_offset = int(times[0]), int(physical[0])
        self._make_room(self._file.items_at + (first + count) * ITEM.size)
        slots = hashes % self._file.slots
        numbers = np.arange(first, first + count)
        order = np.argsort(slots, kind="stable")
        ordered = slots[order]
        is_first = np.diff(ordered, prepend=-1) != 0
        is_last = np.append(is_first[1:], True)
        stored = self._slots[ordered].astype(np.int64)
        older = np.empty(count, np.int64)
        older[order] = np.where(is_first, stored, np.roll(numbers[order], 1))
        items = np.empty(count, ITEM_DTYPE)
        items["hash"], items["physical"], items["older"] = hashes, physical, older
        items["seconds"] = np.clip((times - header.begin_timestamp) // 1000, 0, DIFF_SECONDS_MAX)
        at = self._file.items_at + first * ITEM.size
        self._file.file.map[at : at + count * ITEM.size] = items.tobytes()
        faults.reach("index.items_written")
        self._slots[ordered[is_last]] = numbers[order][is_last]
        faults.reach("index.slots_written")
        header.slot_count += int(np.count_nonzero(stored[is_first] == 0))
        header.index_count += count
        header.end_timestamp, header.end_physical_offset = int(times[-1]), int(physical[-1])
        self._store_header()

    def _store_header(self) -> None:
        self._file.file.map[: HEADER.size] = self.header.encode()

    def _make_room(self, end: int) -> None:
        """Give the items up to `end` disk blocks. OSError when the disk refuses."""
        if end <= self._allocated:
            return
        wanted = min(self._file.file.size, -(-end // WINDOW_BYTES) * WINDOW_BYTES)
        fd = os.open(self._file.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(fd, self._allocated, wanted - self._allocated)
        finally:
            os.close(fd)
        self._allocated = wanted

    def mend(self) -> None:
        """Lead every slot that names an item beyond the count down its chain to one that counts."""
        count = self.header.index_count
        slots = self._slots.astype(np.int64)
        ahead = np.flatnonzero(slots >= count)
        if not len(ahead):
            return
        items = np.frombuffer(self._file.file.map, ITEM_DTYPE, self._file.items, self._file.items_at)
        numbers = slots[ahead]
        while (beyond := np.flatnonzero(numbers >= count)).size:
            valid = np.minimum(numbers[beyond], self._file.items - 1)
            older = items["older"][valid].astype(np.int64)
            numbers[beyond] = np.where((older < numbers[beyond]) & (older > 0), older, 0)
        self._slots[ahead] = numbers
        log.event(_logger, logging.WARNING, "index_mended", slots=len(ahead))
