"""A producer's sequence: the property SHMQ_SEQUENCE, "<producer id, 16 hex digits>:<number>".

An idempotent producer numbers its sends one by one from 0; a batch is one send, its first message carries the
sequence. Sent again with the same one, a message is stored once. Pure, any process.
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from shmq.base.errors import MessageIllegal

PRODUCER_WINDOW = 1024
"""How many of a producer's last sends a broker knows."""

SEQUENCE_MAX = (1 << 62) - 1
_TEXT = re.compile(r"([0-9a-f]{16}):([0-9]{1,19})")


class Sequence(NamedTuple):
    """Which send of which producer."""

    producer_id: int
    number: int


def new_producer_id() -> int:
    """Return a random id, which no other producer will ever have: 63 bits, not 0."""
    return secrets.randbits(62) + 1


def sequence_text(producer_id: int, number: int) -> str:
    """Return the property's value."""
    return f"{producer_id:016x}:{number}"


def parse_sequence(text: str) -> Sequence:
    """Read the property's value; MessageIllegal when it is none."""
    found = _TEXT.fullmatch(text)
    if found is not None:
        producer_id, number = int(found[1], 16), int(found[2])
        if 0 < producer_id < 1 << 63 and number <= SEQUENCE_MAX:
            return Sequence(producer_id, number)
    raise MessageIllegal(
        f"property SHMQ_SEQUENCE {text[:60]!r} is not an id of 16 hex digits, a colon and a number from 0"
    )
