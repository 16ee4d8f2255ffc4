"""KnownSends: reads send requests whose like was read before, without a general CBOR decoder.

A header of SEND_MESSAGE_V2 as shmq's clients write it (`client/send_template.py`) has two stretches that are
the same for all messages of a producer to a topic, and between them numbers in full width:

    87 01 19 0136 00 1a   array of 7: version 1, code 310, flag 0; a u32 follows
    opaque u32
    head                  no remark, the typed header's array: its version, group, topic .. default queues
    1a queueId u32 | 1a sysFlag u32 | 1b born u64 | 1a flag u32 | 79 length u16, properties
    tail                  reconsume times .. batch, no ext

Heads and tails are learnt from headers that the general decoder has read, by writing again what it found
there: so a stretch that is known has one reading only, and as no CBOR item is the beginning of another, bytes
that begin with a known head are its items and no others. Whatever does not fit to the last byte is None, and
goes the general way. One thread at a time learns: a worker's event loop.
"""

from __future__ import annotations

import struct
from typing import Any

from shmq.protocol.cbor_items import NULL, cbor_array, cbor_array_head

SEND_CODE = 310
_START = b"\x87\x01\x19\x01\x36\x00\x1a"
_OPAQUE = struct.Struct(">I")
_HEAD_AT = len(_START) + _OPAQUE.size
_VARYING = struct.Struct(">BIBIBQBIBH")
_MARKS = (0x1A, 0x1A, 0x1B, 0x1A, 0x79)
_FIRST, _VARY, _LAST = 5, 5, 4
"""How many values of the typed header's array stand in the head, between, and in the tail."""

HEADS_MAX = 256
SIZES_MAX = 8
"""Heads have to be as long as one of so many others: each length is one more look into the table."""
HEAD_BYTES_MAX = 1024
LEARN_EVERY = 8
"""One of so many headers that had to be read the general way is looked at, so that what cannot be learnt
costs little."""

_PLAIN = frozenset({int, bool, str, bytes, type(None)})


class KnownSends:
    """The heads that were learnt, each with its values, the values of its tail, and the tail."""

    __slots__ = ("_heads", "_sizes", "_unknown")

    def __init__(self) -> None:
        """Know nothing."""
        self._heads: dict[bytes, tuple[list[Any], list[Any], bytes]] = {}
        self._sizes: list[int] = []
        self._unknown = 0

    def read(self, header: bytes) -> tuple[int, list[Any]] | None:
        """Return opaque and the typed header's values of a send like a known one; None for any other."""
        if not header.startswith(_START):
            return None
        for size in self._sizes:
            at = _HEAD_AT + size
            known = self._heads.get(header[_HEAD_AT:at])
            if known is not None:
                break
        else:
            return None
        text_at = at + _VARYING.size
        if len(header) < text_at:
            return None
        a, queue_id, b, sys_flag, c, born, d, flag, e, length = _VARYING.unpack_from(header, at)
        first, last, tail = known
        text_end = text_at + length
        (opaque,) = _OPAQUE.unpack_from(header, len(_START))
        if (a, b, c, d, e) != _MARKS or header[text_end:] != tail or opaque > 0x7FFFFFFF:
            return None
        try:
            properties = str(header[text_at:text_end], "utf-8")
        except UnicodeDecodeError:
            return None
        return opaque, [*first, queue_id, sys_flag, born, flag, properties, *last]

    def learn(self, header: bytes, fields: list[Any]) -> None:
        """Remember the like of a header that the general decoder has read, if it can be told again."""
        self._unknown += 1
        if self._unknown % LEARN_EVERY != 1 or len(fields) != _FIRST + _VARY + _LAST:
            return
        first, last = fields[:_FIRST], fields[-_LAST:]
        if not _PLAIN.issuperset(map(type, (*first, *last))):
            return
        ones = len(cbor_array_head(_FIRST))
        head = NULL + cbor_array_head(len(fields)) + cbor_array(first)[ones:]
        tail = cbor_array(last)[ones:] + NULL
        size = len(head)
        if size > HEAD_BYTES_MAX or header[_HEAD_AT : _HEAD_AT + size] != head or not header.endswith(tail):
            return
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
            self._sizes.clear()
        if size not in self._sizes:
            if len(self._sizes) >= SIZES_MAX:
                return
            self._sizes.append(size)
        self._heads[head] = first, last, tail
