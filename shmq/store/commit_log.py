"""The CommitLog as one address space: physical offsets to bytes.

Segments of one size follow each other without a gap; a record lies whole in one segment and at least 8 bytes
follow it there, so a segment always ends with a BLANK (Apache RocketMQ 5.3, CommitLog.java):

    0  i32  bytes from here to the segment's end
    4  i32  CBD43194
    8  ..   zeros

Made by every process that reads or writes records; one object per thread. Writing happens only inside an
append claim, reading only below a position the caller loaded from the page.

Before old bytes are read they are touched in a way that tells of a bad sector by an error instead of SIGBUS;
the segment is then read page by page (`copied_segment.py`), for reading only. New bytes are in memory, as
they were just written; but once any process of the broker has died of SIGBUS, nothing is taken for granted.
"""

from __future__ import annotations

import contextlib
import os
import struct

from shmq.base.errors import StoreDamaged
from shmq.model.record import (
    MAGIC_V1,
    MAGIC_V2,
    PHYSICAL_OFFSET_AT,
    RECORD_OVERHEAD_V1,
    encode_blank,
    record_size,
)
from shmq.store.copied_segment import CopiedSegment
from shmq.store.mapped_file import MappedFile
from shmq.store.mapped_files import SEGMENT_MAPS_MAX, SEGMENTS_SHARE, MappedFiles, maps_max
from shmq.store.names import StoreLayout

_MAGIC_AND_OFFSET = struct.Struct(">4xi20xq")
assert _MAGIC_AND_OFFSET.size == PHYSICAL_OFFSET_AT + 8


HOT_SEGMENTS = 2
"""The newest segments, whose bytes count as being in memory."""

COPIED_BYTES_MAX = 64 << 20
"""A copy of a bad segment that has grown larger is thrown away."""


class UnreadableBytes(StoreDamaged):
    """The disk cannot give these bytes of the log."""


class CommitLog:
    """Reads and writes bytes at physical offsets."""

    def __init__(
        self, layout: StoreLayout, *, writable: bool, wary: bool = False, by_write: bool = False
    ) -> None:
        """Nothing is opened yet. `writable` maps are for processes with an appender slot.

        `wary`: a process died of SIGBUS before: touch new bytes, too. `by_write`: claims are written to the
        file, not into the map.
        """
        self._by_write = by_write
        self._wary = wary
        self._copies: dict[int, CopiedSegment] = {}
        self.layout = layout
        self.segment_bytes = layout.segment_bytes
        self._writable = writable
        limit = maps_max(SEGMENT_MAPS_MAX, SEGMENTS_SHARE)
        self._segments: MappedFiles[int] = MappedFiles(self._open, limit)

    def _open(self, start: int) -> MappedFile:
        path = self.layout.segment_path(start)
        return MappedFile(path, start, self.segment_bytes, writable=self._writable, keeps_file=self._by_write)

    def segment(self, physical_offset: int) -> MappedFile:
        """The mapped segment that holds `physical_offset`.

        FileNotFoundError when it is gone or not yet there.
        """
        return self._segments.get(physical_offset - physical_offset % self.segment_bytes)

    def view(self, physical_offset: int, size: int, end: int | None = None) -> memoryview:
        """The `size` bytes at `physical_offset`, which must lie in one segment, without a copy.

        `end` is the log's end as far as the caller knows, to tell old bytes from new. UnreadableBytes.
        """
        position = physical_offset % self.segment_bytes
        hot = end is not None and physical_offset >= end - HOT_SEGMENTS * self.segment_bytes
        if hot and not self._wary and not self._copies:
            return self.segment(physical_offset).view[position : position + size]
        segment = self._touched(physical_offset, size)
        if isinstance(segment, CopiedSegment) and not segment.touch(position, size):
            raise UnreadableBytes(f"the disk cannot give {size} bytes of the log at {physical_offset}")
        return segment.view[position : position + size]

    def window(self, begin: int, end: int) -> MappedFile:
        """The segment that holds `[begin, end)`, for reading these; what the disk cannot give is zero."""
        return self._touched(begin, end - begin)

    def _touched(self, physical_offset: int, size: int) -> MappedFile:
        """The segment with these bytes in memory: mapped, or a copy when the disk cannot give them all."""
        position = physical_offset % self.segment_bytes
        start = physical_offset - position
        copy = self._copies.get(start)
        if copy is None:
            with contextlib.suppress(StoreDamaged):  # it was cut: what is left of it can be read
                segment = self.segment(physical_offset)
                if segment.touch(position, size):
                    return segment
        if copy is None or copy.copied_bytes > COPIED_BYTES_MAX:
            copy = CopiedSegment(self.layout.segment_path(start), start, self.segment_bytes)
            self._copies[start] = copy
        copy.touch(position, size)
        return copy

    def record_at(self, physical_offset: int, low: int, high: int) -> memoryview | None:
        """The record that begins at `physical_offset`, if it lies whole in `[low, high)`; None when none can
        be there.

        The caller names any number it was given: only what looks like a record of a size that fits is
        returned, and whether the topic is the asker's to read is decided above.
        """
        if not low <= physical_offset <= high - RECORD_OVERHEAD_V1:
            return None
        position = physical_offset % self.segment_bytes
        room = min(self.segment_bytes - position, high - physical_offset)
        if room < RECORD_OVERHEAD_V1:
            return None
        try:
            size = record_size(self.view(physical_offset, RECORD_OVERHEAD_V1, high), 0)
            if not RECORD_OVERHEAD_V1 <= size <= room:
                return None
            record = self.view(physical_offset, size, high)
        except (FileNotFoundError, UnreadableBytes):
            return None
        return record if is_record(record, physical_offset) else None

    def drop_below(self, min_offset: int) -> None:
        """Forget maps of segments that retention has removed, so that their blocks can be freed."""
        self._segments.drop_where(lambda start: start + self.segment_bytes <= min_offset)
        for start in [start for start in self._copies if start + self.segment_bytes <= min_offset]:
            del self._copies[start]

    def close(self) -> None:
        """Forget all maps; views handed out stay valid."""
        self._segments.clear()
        self._copies.clear()


def is_record(record: memoryview, physical_offset: int) -> bool:
    """Whether these bytes carry a message's magic (V1 or V2) and say that they lie at `physical_offset`."""
    magic, own_offset = _MAGIC_AND_OFFSET.unpack_from(record)
    return magic in (MAGIC_V1, MAGIC_V2) and own_offset == physical_offset


def write_bytes(segment: MappedFile, position: int, data: bytes | bytearray | memoryview) -> None:
    """Bring a claim's bytes into `segment`. Under the AppendLock only.

    The one place where record bytes reach a file: by a copy into its map, or, where each message waits for
    its fdatasync, by one write. A write costs several copies; but a page that was written through a map is
    protected again by each sync, and on ext4 the next store into it makes the inode part of a journal's
    commit: a sync then took 480 to 890 us instead of 60 to 120 (measured). What a write refuses the map
    takes: the sync says what is wrong with the disk, and is where that is dealt with.
    """
    if segment.file is not None:
        with contextlib.suppress(OSError):
            if os.pwrite(segment.file.fileno(), data, position) == len(data):
                return
    segment.map[position : position + len(data)] = data


def write_blank(segment: MappedFile, position: int) -> None:
    """End `segment` at `position`, which leaves at least 8 bytes. Under the AppendLock, or in recovery."""
    write_bytes(segment, position, encode_blank(segment.size - position))
