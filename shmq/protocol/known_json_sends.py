"""KnownJsonSends: reads send requests in JSON whose like was read before, without a JSON reader.

RocketMQ's clients write the same text for all messages of a producer to a topic, but for four values:

    head        {"code":310,"extFields":{"a":"Group", ... "e":"
    queue id    up to 9 digits
    flags       ","f":"0","g":"
    born        13 digits
    middle      ","h":"0","i":"
    properties  ASCII, with 0x01 and 0x02 written as escapes and no other escape
    tail        ","j":"0", ... },"flag":0,"language":"JAVA","opaque":
    opaque      digits
    end         ,"serializeTypeCurrentRPC":"JSON","version":479}

A text is learnt from a header that the general reader has read, and proved by that reader: with other values
in the four places it must read those values, and all else the same. A place that gives a whole text, or a
whole number, does so whatever text without quotes and escapes, or number, stands in it. Whatever does not fit
to the last byte is None, and goes the general way. One thread at a time learns: a worker's event loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

from shmq.base.errors import FrameFault, InvalidParameter
from shmq.protocol.header_table import HEADER_VERSION, codec_of
from shmq.protocol.headers.send import SendMessageHeader
from shmq.protocol.json_header import HeaderParts, decode_json_header
from shmq.protocol.known_sends import HEAD_BYTES_MAX, HEADS_MAX, LEARN_EVERY, SEND_CODE, SIZES_MAX

LEARN_BYTES_MAX = 4096
"""Longer headers are not learnt from: their text is searched several times over."""

_QUEUE_GAP = rb"(0|[1-9]\d{0,8})"
_BORN_GAP = rb"(\d{13})"
_PROPERTIES_GAP = rb"([ !#-~]*)"
_OPAQUE_GAP = rb"([1-9]\d{0,9})"
_SHAPE = re.compile(
    rb'(\{"code":310,.*?"e":")\d{1,9}(".*?"g":")\d{13}(".*?"i":")[^"]*(".*"opaque":)\d{1,10}([^0-9].*)',
    re.DOTALL,
)
_PROBE_QUEUE, _PROBE_BORN, _PROBE_OPAQUE = b"543212345", b"1234567890123", b"1987654321"
_PROBE_TEXT = b"A\\u0001B\\u0002"
_GAPS = (_QUEUE_GAP, _BORN_GAP, _PROPERTIES_GAP, _OPAQUE_GAP, b"")
_PROBES = (_PROBE_QUEUE, _PROBE_BORN, _PROBE_TEXT, _PROBE_OPAQUE, b"")
_QUEUE_ID, _BORN, _PROPERTIES = 5, 7, 9
"""Where they stand in the typed header's array."""


class _Known(NamedTuple):
    """A text that was learnt, with four gaps, and what it says."""

    match: Callable[[bytes], re.Match[bytes] | None]
    language: int
    version: int
    fields: list[Any]


class KnownJsonSends:
    """The texts that were learnt, by their heads."""

    __slots__ = ("_heads", "_sizes", "_unknown")

    def __init__(self) -> None:
        """Know nothing."""
        self._heads: dict[bytes, _Known] = {}
        self._sizes: list[int] = []
        self._unknown = 0

    def read(self, header: bytes) -> tuple[int, int, int, list[Any]] | None:
        """Return opaque, language, version and the typed header's values of a send like a known one; None for
        any other."""
        for size in self._sizes:
            known = self._heads.get(header[:size])
            if known is not None:
                break
        else:
            return None
        match, language, version, fields = known
        found = match(header)
        if found is None:
            return None
        queue_id, born, raw, opaque = found.groups()
        text = raw.decode().replace("\\u0001", "\x01").replace("\\u0002", "\x02")
        number = int(opaque)
        if "\\" in text or number > 0x7FFFFFFF:
            return None
        values = fields.copy()
        values[_QUEUE_ID], values[_BORN], values[_PROPERTIES] = int(queue_id), int(born), text
        return number, language, version, values

    def learn(self, header: bytes, parts: HeaderParts) -> None:
        """Remember the like of a header that the general reader has read, if it proves to be one."""
        self._unknown += 1
        if self._unknown % LEARN_EVERY != 1 or parts[0] != SEND_CODE:
            return
        shape = _SHAPE.fullmatch(header) if len(header) <= LEARN_BYTES_MAX else None
        if shape is None or len(shape[1]) > HEAD_BYTES_MAX:
            return
        texts = shape.groups()
        head = texts[0]
        probe = b"".join(chain.from_iterable(zip(texts, _PROBES, strict=True)))
        try:
            fields = _fields_of(decode_json_header(memoryview(probe)), parts)
        except (FrameFault, InvalidParameter):
            return
        if fields is None:
            return
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
            self._sizes.clear()
        if len(head) not in self._sizes:
            if len(self._sizes) >= SIZES_MAX:
                return
            self._sizes.append(len(head))
        pieces = zip(map(re.escape, texts), _GAPS, strict=True)
        match = re.compile(b"".join(chain.from_iterable(pieces))).fullmatch
        self._heads[head] = _Known(match, parts[3], parts[4], fields)


def _fields_of(probed: HeaderParts, parts: HeaderParts) -> list[Any] | None:
    """Return the typed header's values; None when the probe was not read as what was put in, and everything
    else as before."""
    ext, probed_ext = parts[-1], probed[-1]
    code, flag, opaque, _, _, remark, _ = probed
    if ext is None or probed_ext is None or (code, flag, opaque, remark) != (SEND_CODE, 0, 1987654321, None):
        return None
    put_in = {"e": _PROBE_QUEUE.decode(), "g": _PROBE_BORN.decode(), "i": "A\x01B\x02"}
    if probed_ext != {**ext, **put_in} or probed[3:-1] != parts[3:-1] or parts[1]:
        return None
    codec = codec_of(SendMessageHeader)
    typed = codec.from_ext(ext)
    return [HEADER_VERSION, *(getattr(typed, row.name) for row in codec.table)]
