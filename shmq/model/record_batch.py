"""Log-ready batches: many CommitLog records at once, by numpy.

A client encodes the records of a batch (``encode_batch``), a worker trusts nothing of them
(``check_batch``) and stamps what only the broker knows (``stamp_batch``). The layout is that of ``record``:
V1 magic, IPv4 hosts, so all fixed fields are the 88 bytes of ``HEAD_DTYPE``. Properties of a log-ready
record begin with TAGS, if it has a tag, then UNIQ_KEY.

Fields are gathered and scattered through one overlapping view: an array of heads that starts at *every*
byte of the buffer (stride 1), indexed by the records' starts. That costs one memcpy per record and no index
arithmetic per byte.

Pure functions on buffers; numpy is imported by clients that send batches and by workers, never by the
supervisor.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shmq.base.checksum import crc32
from shmq.base.errors import MessageIllegal
from shmq.model.message_id import KeyBlock
from shmq.model.properties import PROPERTIES_BYTES_MAX
from shmq.model.record import (
    BODY_AT,
    MAGIC_V1,
    RECORD_OVERHEAD_V1,
    TOPIC_LENGTH_V1_MAX,
    Buffer,
)
from shmq.model.subscription import tags_code_of
from shmq.model.sys_flag import LOG_READY_FORBIDDEN

IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]
Numbers = int | Sequence[int] | IntArray

HEAD_DTYPE = np.dtype(
    [
        ("total_size", ">i4"),
        ("magic", ">i4"),
        ("body_crc", ">i4"),
        ("queue_id", ">i4"),
        ("flag", ">i4"),
        ("queue_offset", ">i8"),
        ("physical_offset", ">i8"),
        ("sys_flag", ">i4"),
        ("born_timestamp", ">i8"),
        ("born_host", "V8"),
        ("store_timestamp", ">i8"),
        ("store_host", "V8"),
        ("reconsume_times", ">i4"),
        ("prepared_transaction_offset", ">i8"),
        ("body_length", ">i4"),
    ]
)
assert HEAD_DTYPE.itemsize == BODY_AT

_KEY_PREFIX = b"UNIQ_KEY\x01"
_TAGS_PREFIX = b"TAGS\x01"
_KEY_LENGTH = 32

RESERVED_PATTERN = re.compile(
    rb"\x02(?:DELAY\x01|TIMER_|TRAN_|REAL_|INNER_|__CRC32#\x01|RETRY_TOPIC\x01|TAGS\x01)"
)
"""A property that only the ordinary path may handle, anywhere but at the very start of the properties."""


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
) -> tuple[bytearray, list[int]]:
    """Return ``(records back to back, their sizes)``: unstamped, ready to be checked and stamped by a broker.

    ``properties`` are encoded, one for all messages or one each; TAGS must come first. ``keys`` adds the
    property UNIQ_KEY: right behind a first TAGS, else in front. Same-length bodies with one ``properties``
    for all are the fast case. ``MessageIllegal`` for properties over 32,767 bytes or a topic over 127.
    Called by clients.
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
        return _uniform(heads, bodies, body_length, tails.matrix), sizes.tolist()
    pieces: list[Buffer] = [b""] * (3 * count)
    head_bytes = heads.tobytes()
    pieces[0::3] = [head_bytes[at : at + BODY_AT] for at in range(0, len(head_bytes), BODY_AT)]
    pieces[1::3] = bodies
    pieces[2::3] = tails.pieces()
    return bytearray().join(pieces), sizes.tolist()


def _uniform(
    heads: npt.NDArray[Any], bodies: Sequence[Buffer], body_length: int, tails: ByteArray
) -> bytearray:
    """Return the records of messages of one size: a table of bytes with a row per record."""
    count = len(heads)
    size = BODY_AT + body_length + tails.shape[1]
    buffer = bytearray(count * size)
    table = np.frombuffer(buffer, np.uint8).reshape(count, size)
    table[:, :BODY_AT] = heads.view(np.uint8).reshape(count, BODY_AT)
    table[:, BODY_AT : BODY_AT + body_length] = np.frombuffer(b"".join(bodies), np.uint8).reshape(
        count, body_length
    )
    table[:, BODY_AT + body_length :] = tails
    return buffer


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
            row, key_at = _with_key_room(properties, keys is not None)
            tail = topic_part + _length_bytes(len(row)) + row
            self.lengths = len(tail)
            self.matrix = np.empty((count, len(tail)), np.uint8)
            self.matrix[:] = np.frombuffer(tail, np.uint8)
            if keys is not None:
                first = len(tail) - len(row) + key_at
                self.matrix[:, first : first + _KEY_LENGTH] = _key_matrix(keys, count)
            return
        rows = properties if keys is None else [_with_key(row, keys[i]) for i, row in enumerate(properties)]
        self._pieces = [topic_part + _length_bytes(len(row)) + row for row in rows]
        self.lengths = np.fromiter(map(len, self._pieces), np.int64, count)

    def pieces(self) -> list[bytes]:
        """Return the tails one by one."""
        if self.matrix is None:
            return self._pieces
        width = self.matrix.shape[1]
        raw = self.matrix.tobytes()
        return [raw[at : at + width] for at in range(0, len(raw), width)]


