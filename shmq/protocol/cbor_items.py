"""CBOR items as bytes, shortest form (RFC 8949): what the headers of serialization 2 are made of.

    major 0x00 unsigned   0x20 negative (-1-n)   0x40 bytes   0x60 text   0x80 array   0xA0 map
    argument n < 24 in the first byte; else 24, 25, 26, 27 there and n in 1, 2, 4, 8 bytes

Small heads come from tables: writing a header this way costs half of what a general encoder takes, which
has to look at every value. Pure functions, any process.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

_TABLE_SIZE = 256
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0

NULL = b"\xf6"
TRUE = b"\xf5"
FALSE = b"\xf4"

_ONE = struct.Struct(">BB")
_TWO = struct.Struct(">BH")
_FOUR = struct.Struct(">BI")
_EIGHT = struct.Struct(">BQ")


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major | argument,))
    if argument < 1 << 8:
        return _ONE.pack(major | 24, argument)
    if argument < 1 << 16:
        return _TWO.pack(major | 25, argument)
    if argument < 1 << 32:
        return _FOUR.pack(major | 26, argument)
    return _EIGHT.pack(major | 27, argument)


_INTEGERS = [_head(_UNSIGNED, n) for n in range(_TABLE_SIZE)]
_TEXT_HEADS = [_head(_TEXT, n) for n in range(_TABLE_SIZE)]


def cbor_integer(value: int) -> bytes:
    """Return an integer item; ``struct.error`` over 64 bits."""
    if 0 <= value < _TABLE_SIZE:
        return _INTEGERS[value]
    return _head(_UNSIGNED, value) if value > 0 else _head(_NEGATIVE, -1 - value)


def cbor_text(value: str) -> bytes:
    """Return a text item."""
    encoded = value.encode()
    length = len(encoded)
    return (_TEXT_HEADS[length] if length < _TABLE_SIZE else _head(_TEXT, length)) + encoded


def cbor_bytes(value: bytes) -> bytes:
    """Return a byte string item."""
    return _head(_BYTES, len(value)) + value


def cbor_array_head(length: int) -> bytes:
    """Return what stands before the ``length`` items of an array."""
    return _head(_ARRAY, length)


def cbor_text_map(members: Mapping[str, str]) -> bytes:
    """Return a map of texts."""
    pairs = [cbor_text(text) for member in members.items() for text in member]
    return b"".join((_head(_MAP, len(members)), *pairs))


def cbor_array(values: Sequence[Any]) -> bytes:
    """Return an array of plain values; ``TypeError`` for a value of another type."""
    return b"".join((_head(_ARRAY, len(values)), *map(_item, values)))


def _item(value: Any) -> bytes:
    if value is None:
        return NULL
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if isinstance(value, int):
        return cbor_integer(value)
    if isinstance(value, str):
        return cbor_text(value)
    if isinstance(value, bytes):
        return cbor_bytes(value)
    raise TypeError(f"{value!r} cannot stand in a CBOR header")
