"""Encoding of log-ready batches: many finished CommitLog records at once. Called by client processes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shmq.base.checksum import crc32
from shmq.base.errors import MessageIllegal
from shmq.model.message_id import KeyBlock
from shmq.model.properties import PROPERTIES_BYTES_MAX
from shmq.model.record import BODY_AT, MAGIC_V1, TOPIC_LENGTH_V1_MAX, Buffer
from shmq.model.record_array import HEAD_DTYPE, KEY_PREFIX, TAGS_PREFIX, ByteArray, IntArray

Numbers = int | Sequence[int] | IntArray

_KEY_LENGTH = 32


def encode_batch(
    *,
    topic: bytes,
    queue_id: int,
    bodies: Sequence[Buffer],
    properties: bytes | Sequence[bytes],
    born_timestamp: int,
    keys: KeyBlock | None = None,
    flags: Numbers = 0,
    sys_flags: Numbers = 0,
    buffer: bytearray | None = None,
) -> tuple[bytearray | memoryview, list[int]]:
    """Return ``(records back to back, their sizes)``: unstamped, ready to be checked and stamped by a broker.

    ``properties`` are encoded, one for all messages or one each; TAGS must come first. ``keys`` adds the
    property UNIQ_KEY: right behind a first TAGS, else in front. Same-length bodies with one ``properties``
    for all are the fast case; it writes into ``buffer`` when that is large enough (the page faults of a
    fresh one cost more than the encoding) and returns a view of it. ``MessageIllegal`` for properties over
    32,767 bytes or a topic over 127. Called by clients.
    """
    count = len(bodies)
    if len(topic) > TOPIC_LENGTH_V1_MAX:
        raise MessageIllegal(f"a batch's topic has at most {TOPIC_LENGTH_V1_MAX} bytes, not {len(topic)}")
    body_lengths = np.fromiter(map(len, bodies), np.int64, count)
    tails = _Tails(topic, properties, keys, count)
    sizes = body_lengths + (BODY_AT + tails.lengths)
    heads = np.zeros(count, HEAD_DTYPE)
    heads["total_size"] = sizes
    heads["magic"] = MAGIC_V1
    heads["body_crc"] = np.fromiter(map(crc32, bodies), np.int64, count) & 0x7FFFFFFF
    heads["queue_id"] = queue_id
    heads["flag"] = flags
    heads["sys_flag"] = sys_flags
    heads["born_timestamp"] = born_timestamp
    heads["body_length"] = body_lengths
    body_length = int(body_lengths[0]) if count else 0
    if tails.matrix is not None and bool((body_lengths == body_length).all()):
        return _uniform(heads, bodies, body_length, tails.matrix, buffer), sizes.tolist()
    pieces: list[Buffer] = [b""] * (3 * count)
    head_bytes = heads.tobytes()
    pieces[0::3] = [head_bytes[at : at + BODY_AT] for at in range(0, len(head_bytes), BODY_AT)]
    pieces[1::3] = bodies
    pieces[2::3] = tails.pieces()
    return bytearray().join(pieces), sizes.tolist()


def _uniform(
    heads: npt.NDArray[Any],
    bodies: Sequence[Buffer],
    body_length: int,
    tails: ByteArray,
    buffer: bytearray | None,
) -> bytearray | memoryview:
    """Return the records of messages of one size: a table of bytes with a row per record."""
    count = len(heads)
    size = BODY_AT + body_length + tails.shape[1]
    records: bytearray | memoryview
    if buffer is not None and len(buffer) >= count * size:
        records = memoryview(buffer)[: count * size]
    else:
        records = bytearray(count * size)
    table = np.frombuffer(records, np.uint8).reshape(count, size)
    table[:, :BODY_AT] = heads.view(np.uint8).reshape(count, BODY_AT)
    table[:, BODY_AT : BODY_AT + body_length] = np.frombuffer(b"".join(bodies), np.uint8).reshape(count, -1)
    table[:, BODY_AT + body_length :] = tails
    return records


class _Tails:
    """What follows each body: topic length, topic, properties length, properties.

    ``lengths`` are the tails' lengths; ``matrix`` holds them as rows when all are of one length, else it is
    None.
    """

    def __init__(
        self, topic: bytes, properties: bytes | Sequence[bytes], keys: KeyBlock | None, count: int
    ) -> None:
        topic_part = bytes((len(topic),)) + topic
        self.lengths: int | IntArray
        self.matrix: ByteArray | None = None
        if isinstance(properties, bytes):
            if keys is None:
                tail = topic_part + _length_bytes(len(properties)) + properties
            else:
                tail = _keyed_tail(topic_part, properties, bytes(_KEY_LENGTH))
            self.lengths = len(tail)
            self.matrix = np.empty((count, len(tail)), np.uint8)
            self.matrix[:] = np.frombuffer(tail, np.uint8)
            if keys is not None:
                at = len(topic_part) + 2 + _key_position(properties) + len(KEY_PREFIX)
                self.matrix[:, at : at + _KEY_LENGTH] = _key_matrix(keys, count)
            return
        if keys is None:
            self._pieces = [topic_part + _length_bytes(len(row)) + row for row in properties]
        else:
            texts = _rows(_key_matrix(keys, count))
            self._pieces = [_keyed_tail(topic_part, *pair) for pair in zip(properties, texts, strict=True)]
        self.lengths = np.fromiter(map(len, self._pieces), np.int64, count)

    def pieces(self) -> list[bytes]:
        """Return the tails one by one."""
        return self._pieces if self.matrix is None else _rows(self.matrix)


def _rows(matrix: ByteArray) -> list[bytes]:
    width = matrix.shape[1]
    raw = matrix.tobytes()
    return [raw[at : at + width] for at in range(0, len(raw), width)]


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


def _key_matrix(keys: KeyBlock, count: int) -> ByteArray:
    """Return the keys of a block as rows of 32 characters."""
    matrix = np.empty((count, _KEY_LENGTH), np.uint8)
    matrix[:, :-4] = np.frombuffer(keys.prefix.encode(), np.uint8)
    counters = np.arange(count, dtype=">u2").tobytes().hex().upper().encode()
    matrix[:, -4:] = np.frombuffer(counters, np.uint8).reshape(count, 4)
    return matrix
