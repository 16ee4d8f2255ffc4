"""Bodies that say who sent them, and whether they are whole: CRC-32 in hex, sender:number:filler."""

from __future__ import annotations

import random
import zlib
from typing import NamedTuple

_CRC_DIGITS = 8
_SIZES = (0, 10, 200, 1_000, 5_000)


class Sender(NamedTuple):
    """Who sent a message, and which of its messages it is."""

    name: str
    number: int


def make_body(sender: Sender, rng: random.Random) -> bytes:
    """A body of one of several sizes."""
    content = f"{sender.name}:{sender.number}:".encode() + rng.randbytes(rng.choice(_SIZES))
    return b"%08x" % zlib.crc32(content) + content


def sender_of(body: bytes | memoryview) -> Sender | None:
    """Who sent a body; None when it is torn, or nobody's."""
    told, content = bytes(body[:_CRC_DIGITS]), bytes(body[_CRC_DIGITS:])
    if told != b"%08x" % zlib.crc32(content):
        return None
    name, _, rest = content.partition(b":")
    number, _, _ = rest.partition(b":")
    return Sender(name.decode(), int(number)) if number.isdigit() else None
