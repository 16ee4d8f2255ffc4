"""The keys of many records at once: which records get which entries in the key index, and their hashes.

A record is found by its UNIQ_KEY and by every piece between blanks of its KEYS, each as `topic#key` (Apache
RocketMQ 5.3, IndexService.java, buildIndex); rolled-back records by none. The properties of all records are
put behind each other and taken apart as one array of bytes: a property is where 0x01 follows its name and its
name follows 0x02 or the record's beginning. Keys of one length are hashed as one matrix: Java's string hash
is a polynomial in 31, so hash(topic + "#" + key) = hash(topic + "#") * 31**len(key) + hash(key). Where many
properties are of one length and one shape, as a producer's are, the keys are columns of a table and only the
first row is taken apart. Pure; numpy.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shmq.model.batch_check import of_one_shape
from shmq.model.properties import KEYS, UNIQ_KEY
from shmq.model.record_array import gathered
from shmq.model.subscription import java_hash
from shmq.model.sys_flag import TRANSACTION_MASK, TRANSACTION_ROLLBACK
from shmq.store.log_scan import IntArray, Scan
from shmq.store.record_text import topic_kinds

_WORD = 0xFFFFFFFF
_NONE = np.zeros(0, np.int64)

_PAD = bytes(8)
"""In front of all properties, so that what precedes a 0x01 can be looked at as a word."""

Uint32Array = npt.NDArray[np.uint32]


def keys_of(data: mmap.mmap, found: Scan) -> tuple[IntArray, IntArray]:
    """The entries of scanned records, in log order: the record's index in `found`, and the key hash."""
    wanted = np.flatnonzero((found.sys_flags & TRANSACTION_MASK) != TRANSACTION_ROLLBACK)
    if not len(wanted):
        return _NONE, _NONE
    firsts, like = topic_kinds(data, found.topic_starts[wanted], found.topic_ends[wanted])
    spans = zip(found.topic_starts[wanted][firsts], found.topic_ends[wanted][firsts], strict=True)
    topics = [str(data[int(begin) : int(end)], "utf-8", "replace") for begin, end in spans]
    prefixes = np.array([java_hash(topic + "#") & _WORD for topic in topics], np.uint32)[like]
    begins, ends = found.property_starts[wanted], found.ends[wanted]
    alike = _of_table(data, begins, ends, prefixes)
    if alike is not None:
        rows, hashes = alike
        return wanted[rows], hashes
    texts = _Texts.of(data, begins, ends)
    unique, keys = texts.values(UNIQ_KEY), texts.pieces(texts.values(KEYS))
    rows = np.concatenate((unique.rows, keys.rows))
    hashes = np.concatenate((texts.hashes(unique, prefixes), texts.hashes(keys, prefixes)))
    order = np.argsort(rows, kind="stable")
    return wanted[rows[order]], hashes[order]


def _of_table(
    data: mmap.mmap, begins: IntArray, ends: IntArray, prefixes: Uint32Array
) -> tuple[IntArray, IntArray] | None:
    """The same for properties that are all of one shape; None when they are not, or hold several keys."""
    width = int(ends[0] - begins[0])
    if not width or bool((ends - begins != width).any()):
        return None
    table = gathered(memoryview(data), width, begins)
    if not of_one_shape(table, (table == table[0]).all(axis=0)):
        return None
    first = _Texts.of(data, begins[:1], ends[:1])
    columns = []
    for name in (UNIQ_KEY, KEYS):
        value = first.values(name)
        if len(value.rows):
            texts = table[:, int(value.begins[0]) - len(_PAD) : int(value.ends[0]) - len(_PAD)]
            if name == KEYS and bool((texts == ord(" ")).any()):
                return None
            columns.append(hash_rows(texts, prefixes))
    if not columns:
        return _NONE, _NONE
    return np.repeat(np.arange(len(begins)), len(columns)), np.column_stack(columns).ravel()


@dataclass(frozen=True, slots=True)
class _Spans:
    """Some texts: of which record each is, and where its bytes are."""

    rows: IntArray
    begins: IntArray
    ends: IntArray

    def only(self, wanted: npt.NDArray[Any]) -> _Spans:
        """Those that a mask or an array of indices names."""
        return _Spans(self.rows[wanted], self.begins[wanted], self.ends[wanted])


