"""The ConsumeQueue unit: where one message of one queue lies in the CommitLog.

    offset 0    i64  physical offset of the record      big-endian, 20 bytes, unit k of a queue at byte 20*k
    offset 8    i32  record size in bytes
    offset 12   i64  tags code: Java hash of TAGS, sign-extended; 0 without a tag; time of delivery if delayed

The numpy type of the same layout is ``UNIT_DTYPE`` in ``unit_array``, apart so that processes without numpy
can import this page.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

UNIT_STRUCT = struct.Struct(">qiq")
UNIT_BYTES = 20
assert UNIT_STRUCT.size == UNIT_BYTES


class Unit(NamedTuple):
    """One ConsumeQueue entry."""

    physical_offset: int
    size: int
    tags_code: int


def pack_unit(physical_offset: int, size: int, tags_code: int) -> bytes:
    """Return the 20 bytes of one unit."""
    return UNIT_STRUCT.pack(physical_offset, size, tags_code)


def unpack_unit(buffer: bytes | bytearray | memoryview, position: int = 0) -> Unit:
    """Return the unit that starts at byte ``position`` of ``buffer``."""
    return Unit._make(UNIT_STRUCT.unpack_from(buffer, position))


def iter_units(buffer: bytes | bytearray | memoryview) -> Iterator[Unit]:
    """Yield every unit of a buffer whose length is a multiple of 20."""
    return map(Unit._make, UNIT_STRUCT.iter_unpack(buffer))
