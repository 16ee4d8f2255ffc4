"""What a consumer received, on its way to the comparison: a plain file of length-prefixed records."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

HEAD = struct.Struct("<QIQII")
"""number, queue id, queue offset, key length, body length; key and body follow."""


class Received(NamedTuple):
    """One message as it came out of the broker."""

    number: int
    queue_id: int
    queue_offset: int
    key: str
    body: bytes


def write(spool: BinaryIO, received: Received) -> None:
    """Append one message."""
    key = received.key.encode()
    head = HEAD.pack(received.number, received.queue_id, received.queue_offset, len(key), len(received.body))
    spool.write(head + key + received.body)


def read(path: Path) -> Iterator[Received]:
    """Every message of a spool, in the order it was consumed."""
    with path.open("rb") as spool:
        while head := spool.read(HEAD.size):
            number, queue_id, queue_offset, key_size, body_size = HEAD.unpack(head)
            key = spool.read(key_size).decode()
            yield Received(number, queue_id, queue_offset, key, spool.read(body_size))
