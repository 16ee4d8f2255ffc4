"""Encoding of log-ready batches: many finished CommitLog records at once. Called by client processes.

Three ways, the faster ones for what is common: bodies of one length are columns of a table; bodies of many
lengths with the same properties are joined with gaps, into which heads and tails are scattered; properties
that differ are joined piece by piece.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shmq.base.checksum import crc32
from shmq.base.errors import MessageIllegal
from shmq.base.memory import unwritten
from shmq.model.message_id import KeyBlock
from shmq.model.properties import PROPERTIES_BYTES_MAX
from shmq.model.record import BODY_AT, MAGIC_V1, TOPIC_LENGTH_V1_MAX, Buffer
from shmq.model.record_array import HEAD_DTYPE, KEY_PREFIX, TAGS_PREFIX, ByteArray, IntArray, scatter

Numbers = int | Sequence[int] | IntArray
Encoded = tuple[bytearray | memoryview, list[int]]

JOINED_BYTES_MAX = 64 * 1024
"""Bodies are joined in pieces of this size: larger ones the allocator would map and unmap every time."""

BUSINESS_PREFIX = b"KEYS\x01"

_KEY_LENGTH = 32


def encode_batch(
    *,
    topic: bytes,
    queue_id: int,
    bodies: Sequence[Buffer],
    properties: bytes | Sequence[bytes],
    born_timestamp: int,
    keys: KeyBlock | None = None,
    business_keys: bytes | None = None,
    flags: Numbers = 0,
    sys_flags: Numbers = 0,
    buffer: bytearray | None = None,
) -> Encoded:
    """Return ``(records back to back, their sizes)``: unstamped, ready to be checked and stamped by a broker.

    ``properties`` are encoded, one for all messages or one each; TAGS must come first. ``keys`` adds the
    property UNIQ_KEY: right behind a first TAGS, else in front. ``business_keys`` adds a last property KEYS
    to ``properties`` that are one for all: the texts back to back, all of one length. Same-length bodies with
    one ``properties`` for all are written into ``buffer`` when that is large enough (the page faults of a
    fresh one cost more than the encoding), and a view of it is returned. ``MessageIllegal`` for an empty
    body, properties over 32,767 bytes, a topic over 127.
    """
    count = len(bodies)
    if len(topic) > TOPIC_LENGTH_V1_MAX:
        raise MessageIllegal(f"a batch's topic has at most {TOPIC_LENGTH_V1_MAX} bytes, not {len(topic)}")
    topic_part = bytes((len(topic),)) + topic
    body_lengths = np.fromiter(map(len, bodies), np.int64, count)
    if not body_lengths.all():
        raise MessageIllegal(f"message {int(np.argmin(body_lengths))} of the batch has an empty body")
    numbers: dict[str, Numbers] = {
        "magic": MAGIC_V1,
        "body_crc": np.fromiter(map(crc32, bodies), np.int64, count) & 0x7FFFFFFF,
        "queue_id": queue_id,
        "flag": flags,
        "sys_flag": sys_flags,
        "born_timestamp": born_timestamp,
        "body_length": body_lengths,
    }
    if not isinstance(properties, bytes):
        return _piecewise(numbers, bodies, body_lengths, _tails(topic_part, properties, keys))
    tail = _Tail(topic_part, properties, keys, business_keys, count)
    if count and bool((body_lengths == body_lengths[0]).all()):
        return _tabular(numbers, bodies, int(body_lengths[0]), tail, buffer)
    return _scattered(numbers, bodies, body_lengths, tail)


class _Tail:
    """What follows each body when the properties are the same: topic length, topic, properties length,
    properties."""

    def __init__(
        self,
        topic_part: bytes,
        properties: bytes,
        keys: KeyBlock | None,
        business_keys: bytes | None,
        count: int,
    ) -> None:
        self._keys = keys
        self._business_keys = business_keys
        if business_keys is not None:
            self._business_width = len(business_keys) // count
            properties += BUSINESS_PREFIX + bytes(self._business_width) + b"\x02"
        if keys is None:
            self.row = topic_part + _length_bytes(len(properties)) + properties
        else:
            self.row = _keyed_tail(topic_part, properties, bytes(_KEY_LENGTH))
            self._key_at = len(topic_part) + 2 + _key_position(properties) + len(KEY_PREFIX)

    def fill(self, rows: ByteArray) -> None:
        """Write the tail, and each record's own key, into rows of its length."""
        rows[:] = np.frombuffer(self.row, np.uint8)
        if self._keys is not None:
            rows[:, self._key_at : self._key_at + _KEY_LENGTH] = _key_rows(self._keys, len(rows))
        if self._business_keys is not None:
            texts = np.frombuffer(self._business_keys, np.uint8).reshape(len(rows), self._business_width)
            rows[:, -1 - self._business_width : -1] = texts


def _fill_heads(heads: npt.NDArray[Any], numbers: Mapping[str, Numbers], sizes: Numbers) -> None:
    heads["total_size"] = sizes
    for name, values in numbers.items():
        heads[name] = values


