"""Tags and keys taken out of many records as arrays are those that reading each record's properties gives."""

from __future__ import annotations

import mmap
import random

import numpy as np
import pytest

from shmq.model.properties import decode_properties, split_keys
from shmq.model.subscription import tags_code_of
from shmq.store.index_file import key_hash
from shmq.store.index_keys import keys_of
from shmq.store.log_scan import IntArray, Scan, ScanEnd
from shmq.store.record_text import tags_codes

PIECES = [
    *(b"UNIQ_KEY", b"KEYS", b"TAGS", b"\x01", b"\x01", b"\x02", b"\x02", b" ", b"a", b"X" * 33, b"\xff"),
    *(b"UNIQ_KEY\x01", b"KEYS\x01", b"TAGS\x01", b"\x02KEYS\x01k1 k2", b"\x02UNIQ_KEY\x01u1", b"\xc3\xa9"),
    *(b"YS\x01z", b"KE", b"TAGS\x01A\x02"),
]


def laid_out(texts: list[tuple[bytes, bytes]]) -> tuple[mmap.mmap, Scan]:
    """(topic, properties) of each record one behind the other, and what a scan would say of them."""
    data, at = mmap.mmap(-1, 16_384), 50
    rows = []
    for topic, text in texts:
        properties_at = at + len(topic) + 2
        data[at : at + len(topic)] = topic
        data[properties_at : properties_at + len(text)] = text
        rows.append((at, at + len(topic), properties_at, properties_at + len(text)))
        at = rows[-1][3]
    begins, topic_ends, property_starts, ends = np.array(rows, np.int64).T
    zeros: IntArray = np.zeros(len(rows), np.int64)
    found = Scan(
        begins, ends - begins, zeros, zeros, begins, zeros, zeros + 1, begins, topic_ends, property_starts,
        at, ScanEnd.END,
    )  # fmt: skip
    return data, found


@pytest.mark.parametrize("seed", range(6))
def test_arrays_read_properties_as_the_plain_reader_does(seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(150):
        topics = chosen.choices([b"T", b"TopicOfSome"], k=chosen.randrange(1, 12))
        texts = [(t, b"".join(chosen.choices(PIECES, k=chosen.randrange(9)))) for t in topics]
        data, found = laid_out(texts)
        rows, hashes = keys_of(data, found)
        keys: list[tuple[int, int]] = []
        codes: list[int] = []
        for n, (topic, text) in enumerate(texts):
            properties = decode_properties(text)
            unique = [properties["UNIQ_KEY"]] if "UNIQ_KEY" in properties else []
            keys += [
                (n, key_hash(topic.decode(), key)) for key in unique + split_keys(properties.get("KEYS"))
            ]
            codes.append(tags_code_of(properties.get("TAGS")))
        assert list(zip(rows.tolist(), hashes.tolist(), strict=True)) == keys, texts
        assert tags_codes(data, found.property_starts, found.ends).tolist() == codes, texts
