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
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
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
SMALL_RECORD_BYTES = 4096

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
    buffer: bytearray | None = None,
) -> tuple[bytearray | memoryview, list[int]]:
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
    heads = _gathered(buffer, BODY_AT, starts).view(HEAD_DTYPE).ravel()
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
    tails = _gathered(buffer, tail_bytes, topic_starts)
    expected = np.frombuffer(bytes((len(topic),)) + topic, np.uint8)
    _demand((tails[:, :-2] == expected).all(axis=1), f"topic is not {topic!r}")
    properties_lengths = tails[:, -2].astype(np.int64) << 8 | tails[:, -1]
    properties_starts = topic_starts + tail_bytes
    _demand(
        (properties_lengths <= PROPERTIES_BYTES_MAX) & (properties_starts + properties_lengths == ends),
        "properties do not end with the record",
    )
    _check_bodies(buffer, heads["body_crc"], starts, body_lengths, wanted)
    tags_codes = _check_properties(buffer, properties_starts, ends)
    if tags_codes is None:
        return BatchCheck(starts, wanted, np.empty(0, np.int64), needs_slow_path=True)
    return BatchCheck(starts, wanted, tags_codes, needs_slow_path=False)


def _demand(holds: npt.NDArray[np.bool_], fault: str) -> None:
    if not holds.all():
        raise MessageIllegal(f"batch record {int(np.argmin(holds))}: {fault}")


def _heads(buffer: Buffer) -> npt.NDArray[Any]:
    """Return the overlapping view: a head starting at every byte of the buffer, for scattering into it."""
    return np.ndarray((len(buffer) - BODY_AT + 1,), HEAD_DTYPE, buffer, strides=(1,))


def _gathered(buffer: Buffer, width: int, starts: IntArray) -> ByteArray:
    """Return ``width`` bytes from each start as rows; all of them must lie inside the buffer.

    Gathered as void, which numpy moves by memcpy (a structured type is fifteen times slower).
    """
    void = np.dtype((np.void, width))
    everywhere: npt.NDArray[Any] = np.ndarray((len(buffer) - width + 1,), void, buffer, strides=(1,))
    return everywhere[starts].view(np.uint8).reshape(-1, width)


def _check_bodies(
    buffer: Buffer, crcs: npt.NDArray[Any], starts: IntArray, body_lengths: IntArray, sizes: IntArray
) -> None:
    bodies: Iterable[Buffer]
    if bool((sizes == sizes[0]).all() and (body_lengths == body_lengths[0]).all()):
        body_length = int(body_lengths[0])
        record = struct.Struct(f"{BODY_AT}x{body_length}s{int(sizes[0]) - BODY_AT - body_length}x")
        bodies = chain.from_iterable(record.iter_unpack(buffer))
    else:
        bodies = _slices(buffer, starts + BODY_AT, starts + BODY_AT + body_lengths)
    found = np.fromiter(map(crc32, bodies), np.int64, len(starts)) & 0x7FFFFFFF
    _demand(found == crcs, "the body's CRC differs")


def _slices(buffer: Buffer, starts: IntArray, ends: IntArray) -> list[Buffer]:
    """Return the pieces between starts and ends; small ones as bytes, whose copy costs less than a view's
    object."""
    small = len(buffer) < SMALL_RECORD_BYTES * len(starts)
    source = bytes(buffer) if small else memoryview(buffer)
    return [source[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _check_properties(buffer: Buffer, starts: IntArray, ends: IntArray) -> IntArray | None:
    """Return the tags codes, or None when the batch needs the ordinary path; ``MessageIllegal`` for a NUL.

    Usually all properties of a batch have one shape: the same length, separators at the same columns, the
    same names. Then one row stands for all. Otherwise they are looked at one by one.
    """
    width = int(ends[0] - starts[0])
    if width and bool((ends - starts == width).all()):
        rows = _gathered(buffer, width, starts)
        first = rows[0].tobytes()
        equal = (rows == rows[0]).all(axis=0)
        free = np.ones(width, np.bool_)
        free[_fixed_columns(first)] = False
        if bool((equal | free).all()) and not bool((rows[:, free] <= 2).any()):
            return _uniform_tags_codes(rows, first, equal)
    pieces = [bytes(piece) for piece in _slices(buffer, starts, ends)]
    joined = b"\x03".join(pieces)
    if 0 in joined:
        _demand(
            np.fromiter((0 not in piece for piece in pieces), np.bool_, len(pieces)), "properties hold a NUL"
        )
    if RESERVED_PATTERN.search(joined):
        return None
    return _tags_codes([piece.partition(b"\x02")[0] for piece in pieces])


def _fixed_columns(row: bytes) -> list[int]:
    """Return the columns of a row that hold separators and names: all that decides how it is read."""
    columns: list[int] = []
    at = 0
    for piece in row.split(b"\x02"):
        name_end = at + len(piece.partition(b"\x01")[0])
        columns += range(at, min(name_end + 1, len(row)))
        at += len(piece) + 1
        if at <= len(row):
            columns.append(at - 1)
    return columns


def _uniform_tags_codes(rows: ByteArray, first: bytes, equal: npt.NDArray[np.bool_]) -> IntArray | None:
    """Return the tags codes of properties of one shape, or None for the ordinary path."""
    if 0 in first:
        raise MessageIllegal("batch record 0: properties hold a NUL")
    if RESERVED_PATTERN.search(first):
        return None
    if first.startswith(_KEY_PREFIX):
        return np.zeros(len(rows), np.int64)
    end = first.find(b"\x02")
    end = len(first) if end < 0 else end
    if bool(equal[:end].all()):
        codes = _tags_codes([first[:end]])
        return None if codes is None else np.repeat(codes, len(rows))
    return _tags_codes(np.ascontiguousarray(rows[:, :end]).view(f"S{end}").ravel().tolist())


def _tags_codes(firsts: list[bytes]) -> IntArray | None:
    """Return the tags code of each first property; None when one is neither TAGS nor UNIQ_KEY."""
    codes: dict[bytes, int] = {}
    for first in set(firsts):
        if first.startswith(_TAGS_PREFIX):
            codes[first] = tags_code_of(str(first[len(_TAGS_PREFIX) :], "utf-8", "replace"))
        elif first.startswith(_KEY_PREFIX):
            codes[first] = 0
        else:
            return None
    return np.fromiter(map(codes.__getitem__, firsts), np.int64, len(firsts))


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
