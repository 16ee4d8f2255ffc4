"""Topics and tags of many records at once, for recovery and the index: names as numbers, not as Python
objects.

Most records of a log have one of a few topics, and TAGS as their first property. So topics are told apart by
a 64-bit hash of their bytes, computed for all records of one topic length in a few array operations, and only
one of each kind is looked at; so are their tags. Whatever is different goes a slow way, record by
record. Pure; numpy.
"""

from __future__ import annotations

import mmap
import re
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from shmq.model.subscription import java_hash
from shmq.store.log_scan import IntArray, overlapping

_MIXERS = np.array([secrets.randbits(62) * 2 + 1 for _ in range(17)], np.uint64)
"""Random odd factors: nobody can choose topics that are taken for one another."""

_TAGS_PREFIX = b"TAGS\x01"
_LATER_HINT = b"\x02TAGS"
"""Only a hint: TAGSX has it, too."""
_TAGS_VALUES = re.compile(rb"(?:\A|\x02)TAGS\x01([^\x02]+)")
TAGS_WORDS_FAST = 4
"""Tags that do not end within so many 8-byte words go the slow way."""

CACHED_BYTES = 128 << 10
"""Bytes compared at a time: what fits a core's own cache costs a third."""

KINDS_COMPARED = 8
"""So many topics are told apart by comparing; sorting pays from there on."""

_ONES = np.uint64(0x0101010101010101)
_HIGHS = np.uint64(0x8080808080808080)


def topic_kinds(data: mmap.mmap, begins: IntArray, ends: IntArray) -> tuple[IntArray, IntArray]:
    """Sort records by topic: (a record of each topic, which of those each record is like)."""
    u64 = overlapping(data, ">u8")
    lengths = ends - begins
    hashes = np.empty(len(begins), np.uint64)
    for length in np.flatnonzero(np.bincount(lengths)).tolist():
        rows = np.flatnonzero(lengths == length)
        at = begins[rows]
        mixed = np.full(len(rows), length, np.uint64)
        if length < 8:
            words = [u64[at].astype(np.uint64) >> np.uint64(64 - 8 * length)]
        else:
            words = [u64[at + n].astype(np.uint64) for n in (*range(0, length - 8, 8), length - 8)]
        for n, word in enumerate(words):
            mixed = (mixed ^ word) * _MIXERS[n % len(_MIXERS)]
            mixed ^= mixed >> np.uint64(29)
        hashes[rows] = mixed
    return kinds(hashes)


def kinds(values: npt.NDArray[Any]) -> tuple[IntArray, IntArray]:
    """Number the different values: (where each is first, the number of each). A few are found by comparing,
    many by sorting."""
    like = np.zeros(len(values), np.int64)
    firsts: list[int] = []
    rest = np.arange(len(values))
    while len(rest) and len(firsts) < KINDS_COMPARED:
        same = values[rest] == values[rest[0]]
        like[rest[same]] = len(firsts)
        firsts.append(int(rest[0]))
        rest = rest[~same]
    if len(rest):
        _, more, inverse = np.unique(values[rest], return_index=True, return_inverse=True)
        like[rest] = inverse + len(firsts)
        firsts += rest[more].tolist()
    return np.array(firsts, np.int64), like


def tags_codes(data: mmap.mmap, begins: IntArray, ends: IntArray) -> IntArray:
    """The tags codes of records whose properties lie at `[begins, ends)`, ascending.

    The last TAGS that has a value counts.
    """
    codes = np.zeros(len(begins), np.int64)
    if not len(begins):
        return codes
    fast, found = _first_tags(data, begins, ends)
    codes[fast] = found
    has_later = _with_later_tags(data, begins, ends)
    is_slow = np.ones(len(begins), np.bool_)
    is_slow[fast] = False
    starts_with_tags = overlapping(data, ">u4")[begins] == int.from_bytes(_TAGS_PREFIX[:4], "big")
    is_slow &= starts_with_tags & (ends - begins > len(_TAGS_PREFIX))
    is_slow[has_later] = True
    known: dict[bytes, int] = {}
    for i in np.flatnonzero(is_slow).tolist():
        codes[i] = _slow_code(data[int(begins[i]) : int(ends[i])], known)
    return codes


