"""The keys of many records at once: which records get which entries in the key index, and their hashes.

A record is found by its UNIQ_KEY and by every piece between blanks of its KEYS, each as `topic#key` (Apache
RocketMQ 5.3, IndexService.java, buildIndex); rolled-back records by none. Keys of one length are hashed as
one matrix: Java's string hash is a polynomial in 31, so hash(topic + "#" + key) = hash(topic + "#") *
31**len(key) + hash(key).

Records of shmq's own batches have TAGS (if any), UNIQ_KEY and perhaps one KEYS, in this order and nothing
else: those are taken apart as arrays. All others go one by one. Pure; numpy.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shmq.model.subscription import java_hash
from shmq.model.sys_flag import TRANSACTION_MASK, TRANSACTION_ROLLBACK
from shmq.store.log_scan import IntArray, Scan, overlapping
from shmq.store.record_text import TAGS_WORDS_FAST, first_byte, topic_kinds

_KEY_PROPERTIES = re.compile(rb"(?:^|\x02)(UNIQ_KEY|KEYS)\x01([^\x02]+)")
_WORD = 0xFFFFFFFF
_UNIQ_KEY = b"UNIQ_KEY"
_TAGS, _KEYS = (int.from_bytes(name, "big") for name in (b"TAGS", b"KEYS"))
_NONE = np.zeros(0, np.int64)

UNIQUE_BYTES = 32
"""Length of a client's unique key."""

KEYS_WORDS_FAST = 8
"""KEYS that do not end within so many 8-byte words go the slow way."""

_READ_AHEAD = 8 * KEYS_WORDS_FAST + UNIQUE_BYTES + 32
"""What looking ahead may read behind a record; records nearer to the segment's end go the slow way."""

Uint32Array = npt.NDArray[np.uint32]


def keys_of(data: mmap.mmap, found: Scan) -> tuple[IntArray, IntArray]:
    """The entries of scanned records, in log order: the record's index in `found`, and the key hash."""
    if not len(found):
        return _NONE, _NONE
    firsts, like = topic_kinds(data, found.topic_starts, found.topic_ends)
    topics = [data[int(found.topic_starts[i]) : int(found.topic_ends[i])] for i in firsts.tolist()]
    prefixes = np.array([java_hash(str(t, "utf-8", "replace") + "#") & _WORD for t in topics], np.uint32)[
        like
    ]
    wanted = (found.sys_flags & TRANSACTION_MASK) != TRANSACTION_ROLLBACK
    unique, keyed = _plain(data, found)
    unique, keyed = unique.only(wanted), keyed.only(wanted)
    slow = np.flatnonzero(wanted & ~unique.covers(len(found)))
    slow_rows, slow_hashes = _one_by_one(data, found, slow, prefixes)
    rows = np.concatenate((unique.rows, keyed.rows, slow_rows))
    hashes = np.concatenate((unique.hashes(data, prefixes), keyed.hashes(data, prefixes), slow_hashes))
    order = np.argsort(rows, kind="stable")
    return rows[order], hashes[order]


@dataclass(frozen=True, slots=True)
class _Spans:
    """One key each of some records: where its bytes are."""

    rows: IntArray
    begins: IntArray
    ends: IntArray

    def only(self, wanted: npt.NDArray[np.bool_]) -> _Spans:
        """Those of the wanted records."""
        keep = wanted[self.rows]
        return _Spans(self.rows[keep], self.begins[keep], self.ends[keep])

    def covers(self, count: int) -> npt.NDArray[np.bool_]:
        """Which of `count` records have a key here."""
        mask = np.zeros(count, np.bool_)
        mask[self.rows] = True
        return mask

    def hashes(self, data: mmap.mmap, prefixes: Uint32Array) -> IntArray:
        """The stored hashes of these keys."""
        u8 = np.frombuffer(data, np.uint8)
        lengths = self.ends - self.begins
        stored = np.zeros(len(self.rows), np.int64)
        for length in np.unique(lengths).tolist():
            some = np.flatnonzero(lengths == length)
            text = u8[self.begins[some, None] + np.arange(length)]
            stored[some] = hash_rows(text, prefixes[self.rows[some]])
        return stored