def _length_bytes(length: int) -> bytes:
    if length > PROPERTIES_BYTES_MAX:
        raise MessageIllegal(
            f"properties are {length} bytes long as stored; at most {PROPERTIES_BYTES_MAX} are allowed"
        )
    return length.to_bytes(2, "big")


def _with_key_room(properties: bytes, with_key: bool) -> tuple[bytes, int]:
    """Return properties with room for a UNIQ_KEY value, and where in them that value goes."""
    if not with_key:
        return properties, 0
    at = properties.index(b"\x02") + 1 if properties.startswith(_TAGS_PREFIX) else 0
    key_property = _KEY_PREFIX + bytes(_KEY_LENGTH) + b"\x02"
    return properties[:at] + key_property + properties[at:], at + len(_KEY_PREFIX)


def _with_key(properties: bytes, key: str) -> bytes:
    row, at = _with_key_room(properties, True)
    return row[:at] + key.encode() + row[at + _KEY_LENGTH :]


def _key_matrix(keys: KeyBlock, count: int) -> ByteArray:
    """Return the keys of a block as rows of 32 characters."""
    matrix = np.empty((count, _KEY_LENGTH), np.uint8)
    matrix[:, :-4] = np.frombuffer(keys.prefix.encode(), np.uint8)
    counters = np.arange(count, dtype=">u2").tobytes().hex().upper().encode()
    matrix[:, -4:] = np.frombuffer(counters, np.uint8).reshape(count, 4)
    return matrix


@dataclass(frozen=True, slots=True)
class BatchCheck:
    """A batch that holds together: where its records start, their sizes and ConsumeQueue tags codes.

    With ``needs_slow_path`` a record has a property of the broker's own, or does not begin with TAGS or
    UNIQ_KEY: the records are sound, but each has to go through the ordinary send path; ``tags_codes`` is
    then empty.
    """

    starts: IntArray
    sizes: IntArray
    tags_codes: IntArray
    needs_slow_path: bool


def check_batch(
    buffer: Buffer, sizes: Sequence[int] | IntArray, topic: bytes, queue_id: int, max_body: int
) -> BatchCheck:
    """Check every record of a batch; ``MessageIllegal`` refuses it whole and names the first record at fault.

    Per record: the chain of sizes, V1 magic, queue id, sysFlag without transaction, IPv6 and inner-batch
    bits, no retries, no transaction offset, 1 <= body <= ``max_body``, this topic, properties that end with
    the record and hold no NUL (recovery takes NUL for never-written space), and the body's CRC. Called by
    workers.
    """
    wanted = np.asarray(sizes, np.int64)
    ends = np.cumsum(wanted)
    starts = ends - wanted
    tail_bytes = 1 + len(topic) + 2
    if not len(wanted) or int(ends[-1]) != len(buffer):
        raise MessageIllegal(f"the sizes of a batch must add up to its {len(buffer)} bytes")
    _demand(wanted >= RECORD_OVERHEAD_V1 + len(topic), "size is too small for a record")
    heads = _heads(buffer)[starts]
    _demand(heads["total_size"] == wanted, "total size differs from the header's list")
    _demand(heads["magic"] == MAGIC_V1, "magic is not V1's")
    _demand(heads["queue_id"] == queue_id, f"queue id is not {queue_id}")
    _demand(
        (heads["sys_flag"] & LOG_READY_FORBIDDEN) == 0, "sysFlag has a transaction, IPv6 or inner-batch bit"
    )
    _demand(heads["reconsume_times"] == 0, "reconsume times are not 0")
    _demand(heads["prepared_transaction_offset"] == 0, "prepared transaction offset is not 0")
    body_lengths = heads["body_length"].astype(np.int64)
    _demand((body_lengths >= 1) & (body_lengths <= max_body), f"body is empty or over {max_body} bytes")
    topic_starts = starts + (BODY_AT + body_lengths)
    _demand(topic_starts + tail_bytes <= ends, "body length does not fit the record")
    tails = _at(buffer, np.dtype((np.void, tail_bytes)), topic_starts).view(np.uint8).reshape(-1, tail_bytes)
    expected = np.frombuffer(bytes((len(topic),)) + topic, np.uint8)
    _demand((tails[:, :-2] == expected).all(axis=1), f"topic is not {topic!r}")
    properties_lengths = tails[:, -2].astype(np.int64) << 8 | tails[:, -1]
    properties_starts = topic_starts + tail_bytes
    _demand(
        (properties_lengths <= PROPERTIES_BYTES_MAX) & (properties_starts + properties_lengths == ends),
        "properties do not end with the record",
    )
    _check_bodies(buffer, heads["body_crc"], starts, topic_starts)
    tags_codes = _check_properties(buffer, properties_starts, ends)
    slow = tags_codes is None
    return BatchCheck(starts, wanted, np.empty(0, np.int64) if tags_codes is None else tags_codes, slow)


