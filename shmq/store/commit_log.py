"""The CommitLog as one address space: physical offsets to bytes.

Segments of one size follow each other without a gap; a record lies whole in one segment and at least 8 bytes
follow it there, so a segment always ends with a BLANK (Apache RocketMQ 5.3, CommitLog.java):

    0  i32  bytes from here to the segment's end
    4  i32  CBD43194
    8  ..   zeros

Made by every process that reads or writes records; one object per thread. Writing happens only inside an
append claim, reading only below a position the caller loaded from the page.
"""

from __future__ import annotations

import struct

from shmq.model.record import (
    BLANK_BYTES_MIN,
    MAGIC_V1,
    MAGIC_V2,
    PHYSICAL_OFFSET_AT,
    RECORD_OVERHEAD_V1,
    encode_blank,
    record_size,
)
from shmq.store.mapped_file import MappedFile
from shmq.store.mapped_files import SEGMENT_MAPS_MAX, MappedFiles
from shmq.store.names import StoreLayout

_MAGIC_AND_OFFSET = struct.Struct(">4xi20xq")
assert _MAGIC_AND_OFFSET.size == PHYSICAL_OFFSET_AT + 8


class CommitLog:
    """Reads and writes bytes at physical offsets."""

    def __init__(self, layout: StoreLayout, *, writable: bool) -> None:
        """Nothing is opened yet. `writable` maps are for processes with an appender slot."""
        self.layout = layout
        self.segment_bytes = layout.segment_bytes
        self._writable = writable
        self._segments: MappedFiles[int] = MappedFiles(self._open, SEGMENT_MAPS_MAX)

    def _open(self, start: int) -> MappedFile:
        path = self.layout.segment_path(start)
        return MappedFile(path, start, self.segment_bytes, writable=self._writable)

    def segment(self, physical_offset: int) -> MappedFile:
        """The mapped segment that holds `physical_offset`.

        FileNotFoundError when it is gone or not yet there.
        """
        return self._segments.get(physical_offset - physical_offset % self.segment_bytes)

    def view(self, physical_offset: int, size: int) -> memoryview:
        """The `size` bytes at `physical_offset`, which must lie in one segment, without a copy."""
        position = physical_offset % self.segment_bytes
        return self.segment(physical_offset).view[position : position + size]

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
            view = self.segment(physical_offset).view
        except FileNotFoundError:
            return None
        size = record_size(view, position)
        if not RECORD_OVERHEAD_V1 <= size <= room:
            return None
        record = view[position : position + size]
        return record if is_record(record, physical_offset) else None

    def drop_below(self, min_offset: int) -> None:
        """Forget maps of segments that retention has removed, so that their blocks can be freed."""
        self._segments.drop_where(lambda start: start + self.segment_bytes <= min_offset)

    def close(self) -> None:
        """Forget all maps; views handed out stay valid."""
        self._segments.clear()


def is_record(record: memoryview, physical_offset: int) -> bool:
    """Whether these bytes carry a message's magic (V1 or V2) and say that they lie at `physical_offset`."""
    magic, own_offset = _MAGIC_AND_OFFSET.unpack_from(record)
    return magic in (MAGIC_V1, MAGIC_V2) and own_offset == physical_offset


def write_bytes(segment: MappedFile, position: int, data: bytes | bytearray | memoryview) -> None:
    """Copy a claim's bytes into `segment`. Under the AppendLock only.

    The one place where record bytes reach a file: writing by `os.pwritev` instead (half the price of the
    following fdatasync, several times the price of the copy) is decided here.
    """
    segment.map[position : position + len(data)] = data


def write_blank(segment: MappedFile, position: int) -> None:
    """End `segment` at `position`, which leaves at least 8 bytes. Under the AppendLock, or in recovery."""
    segment.map[position : position + BLANK_BYTES_MIN] = encode_blank(segment.size - position)
