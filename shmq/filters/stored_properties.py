"""Reading one property out of a message's stored properties, without decoding the others.

Filters look at a handful of names per message and at every message of a topic, so each name is one search in
the stored bytes (`model/properties.py` has their form). Pure; worker processes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from shmq.model.properties import decode_properties

Stored = bytes
"""Stored properties with one 0x02 put in front, so that every name is found between two separators."""

Find = Callable[[Stored], bytes | None]

_END = b"\x02"
_DIGITS_MAX = 4_000
"""More digits than this Python does not read as one number by default."""

_INTEGER = re.compile(rb"[+-]?[0-9]{1,4000}")
_DECIMAL = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[dDfF]?")


def stored(properties: bytes | memoryview) -> Stored:
    """Return stored properties as the finders want them."""
    return _END + bytes(properties)


def finder(name: str) -> Find:
    """Return a function that finds the value of `name`, None when there is none.

    A repeated name has its last value, and a piece without a value counts for nothing, as everywhere.
    """
    key = b"\x02" + name.encode() + b"\x01"
    length = len(key)

    def find(properties: Stored) -> bytes | None:
        at = properties.rfind(key)
        if at < 0:
            return None
        at += length
        end = properties.find(_END, at)
        value = properties[at:end] if end >= 0 else properties[at:]
        if value:
            return value
        text = decode_properties(properties).get(name)
        return None if text is None else text.encode()

    return find


def number_of(text: bytes | None) -> int | float | None:
    """Return the number a value spells, None when it spells none: whole ones exactly, others as a double.

    Blanks around it and Java's type letter behind a decimal number are allowed; NaN and infinity are no
    numbers.
    """
    if text is None:
        return None
    if text.isdigit() and len(text) <= _DIGITS_MAX:
        return int(text)
    text = text.strip()
    if _INTEGER.fullmatch(text):
        return int(text)
    if not _DECIMAL.fullmatch(text):
        return None
    number = float(text.rstrip(b"dDfF"))
    return None if number in (float("inf"), float("-inf")) else number
