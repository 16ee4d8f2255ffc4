"""Checksums of the CommitLog: a record protects its body by a CRC, these files every byte that was flushed.

    <store>/checksums/00000000001073741824     one per CommitLog segment, of the segment's name, append only

    0   i64  physical offset of the first byte     20 bytes an entry, big-endian
    8   i32  how many bytes; negative: so many were not summed
    12  u32  CRC-32 of these bytes, 0 when not summed
    16  u32  CRC-32 of the 16 bytes before

Entries follow each other without a gap, from wherever the first begins. They are cut at multiples of 4 KiB of
the log, so that damage is located to a page, and wherever a flush ended while nothing more came.

Written by the supervisor alone: by the flusher after `flushed_position` has moved and whoever waited is told,
some pages at a time; by the checkpointer, who sums what is left and syncs the files before its checkpoint. So
a power cut may take entries above the checkpoint: missing or torn ones mean "not verified", and `cut_back`,
called by recovery, leaves an unbroken row that ends at or below the log's end. If it dies, the next start
goes on behind the last whole entry. A disk that refuses stops the sums and nothing else. No numpy here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
from itertools import pairwise
from pathlib import Path

from shmq.base import log
from shmq.base.checksum import crc32
from shmq.base.faults import declare, reach
from shmq.base.files import fsync_folder
from shmq.store.checkpoint import Checkpoint
from shmq.store.names import StoreLayout, file_starts
from shmq.store.segment_descriptors import SegmentDescriptors
from shmq.store.sparse_files import sync_path

ENTRY = struct.Struct(">qiII")
ENTRY_BYTES = 20
assert ENTRY.size == ENTRY_BYTES

_SUMMED = struct.Struct(">qiI")
_CRC = struct.Struct(">I")

PIECE_BYTES = 4096
READ_BYTES = 256 << 10
"""Log bytes read at a time: the interpreter lock is free in between."""

FOLLOW_BYTES = 64 << 10
"""So many flushed bytes are worth a write while more are coming."""

CATCH_UP_MAX = 256 << 20
"""A start sums what the run before it has flushed and not summed, up to so many bytes."""

_UNSUMMED_MAX = 1 << 30

_logger = log.get(__name__)

declare({"checksums.written": "entries are in the side file, perhaps not on the disk"})


def entry_of(start: int, data: memoryview | bytes) -> bytes:
    """The entry of one piece of log."""
    summed = _SUMMED.pack(start, len(data), crc32(data))
    return summed + _CRC.pack(crc32(summed))


def valid_entry(raw: bytes, at: int) -> tuple[int, int] | None:
    """(first byte, end) of the piece that the entry at byte `at` speaks of; None when it is no entry."""
    start, length, _, own = ENTRY.unpack_from(raw, at)
    if crc32(raw[at : at + 16]) != own or not length or start < 0:
        return None
    return start, start + abs(length)


def remove_checksums(layout: StoreLayout, start: int) -> None:
    """Remove the side file of the segment that begins at `start`: for whoever unlinks the segment."""
    layout.checksum_path(start).unlink(missing_ok=True)


def remove_all_checksums(layout: StoreLayout) -> int:
    """Remove every side file, as another engine may have written other bytes; return how many there were."""
    starts = file_starts(layout.checksums)
    for start in starts:
        remove_checksums(layout, start)
    return len(starts)


def sum_anew(layout: StoreLayout, begin: int, end: int) -> None:
    """Correct the entries of pieces that reach into `[begin, end)` of one segment: it was changed on purpose.

    Recovery and repair, when nobody else writes. Durable when it returns.
    """
    start = layout.segment_start(begin)
    path = layout.checksum_path(start)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    segment = os.open(layout.segment_path(start), os.O_RDONLY | os.O_CLOEXEC)
    try:
        raw = path.read_bytes()
        for at in range(0, len(raw) // ENTRY_BYTES * ENTRY_BYTES, ENTRY_BYTES):
            first, length, _, _ = ENTRY.unpack_from(raw, at)
            if first < end and first + length > begin and valid_entry(raw, at) is not None:
                os.pwrite(fd, entry_of(first, os.pread(segment, length, first - start)), at)
        os.fsync(fd)
    finally:
        os.close(segment)
        os.close(fd)


def summed_end(layout: StoreLayout) -> int | None:
    """Up to where the newest side file speaks of the log without a doubt; None without one."""
    for start in reversed(file_starts(layout.checksums)):
        raw = layout.checksum_path(start).read_bytes()
        for at in range(len(raw) // ENTRY_BYTES * ENTRY_BYTES - ENTRY_BYTES, -1, -ENTRY_BYTES):
            if (piece := valid_entry(raw, at)) is not None:
                return piece[1]
    return None


def cut_back(layout: StoreLayout, trusted: int, end: int) -> None:
    """Leave an unbroken row of entries that ends at or below `end`, the end of the recovered log.

    Entries below `trusted` were synced before a checkpoint and are not looked at. Recovery only.
    """
    reached: int | None = None
    for start in file_starts(layout.checksums):
        path = layout.checksum_path(start)
        if path.stat().st_size < ENTRY_BYTES:
            log.event(_logger, logging.WARNING, "checksums_lost", file=path)
            path.unlink()
            continue
        if start + layout.segment_bytes <= trusted:
            continue
        raw = path.read_bytes()
        count = len(raw) // ENTRY_BYTES
        kept = count
        while kept:
            before = valid_entry(raw, (kept - 1) * ENTRY_BYTES)
            if before is not None and before[1] <= trusted:
                reached = before[1]
                break
            kept -= 1
        for n in range(kept, count):
            piece = valid_entry(raw, n * ENTRY_BYTES)
            if piece is None or piece[1] > end or (reached is not None and piece[0] != reached):
                break
            reached = piece[1]
            kept = n + 1
        if kept * ENTRY_BYTES != len(raw):
            log.event(
                _logger, logging.INFO, "checksums_cut", file=path, entries=count, kept=kept, log_end=end
            )
            os.truncate(path, kept * ENTRY_BYTES)
            sync_path(path)
            if not kept:
                path.unlink()
            for later in [later for later in file_starts(layout.checksums) if later > start]:
                remove_checksums(layout, later)
            break
        sync_path(path)  # what is kept lies below the next checkpoint, and may be in memory only
    if layout.checksums.is_dir():
        fsync_folder(layout.checksums)


class LogChecksums:
    """Writes the side files of one store. Shared by flusher and checkpointer, threads of one process."""

    def __init__(self, layout: StoreLayout, descriptors: SegmentDescriptors) -> None:
        """Nothing is opened yet; `descriptors` are those that the flusher syncs."""
        self._layout = layout
        self._descriptors = descriptors
        self._lock = threading.Lock()
        self._summed = 0
        self._file_start = -1
        self._fd = -1
        self._size = 0
        self._unsynced: set[Path] = set()
        self._refused = 0

    @property
    def summed(self) -> int:
        """Up to where the log is summed. Any thread."""
        return self._summed

    def open(self, flushed: int) -> None:
        """Find where to go on. Once, before the first `follow`; OSError is logged, not raised."""
        try:
            self._layout.checksums.mkdir(parents=True, exist_ok=True)
            noted = Checkpoint.load(self._layout.checkpoint).confirm_offset
            starts = file_starts(self._layout.checksums)
            # A run before this one may have died before it synced them.
            self._unsynced = {
                self._layout.checksum_path(s) for s in starts if s + self._layout.segment_bytes > noted
            }
            end = self._find_end(flushed)
            self._summed = flushed if end is None else end
            if flushed - self._summed > CATCH_UP_MAX:
                self._note_unsummed(flushed)
        except OSError as error:
            self._summed = flushed
            self._note_refusal(error)

    def _find_end(self, flushed: int) -> int | None:
        """The end of the last whole entry at or below `flushed`; what its file has behind it is cut off."""
        for start in reversed(file_starts(self._layout.checksums)):
            path = self._layout.checksum_path(start)
            raw = path.read_bytes()
            size = len(raw) // ENTRY_BYTES * ENTRY_BYTES
            while size:
                piece = valid_entry(raw, size - ENTRY_BYTES)
                if piece is not None and piece[1] <= flushed:
                    os.truncate(path, size)
                    return piece[1]
                size -= ENTRY_BYTES
            path.unlink()
        return None

    def follow(self, flushed: int) -> None:
        """Sum whole pages below `flushed` when there are enough of them. Flusher."""
        if flushed - self._summed >= FOLLOW_BYTES:
            self.complete(flushed - flushed % PIECE_BYTES)

    def complete(self, position: int) -> None:
        """Sum everything below `position`, which is flushed."""
        with self._lock:
            try:
                while self._summed < position:
                    try:
                        self._piece(position)
                    except FileNotFoundError:
                        start = self._layout.segment_start(self._summed)
                        if self._layout.segment_path(start).exists():
                            raise
                        self._summed = min(position, start + self._layout.segment_bytes)  # it was deleted
            except OSError as error:
                self._note_refusal(error)
                return
            self._refused = 0
            self._descriptors.close_below(self._summed)  # a deleted segment must not be held by us

    def sync(self) -> None:
        """Make what was written durable. Checkpointer; OSError when the disk fails."""
        with self._lock:
            unsynced, self._unsynced = self._unsynced, set()
        for path in unsynced:
            with contextlib.suppress(FileNotFoundError):
                sync_path(path)
        if unsynced:
            fsync_folder(self._layout.checksums)
            fsync_folder(self._layout.root)

    def close(self) -> None:
        """Close the open file. Twice is harmless."""
        with self._lock:
            self._let_go()

    # ---- under the lock

    def _piece(self, position: int) -> None:
        """Sum the next bytes of one segment and write their entries."""
        first = self._summed
        start = self._layout.segment_start(first)
        end = min(position, start + self._layout.segment_bytes, first - first % PIECE_BYTES + READ_BYTES)
        fd = self._descriptors.get(start)
        data = memoryview(os.pread(fd, end - first, first - start))
        if len(data) < end - first:
            raise OSError(5, "the segment is shorter than the log")
        cuts = [0, *range(PIECE_BYTES - first % PIECE_BYTES, len(data), PIECE_BYTES), len(data)]
        entries = [entry_of(first + a, data[a:b]) for a, b in pairwise(cuts)]
        self._write(start, b"".join(entries))
        self._summed = end

    def _note_unsummed(self, end: int) -> None:
        """Say that everything up to `end` is not summed: too much for a start."""
        while self._summed < end:
            start = self._layout.segment_start(self._summed)
            length = min(end - self._summed, start + self._layout.segment_bytes - self._summed, _UNSUMMED_MAX)
            unsummed = _SUMMED.pack(self._summed, -length, 0)
            self._write(start, unsummed + _CRC.pack(crc32(unsummed)))
            self._summed += length

    def _write(self, start: int, entries: bytes) -> None:
        """Append to the side file of the segment at `start`."""
        path = self._layout.checksum_path(start)
        if self._file_start != start:
            self._let_go()
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._file_start = start
            self._size = os.fstat(self._fd).st_size // ENTRY_BYTES * ENTRY_BYTES
        if os.pwrite(self._fd, entries, self._size) != len(entries):
            raise OSError(28, "the side file could not be written whole")
        reach("checksums.written")
        self._size += len(entries)
        self._unsynced.add(path)

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = self._file_start = -1

    def _note_refusal(self, error: OSError) -> None:
        """Say it once: sums wait until the disk takes them, nothing else does."""
        number = error.errno or 1
        if self._refused != number:
            self._refused = number
            log.event(_logger, logging.ERROR, "checksums_stopped", error=error, summed=self._summed)