def _tabular(
    numbers: Mapping[str, Numbers],
    bodies: Sequence[Buffer],
    body_length: int,
    tail: _Tail,
    buffer: bytearray | None,
) -> Encoded:
    """Encode bodies of one length: the records are the rows of a table, filled by columns."""
    count, tail_at = len(bodies), BODY_AT + body_length
    size = tail_at + len(tail.row)
    records: bytearray | memoryview
    if buffer is not None and len(buffer) >= count * size:
        records = memoryview(buffer)[: count * size]
    else:
        records = unwritten(count * size)
    table = np.frombuffer(records, np.uint8).reshape(count, size)
    table[:, :BODY_AT] = 0
    heads: npt.NDArray[Any] = np.ndarray((count,), HEAD_DTYPE, records, strides=(size,))
    _fill_heads(heads, numbers, size)
    step = max(1, JOINED_BYTES_MAX // body_length)
    for first in range(0, count, step):
        joined = np.frombuffer(b"".join(bodies[first : first + step]), np.uint8)
        table[first : first + step, BODY_AT:tail_at] = joined.reshape(-1, body_length)
    tail.fill(table[:, tail_at:])
    return records, [size] * count


def _scattered(
    numbers: Mapping[str, Numbers], bodies: Sequence[Buffer], body_lengths: IntArray, tail: _Tail
) -> Encoded:
    """Encode bodies of many lengths: one join with gaps of a tail and a head, which are filled afterwards."""
    count, tail_length = len(bodies), len(tail.row)
    sizes = body_lengths + (BODY_AT + tail_length)
    starts = np.cumsum(sizes) - sizes
    with_gaps = bytearray(tail_length + BODY_AT).join((b"", *bodies, b""))
    records = memoryview(with_gaps)[tail_length : len(with_gaps) - BODY_AT]
    heads = np.zeros(count, HEAD_DTYPE)
    _fill_heads(heads, numbers, sizes)
    scatter(records, heads.view(np.uint8).reshape(count, BODY_AT), starts)
    tails = np.empty((count, tail_length), np.uint8)
    tail.fill(tails)
    scatter(records, tails, starts + BODY_AT + body_lengths)
    return records, sizes.tolist()


def _piecewise(
    numbers: Mapping[str, Numbers], bodies: Sequence[Buffer], body_lengths: IntArray, tails: list[bytes]
) -> Encoded:
    """Encode messages with properties of their own: gap for the head, body, tail, one after another."""
    count = len(bodies)
    sizes = body_lengths + BODY_AT + np.fromiter(map(len, tails), np.int64, count)
    pieces: list[Buffer] = [bytes(BODY_AT)] * (3 * count)
    pieces[1::3] = bodies
    pieces[2::3] = tails
    records = bytearray().join(pieces)
    heads = np.zeros(count, HEAD_DTYPE)
    _fill_heads(heads, numbers, sizes)
    scatter(records, heads.view(np.uint8).reshape(count, BODY_AT), np.cumsum(sizes) - sizes)
    return records, sizes.tolist()


def _tails(topic_part: bytes, properties: Sequence[bytes], keys: KeyBlock | None) -> list[bytes]:
    if keys is None:
        return [topic_part + _length_bytes(len(row)) + row for row in properties]
    raw = _key_rows(keys, len(properties)).tobytes()
    texts = [raw[at : at + _KEY_LENGTH] for at in range(0, len(raw), _KEY_LENGTH)]
    return [_keyed_tail(topic_part, row, key) for row, key in zip(properties, texts, strict=True)]


def _length_bytes(length: int) -> bytes:
    if length > PROPERTIES_BYTES_MAX:
        raise MessageIllegal(
            f"properties are {length} bytes long as stored; at most {PROPERTIES_BYTES_MAX} are allowed"
        )
    return length.to_bytes(2, "big")


def _key_position(properties: bytes) -> int:
    """Return where UNIQ_KEY goes: behind a first TAGS, else in front."""
    return properties.index(b"\x02") + 1 if properties.startswith(TAGS_PREFIX) else 0


def _keyed_tail(topic_part: bytes, properties: bytes, key: bytes) -> bytes:
    at = _key_position(properties)
    length = _length_bytes(len(properties) + len(KEY_PREFIX) + len(key) + 1)
    return b"".join((topic_part, length, properties[:at], KEY_PREFIX, key, b"\x02", properties[at:]))


def _key_rows(keys: KeyBlock, count: int) -> ByteArray:
    """Return the first ``count`` keys of a block as rows of 32 characters."""
    if count > keys.COUNT_MAX:
        raise MessageIllegal(f"a batch has at most {keys.COUNT_MAX} messages, not {count}")
    rows = np.empty((count, _KEY_LENGTH), np.uint8)
    rows[:, :-4] = np.frombuffer(keys.prefix.encode(), np.uint8)
    counters = np.arange(count, dtype=">u2").tobytes().hex().upper().encode()
    rows[:, -4:] = np.frombuffer(counters, np.uint8).reshape(count, 4)
    return rows