@dataclass(frozen=True, slots=True)
class _Texts:
    """The properties of some records behind each other; record i has `[begins[i], begins[i + 1])`."""

    data: bytes
    u8: npt.NDArray[np.uint8]
    begins: IntArray
    ones: IntArray
    twos: IntArray

    @classmethod
    def of(cls, data: mmap.mmap, begins: IntArray, ends: IntArray) -> _Texts:
        """Copy the properties at `[begins, ends)` out of a segment."""
        pieces = [data[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
        text = b"".join([_PAD, *pieces])
        u8 = np.frombuffer(text, np.uint8)
        at = np.cumsum(np.concatenate(([len(_PAD)], ends - begins)))
        return cls(text, u8, at, np.flatnonzero(u8 == 1), np.append(np.flatnonzero(u8 == 2), len(u8)))

    def values(self, name: str) -> _Spans:
        """The value of property `name` (4 or 8 letters) of each record that has one; the last one counts."""
        size = len(name)
        words: npt.NDArray[Any] = np.ndarray(
            (len(self.u8) - size + 1,), f">u{size}", buffer=self.data, strides=(1,)
        )
        at = self.ones - size
        at = at[words[at] == int.from_bytes(name.encode(), "big")]
        rows = np.searchsorted(self.begins, at, side="right") - 1
        first = self.begins[np.maximum(rows, 0)]
        is_name = (rows >= 0) & ((at == first) | ((at > first) & (self.u8[at - 1] == 2)))
        at, rows = at[is_name], rows[is_name]
        begins = at + (size + 1)
        ends = np.minimum(self.twos[np.searchsorted(self.twos, begins)], self.begins[rows + 1])
        found = _Spans(rows, begins, ends).only(ends > begins)
        return found.only(np.append(np.diff(found.rows) != 0, np.ones(min(1, len(found.rows)), np.bool_)))

    def pieces(self, values: _Spans) -> _Spans:
        """The pieces between the blanks of each value, in order; empty ones are none."""
        blanks = np.flatnonzero(self.u8 == ord(" "))
        of = np.searchsorted(values.begins, blanks, side="right") - 1
        inside = of >= 0
        inside[inside] = blanks[inside] < values.ends[of[inside]]
        blanks = blanks[inside]
        if not len(blanks):
            return values
        begins = np.sort(np.concatenate((values.begins, blanks + 1)))
        ends = np.sort(np.concatenate((values.ends, blanks)))
        rows = values.rows[np.searchsorted(values.begins, begins, side="right") - 1]
        return _Spans(rows, begins, ends).only(ends > begins)

    def hashes(self, keys: _Spans, prefixes: Uint32Array) -> IntArray:
        """The stored hash of each key; `prefixes` are the hashes of each record's `topic#`."""
        lengths = keys.ends - keys.begins
        stored = np.zeros(len(keys.rows), np.int64)
        for length in np.unique(lengths).tolist():
            some = np.flatnonzero(lengths == length)
            text = gathered(self.data, length, keys.begins[some])
            stored[some] = hash_rows(text, prefixes[keys.rows[some]])
        return stored


def hash_rows(text: npt.NDArray[np.uint8], prefixes: Uint32Array) -> IntArray:
    """The stored hashes of keys of one length, a row of bytes each: abs of the Java hash, 0 for -2**31."""
    length = text.shape[1]
    powers = np.array([pow(31, n, 1 << 32) for n in range(length - 1, -1, -1)], np.uint32)
    hashes = prefixes * np.uint32(pow(31, length, 1 << 32)) + (text * powers).sum(axis=1, dtype=np.uint32)
    for row in np.flatnonzero((text >= 0x80).any(axis=1)).tolist() if text.max(initial=0) >= 0x80 else ():
        hashes[row] = _hash_of_text(str(text[row].tobytes(), "utf-8", "replace"), int(prefixes[row]))
    stored: IntArray = np.abs(hashes.view(np.int32).astype(np.int64))
    stored[stored == 1 << 31] = 0
    return stored


def _hash_of_text(key: str, prefix: int) -> int:
    """The same for a key that is not ASCII: Java hashes UTF-16 units, not bytes."""
    units = len(key.encode("utf-16-be", "surrogatepass")) // 2
    return (prefix * pow(31, units, 1 << 32) + java_hash(key)) & _WORD
