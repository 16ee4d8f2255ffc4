"""The CRC-32 used everywhere (the polynomial of zlib and java.util.zip.CRC32).

`isal` computes it several times faster than zlib; where no wheel of it exists zlib gives the same numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

_crc32: Callable[[Any, int], int]
try:
    from isal import isal_zlib

    _crc32 = isal_zlib.crc32
except ImportError:
    _crc32 = zlib.crc32

Buffer = bytes | bytearray | memoryview


def crc32(buf: Buffer, value: int = 0) -> int:
    """Return the unsigned CRC-32 of `buf`, continuing from `value`."""
    return _crc32(buf, value)


def body_crc(buf: Buffer) -> int:
    """Return a record's BODYCRC: the CRC-32 without its sign bit (RocketMQ 5.3, UtilAll.java, crc32)."""
    return _crc32(buf, 0) & 0x7FFFFFFF