def _demand(holds: npt.NDArray[np.bool_], fault: str) -> None:
    if not holds.all():
        raise MessageIllegal(f"batch record {int(np.argmin(holds))}: {fault}")


def _heads(buffer: Buffer) -> npt.NDArray[Any]:
    """Return the overlapping view: a head starting at every byte of the buffer."""
    return np.ndarray((len(buffer) - BODY_AT + 1,), HEAD_DTYPE, buffer, strides=(1,))


def _at(buffer: Buffer, dtype: np.dtype[Any], starts: IntArray) -> npt.NDArray[Any]:
    """Gather one ``dtype`` from each start; all of them must lie inside the buffer."""
    return np.ndarray((len(buffer) - dtype.itemsize + 1,), dtype, buffer, strides=(1,))[starts]


def _check_bodies(buffer: Buffer, crcs: npt.NDArray[Any], starts: IntArray, ends: IntArray) -> None:
    view = memoryview(buffer)
    bodies = [view[start:end] for start, end in zip((starts + BODY_AT).tolist(), ends.tolist(), strict=True)]
    found = np.fromiter(map(crc32, bodies), np.int64, len(bodies)) & 0x7FFFFFFF
    _demand(found == crcs, "the body's CRC differs")


def _check_properties(buffer: Buffer, starts: IntArray, ends: IntArray) -> IntArray | None:
    """Return the tags codes, or None when the batch needs the ordinary path; ``MessageIllegal`` for a NUL."""
    view = memoryview(buffer)
    rows = [bytes(view[start:end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    joined = b"\x03".join(rows)
    if 0 in joined:
        _demand(np.fromiter((0 not in row for row in rows), np.bool_, len(rows)), "properties hold a NUL")
    if RESERVED_PATTERN.search(joined):
        return None
    codes: dict[bytes, int] = {}
    found = []
    for row in rows:
        first = row.partition(b"\x02")[0]
        code = codes.get(first)
        if code is None:
            if first.startswith(_TAGS_PREFIX):
                code = tags_code_of(str(first[len(_TAGS_PREFIX) :], "utf-8", "replace"))
            elif first.startswith(_KEY_PREFIX):
                found.append(0)
                continue
            else:
                return None
            codes[first] = code
        found.append(code)
    return np.array(found, np.int64)


def stamp_batch(
    buffer: bytearray | memoryview,
    starts: IntArray,
    first_queue_offset: int,
    first_physical_offset: int,
    store_time: int,
    store_host: bytes | None = None,
    born_host: bytes | None = None,
) -> None:
    """Write what only the broker knows into every record: offsets, store time and, where given, the hosts.

    ``first_physical_offset`` is where the buffer's first byte will lie. Hosts have 8 bytes. Called by
    workers: hosts may be stamped before the append lock is taken (``stamp_hosts``), the rest needs it.
    """
    heads = _heads(buffer)
    heads["queue_offset"][starts] = np.arange(first_queue_offset, first_queue_offset + len(starts))
    heads["physical_offset"][starts] = starts + first_physical_offset
    heads["store_timestamp"][starts] = store_time
    if store_host is not None and born_host is not None:
        stamp_hosts(buffer, starts, store_host, born_host)


def stamp_hosts(
    buffer: bytearray | memoryview, starts: IntArray, store_host: bytes, born_host: bytes
) -> None:
    """Write both 8-byte hosts into every record."""
    heads = _heads(buffer)
    heads["store_host"][starts] = np.void(store_host)
    heads["born_host"][starts] = np.void(born_host)
