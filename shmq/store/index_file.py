"""IndexFile: the hash table that finds messages by key (Apache RocketMQ 5.3, IndexFile.java,
IndexHeader.java).

    0         i64 beginTimestamp      store time of the first key        40 bytes of header
    8         i64 endTimestamp        store time of the last key
    16        i64 beginPhyOffset      physical offset of the first key
    24        i64 endPhyOffset        physical offset of the last key
    32        i32 hashSlotCount       slots taken
    36        i32 indexCount          next item's number, from 1 on
    40        i32 x slots             number of the newest item of the slot, 0: none
    40+4n     20 bytes x items        i32 key hash, i64 physical offset, i32 seconds after beginTimestamp,
                                      i32 number of the next older item of the slot; item 0 is never used

All big-endian. One writer, the coordinator's index builder, stores items, then slots, then the header's
count. So a reader, or the next builder, may find slots that name items beyond the count: those chains are
followed down to an item that counts, and nothing older is lost. Readers in any process; numpy only in the
builder.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shmq.model.subscription import java_hash
from shmq.store.mapped_file import MappedFile

HEADER = struct.Struct(">qqqqii")
ITEM = struct.Struct(">iqii")
SLOT_BYTES = 4
assert HEADER.size == 40 and ITEM.size == 20

_SLOT = struct.Struct(">i")
DIFF_SECONDS_MAX = 2**31 - 1
NAME_DIGITS = 17


def index_file_bytes(slots: int, items: int) -> int:
    """The size of a file with that many hash slots and items (RocketMQ: 5,000,000 and 20,000,000)."""
    return HEADER.size + slots * SLOT_BYTES + items * ITEM.size


def key_hash(topic: str, key: str) -> int:
    """The hash stored for a key.

    Abs of the Java hash of `topic#key`, and 0 for -2**31, which has no abs in Java.
    """
    value = abs(java_hash(f"{topic}#{key}"))
    return 0 if value == 2**31 else value


def name_for(now_ms: int) -> str:
    """The name of a file made at wall time `now_ms`: local time to the millisecond, digits only."""
    return time.strftime("%Y%m%d%H%M%S", time.localtime(now_ms // 1000)) + f"{now_ms % 1000:03d}"


def index_names(folder: Path) -> list[str]:
    """The index files in `folder`, oldest first; anything else is not an index file."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if len(name) == NAME_DIGITS and name.isascii() and name.isdecimal())


def full_index_files(folder: Path) -> list[tuple[Path, int]]:
    """The files that are full, oldest first, each with the store time (ms) of its last key.

    These are all but the newest: the next one is made when no more fits.
    """
    found = []
    for name in index_names(folder)[:-1]:
        with contextlib.suppress(FileNotFoundError), open(folder / name, "rb") as file:
            found.append((folder / name, int(HEADER.unpack(file.read(HEADER.size))[1])))
    return found


@dataclass(slots=True)
class IndexHeader:
    """The header's six numbers."""

    begin_timestamp: int = 0
    end_timestamp: int = 0
    begin_physical_offset: int = 0
    end_physical_offset: int = 0
    slot_count: int = 0
    index_count: int = 1

    @classmethod
    def decode(cls, buffer: memoryview) -> IndexHeader:
        """Read it; a count that is not positive is 1, as RocketMQ reads it."""
        header = cls(*HEADER.unpack_from(buffer))
        header.index_count = max(1, header.index_count)
        return header

    def following(self) -> IndexHeader:
        """The header of a new file behind this one: it begins where this one ends, and holds nothing."""
        return IndexHeader(
            self.end_timestamp, self.end_timestamp, self.end_physical_offset, self.end_physical_offset
        )

    def encode(self) -> bytes:
        """The 40 bytes of it."""
        return HEADER.pack(
            self.begin_timestamp,
            self.end_timestamp,
            self.begin_physical_offset,
            self.end_physical_offset,
            self.slot_count,
            self.index_count,
        )

    def makes_sense(self, slots: int, items: int) -> bool:
        """Whether the numbers can be those of a file with so many slots and items."""
        return (
            0 <= self.begin_timestamp <= self.end_timestamp
            and 0 <= self.begin_physical_offset <= self.end_physical_offset
            and 0 <= self.slot_count <= slots
            and self.index_count <= items
        )

    def covers(self, begin: int, end: int) -> bool:
        """Whether keys stored in `[begin, end]` ms can be in this file."""
        return self.index_count > 1 and begin <= self.end_timestamp and end >= self.begin_timestamp


class IndexFile:
    """One mapped index file."""

    def __init__(self, path: Path, slots: int, items: int, *, writable: bool) -> None:
        """Map it. FileNotFoundError when it is gone, StoreDamaged when its size is another one."""
        self.path = path
        self.slots = slots
        self.items = items
        self.items_at = HEADER.size + slots * SLOT_BYTES
        self.file = MappedFile(path, 0, index_file_bytes(slots, items), writable=writable)

    def header(self) -> IndexHeader:
        """The header as it is now."""
        return IndexHeader.decode(self.file.view)

    def item(self, number: int) -> tuple[int, int, int, int]:
        """(key hash, physical offset, seconds, next older item) of an item."""
        hash_, physical, seconds, older = ITEM.unpack_from(self.file.view, self.items_at + number * ITEM.size)
        return hash_, physical, seconds, older

    def slot(self, number: int) -> int:
        """The newest item of a slot as stored; it may be one that does not count yet."""
        return int(_SLOT.unpack_from(self.file.view, HEADER.size + number * SLOT_BYTES)[0])

    def find(self, hash_: int, begin: int, end: int) -> Iterator[int]:
        """Physical offsets of items with that hash stored in `[begin, end]` ms, newest first.

        Times in a file are whole seconds: an item counts when any moment of its second is in the range.
        """
        header = self.header()
        if not header.covers(begin, end):
            return
        number = self.slot(hash_ % self.slots)
        while 0 < number < self.items:
            item_hash, physical, seconds, older = self.item(number)
            stored = header.begin_timestamp + seconds * 1000
            if number < header.index_count:
                if seconds < 0 or stored + 999 < begin:
                    return
                if item_hash == hash_ and stored <= end:
                    yield physical
            if not 0 < older < number:
                return
            number = older
