"""Body of SEND_BATCH_MESSAGE 320: RocketMQ's own batch, elements back to back.

    i32 total size   i32 0 (magic)   i32 0 (CRC)   i32 flag   i32 body length, body   i16 properties length,
    properties

Apache RocketMQ 5.3, MessageDecoder.java (encodeMessage, decodeMessages). Written by clients towards Apache
brokers, read by workers from any client; shmq's own clients send log-ready batches instead
(``model.record_batch``).
"""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shmq.base.errors import MessageIllegal
from shmq.model.properties import PROPERTIES_BYTES_MAX

Buffer = bytes | bytearray | memoryview

_HEAD = struct.Struct(">iiiii")
_PROPERTIES_LENGTH = struct.Struct(">h")
ELEMENT_OVERHEAD = _HEAD.size + _PROPERTIES_LENGTH.size
assert ELEMENT_OVERHEAD == 22


class BatchElement(NamedTuple):
    """One message of a batch: its body, encoded properties and flag."""

    body: Buffer
    properties: Buffer
    flag: int = 0


def encode_batch_elements(elements: Iterable[BatchElement]) -> bytes:
    """Return the body of 320; ``MessageIllegal`` when properties or flag do not fit."""
    pieces: list[Buffer] = []
    for element in elements:
        size = ELEMENT_OVERHEAD + len(element.body) + len(element.properties)
        try:
            head = _HEAD.pack(size, 0, 0, element.flag, len(element.body))
            pieces += (
                head,
                element.body,
                _PROPERTIES_LENGTH.pack(len(element.properties)),
                element.properties,
            )
        except struct.error as fault:
            raise MessageIllegal(
                f"a batch element does not fit: its properties are {len(element.properties)} bytes"
                f" (at most {PROPERTIES_BYTES_MAX}), its flag {element.flag}"
            ) from fault
    return b"".join(pieces)


def iter_batch_elements(body: Buffer) -> Iterator[BatchElement]:
    """Yield the elements as views; ``MessageIllegal`` at the first whose lengths do not hold together."""
    view = memoryview(body)
    position, end = 0, len(view)
    while position < end:
        if end - position < ELEMENT_OVERHEAD:
            raise MessageIllegal(f"batch has {end - position} bytes left, too few for an element")
        size, _, _, flag, body_length = _HEAD.unpack_from(view, position)
        body_at = position + _HEAD.size
        if not ELEMENT_OVERHEAD <= size <= end - position or not 0 <= body_length <= size - ELEMENT_OVERHEAD:
            raise MessageIllegal(f"batch element of {size} bytes with a body of {body_length} does not fit")
        body_end = body_at + body_length
        (properties_length,) = _PROPERTIES_LENGTH.unpack_from(view, body_end)
        properties_at = body_end + _PROPERTIES_LENGTH.size
        if properties_length < 0 or properties_at + properties_length != position + size:
            raise MessageIllegal(f"batch element: properties of {properties_length} bytes do not end it")
        yield BatchElement(view[body_at:body_end], view[properties_at : position + size], flag)
        position += size
