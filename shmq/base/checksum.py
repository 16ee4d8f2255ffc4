"""The CRC-32 used everywhere (the polynomial of zlib and java.util.zip.CRC32).

`isal` computes it several times faster than zlib; where no wheel of it exists zlib gives the same numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

crc32: Callable[..., int]
"""Return the unsigned CRC-32 of a buffer, continuing from an optional second argument.

The library's own function, not a wrapper: batches map it over thousands of small bodies, where a Python call
would cost more than the CRC.
"""
try:
    from isal import isal_zlib

    crc32 = isal_zlib.crc32
except ImportError:
    crc32 = zlib.crc32

Buffer = bytes | bytearray | memoryview


def body_crc(buf: Buffer) -> int:
    """Return a record's BODYCRC: the CRC-32 without its sign bit (RocketMQ 5.3, UtilAll.java, crc32)."""
    return crc32(buf) & 0x7FFFFFFF