def _plain(data: mmap.mmap, found: Scan) -> tuple[_Spans, _Spans]:
    """UNIQ_KEY and KEYS of the records that have [TAGS], UNIQ_KEY of 32 bytes, [one key in KEYS], and no
    more.
    """
    u8, u32, u64 = np.frombuffer(data, np.uint8), overlapping(data, ">u4"), overlapping(data, ">u8")
    ends = found.ends
    rows = np.flatnonzero(ends + _READ_AHEAD < len(u8))
    at = found.property_starts[rows]
    has_tags = (u32[at] == _TAGS) & (u8[at + 4] == 1)
    at = np.where(has_tags, first_byte(data, 2, at, TAGS_WORDS_FAST) + 1, at)
    key = at + len(_UNIQ_KEY) + 1
    fits = (at > 0) & (key + UNIQUE_BYTES < ends[rows])
    fits &= (u64[at] == int.from_bytes(_UNIQ_KEY, "big")) & (u8[key - 1] == 1) & (u8[key + UNIQUE_BYTES] == 2)
    rows, key = rows[fits], key[fits]
    fits = (u8[key[:, None] + np.arange(UNIQUE_BYTES)] != 2).all(axis=1)
    rows, key = rows[fits], key[fits]
    behind = key + UNIQUE_BYTES + 1
    alone = behind == ends[rows]
    keys_at = behind + len(b"KEYS\x01")
    keys_end = first_byte(data, 2, keys_at, KEYS_WORDS_FAST)
    blank = first_byte(data, ord(" "), keys_at, KEYS_WORDS_FAST)
    keyed = ~alone & (u32[behind] == _KEYS) & (u8[behind + 4] == 1)
    keyed &= (keys_end > keys_at) & (keys_end + 1 == ends[rows]) & ((blank < 0) | (blank > keys_end))
    done = alone | keyed
    unique = _Spans(rows[done], key[done], key[done] + UNIQUE_BYTES)
    return unique, _Spans(rows[keyed], keys_at[keyed], keys_end[keyed])


def _one_by_one(
    data: mmap.mmap, found: Scan, rows: IntArray, prefixes: Uint32Array
) -> tuple[IntArray, IntArray]:
    """The entries of records of any kind."""
    records: list[int] = []
    keys: list[bytes] = []
    for row, begin, end in zip(
        rows.tolist(), found.property_starts[rows].tolist(), found.ends[rows].tolist(), strict=True
    ):
        properties = dict(_KEY_PROPERTIES.findall(data[begin:end]))
        if not properties:
            continue
        unique = properties.get(b"UNIQ_KEY")
        of_record = [unique] if unique is not None else []
        of_record += [key for key in properties.get(b"KEYS", b"").split(b" ") if key]
        keys += of_record
        records += [row] * len(of_record)
    made = np.array(records, np.int64)
    return made, key_hashes(keys, prefixes[made])


def key_hashes(keys: list[bytes], prefixes: Uint32Array) -> IntArray:
    """The stored hash of each key; `prefixes` are the hashes of `topic#`."""
    stored = np.zeros(len(keys), np.int64)
    lengths = np.array(list(map(len, keys)), np.int64)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        text = np.frombuffer(b"".join([keys[i] for i in rows]), np.uint8).reshape(-1, length)
        stored[rows] = hash_rows(text, prefixes[rows])
    return stored


def hash_rows(text: npt.NDArray[np.uint8], prefixes: Uint32Array) -> IntArray:
    """The stored hashes of keys of one length, a row of bytes each: abs of the Java hash, 0 for -2**31."""
    length = text.shape[1]
    powers = np.array([pow(31, n, 1 << 32) for n in range(length - 1, -1, -1)], np.uint32)
    hashes = prefixes * np.uint32(pow(31, length, 1 << 32)) + (text * powers).sum(axis=1, dtype=np.uint32)
    for row in np.flatnonzero((text >= 0x80).any(axis=1)).tolist():
        hashes[row] = _hash_of_text(str(text[row].tobytes(), "utf-8", "replace"), int(prefixes[row]))
    stored: IntArray = np.abs(hashes.view(np.int32).astype(np.int64))
    stored[stored == 1 << 31] = 0
    return stored


def _hash_of_text(key: str, prefix: int) -> int:
    """The same for a key that is not ASCII: Java hashes UTF-16 units, not bytes."""
    units = len(key.encode("utf-16-be", "surrogatepass")) // 2
    return (prefix * pow(31, units, 1 << 32) + java_hash(key)) & _WORD