def _first_tags(data: mmap.mmap, begins: IntArray, ends: IntArray) -> tuple[IntArray, IntArray]:
    """Records whose first property is a short TAGS that ends with 0x02, and the codes of these tags."""
    u8 = np.frombuffer(data, np.uint8)
    margin = len(_TAGS_PREFIX) + 8 * TAGS_WORDS_FAST
    rows = np.flatnonzero((ends - begins > len(_TAGS_PREFIX)) & (begins + margin <= len(u8)))
    at = begins[rows]
    is_tags = overlapping(data, ">u4")[at] == int.from_bytes(_TAGS_PREFIX[:4], "big")
    is_tags &= u8[at + 4] == 1
    rows = rows[is_tags]
    at = begins[rows] + len(_TAGS_PREFIX)
    tag_ends = first_byte(data, 2, at, TAGS_WORDS_FAST)
    fits = (tag_ends > at) & (tag_ends < ends[rows])
    rows, at, tag_ends = rows[fits], at[fits], tag_ends[fits]
    if not len(rows):
        return rows, rows
    firsts, like = topic_kinds(data, at, tag_ends)
    tags = [str(data[int(at[i]) : int(tag_ends[i])], "utf-8", "replace") for i in firsts.tolist()]
    return rows, np.array([java_hash(tag) for tag in tags], np.int64)[like]


def first_byte(data: mmap.mmap, byte: int, at: IntArray, words_max: int) -> IntArray:
    """Where the first `byte` lies at or behind each position, -1 when not within `words_max` 8-byte words."""
    words = overlapping(data, "<u8")
    found = np.full(len(at), -1, np.int64)
    rest = np.flatnonzero(at + 8 * words_max < len(words))
    for n in range(words_max):
        if not len(rest):
            break
        word = words[at[rest] + 8 * n].astype(np.uint64) ^ (_ONES * np.uint64(byte))
        zeros = (word - _ONES) & ~word & _HIGHS
        has = zeros != 0
        lowest = zeros[has] & (~zeros[has] + np.uint64(1))
        found[rest[has]] = at[rest[has]] + 8 * n + np.log2(lowest.astype(np.float64)).astype(np.int64) // 8
        rest = rest[~has]
    return found


def _with_later_tags(data: mmap.mmap, begins: IntArray, ends: IntArray) -> IntArray:
    """Records that may have TAGS behind another property. One search over all bytes: usually it finds none.

    Array comparisons look at many bytes at once, `find` at one after the other.
    """
    first, last = int(begins[0]), int(ends[-1]) - len(_LATER_HINT)
    u8 = np.frombuffer(data, np.uint8)
    pieces = [np.empty(0, np.int64)]
    for begin in range(first, last, CACHED_BYTES):
        end = min(last, begin + CACHED_BYTES)
        is_hint = u8[begin:end] == _LATER_HINT[0]
        is_hint &= u8[begin + 1 : end + 1] == _LATER_HINT[1]
        pieces.append(np.flatnonzero(is_hint) + begin)
    at = np.concatenate(pieces)
    at = at[overlapping(data, ">u4")[at + 1] == int.from_bytes(_LATER_HINT[1:], "big")]
    rows = np.searchsorted(begins, at, side="right") - 1
    inside = (rows >= 0) & (at < ends[np.maximum(rows, 0)])
    return np.unique(rows[inside])


def _slow_code(properties: bytes, known: dict[bytes, int]) -> int:
    """The tags code of one record, as the broker that took it has read it (`model/properties.py`)."""
    found = _TAGS_VALUES.findall(properties)
    if not found:
        return 0
    tags = found[-1]
    if tags not in known:
        known[tags] = java_hash(str(tags, "utf-8", "replace"))
    return known[tags]
