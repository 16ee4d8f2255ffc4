"""The keys of many records at once: which records get which entries in the key index, and their hashes.

A record is found by its UNIQ_KEY and by every piece between blanks of its KEYS, each as `topic#key` (Apache
RocketMQ 5.3, IndexService.java, buildIndex); rolled-back records by none. Hashes of keys of one length are
computed as one matrix: Java's string hash is a polynomial in 31, so hash(topic + "#" + key) = hash(topic +
"#") * 31**len(key) + hash(key). Pure; numpy.
"""

from __future__ import annotations

import mmap
import re

import numpy as np
import numpy.typing as npt

from shmq.model.subscription import java_hash
from shmq.model.sys_flag import TRANSACTION_MASK, TRANSACTION_ROLLBACK
from shmq.store.log_scan import IntArray, Scan

_KEY_PROPERTIES = re.compile(rb"(?:^|\x02)(UNIQ_KEY|KEYS)\x01([^\x02]+)")
_WORD = 0xFFFFFFFF

Uint32Array = npt.NDArray[np.uint32]


def keys_of(data: mmap.mmap, found: Scan) -> tuple[IntArray, IntArray]:
    """The entries of scanned records, in log order: the record's index in `found`, and the key hash."""
    records: list[int] = []
    keys: list[bytes] = []
    prefixes: list[int] = []
    known: dict[bytes, int] = {}
    wanted = np.flatnonzero((found.sys_flags & TRANSACTION_MASK) != TRANSACTION_ROLLBACK)
    columns = (wanted, found.topic_starts[wanted], found.topic_ends[wanted], found.property_starts[wanted])
    spans = zip(*(column.tolist() for column in columns), found.ends[wanted].tolist(), strict=True)
    for record, topic_start, topic_end, begin, end in spans:
        properties = dict(_KEY_PROPERTIES.findall(data[begin:end]))
        if not properties:
            continue
        topic = data[topic_start:topic_end]
        prefix = known.get(topic)
        if prefix is None:
            prefix = known[topic] = java_hash(str(topic, "utf-8", "replace") + "#") & _WORD
        unique = properties.get(b"UNIQ_KEY")
        of_record = [unique] if unique is not None else []
        of_record += [key for key in properties.get(b"KEYS", b"").split(b" ") if key]
        keys += of_record
        records += [record] * len(of_record)
        prefixes += [prefix] * len(of_record)
    return np.array(records, np.int64), key_hashes(keys, np.array(prefixes, np.uint32))


def key_hashes(keys: list[bytes], prefixes: Uint32Array) -> IntArray:
    """The stored hash of each key: abs of the Java hash, 0 for -2**31.

    `prefixes` are the hashes of `topic#`.
    """
    hashes = np.zeros(len(keys), np.uint32)
    lengths = np.array(list(map(len, keys)), np.int64)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        text = np.frombuffer(b"".join([keys[i] for i in rows]), np.uint8).reshape(-1, length)
        powers = np.array([pow(31, n, 1 << 32) for n in range(length - 1, -1, -1)], np.uint32)
        own = (text.astype(np.uint32) * powers).sum(axis=1, dtype=np.uint32)
        hashes[rows] = prefixes[rows] * np.uint32(pow(31, length, 1 << 32)) + own
        for row in rows[(text >= 0x80).any(axis=1)]:
            hashes[row] = _hash_of_text(str(keys[row], "utf-8", "replace"), int(prefixes[row]))
    stored = np.abs(hashes.view(np.int32).astype(np.int64))
    stored[stored == 1 << 31] = 0
    return stored


def _hash_of_text(key: str, prefix: int) -> int:
    """The same for a key that is not ASCII: Java hashes UTF-16 units, not bytes."""
    units = len(key.encode("utf-16-be", "surrogatepass")) // 2
    return (prefix * pow(31, units, 1 << 32) + java_hash(key)) & _WORD
