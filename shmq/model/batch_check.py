"""Checking of log-ready batches: what a worker demands before it appends records that a client encoded.

The worker trusts nothing: a batch that breaks a rule is refused whole, one that holds anything of the
broker's own business takes the ordinary path message by message. Called by workers, outside the append
lock.
"""

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from shmq.base.checksum import crc32
from shmq.base.errors import MessageIllegal
from shmq.model.properties import PROPERTIES_BYTES_MAX
from shmq.model.record import BODY_AT, MAGIC_V1, RECORD_OVERHEAD_V1, Buffer
from shmq.model.record_array import HEAD_DTYPE, KEY_PREFIX, TAGS_PREFIX, ByteArray, IntArray, gathered
from shmq.model.subscription import tags_code_of
from shmq.model.sys_flag import LOG_READY_FORBIDDEN

SMALL_RECORD_BYTES = 4096
"""Below this a copy of a piece costs less than a view of it."""

RESERVED_PATTERN = re.compile(
    rb"\x02(?:DELAY\x01|TIMER_|TRAN_|REAL_|INNER_|__CRC32#\x01|RETRY_TOPIC\x01|TAGS\x01)"
)
"""A property that only the ordinary path may handle, anywhere but at the very start of the properties."""


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
    heads = gathered(buffer, BODY_AT, starts).view(HEAD_DTYPE).ravel()
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
    tails = gathered(buffer, tail_bytes, topic_starts)
    expected = np.frombuffer(bytes((len(topic),)) + topic, np.uint8)
    _demand((tails[:, :-2] == expected).all(axis=1), f"topic is not {topic!r}")
    properties_lengths = tails[:, -2].astype(np.int64) << 8 | tails[:, -1]
    properties_starts = topic_starts + tail_bytes
    _demand(
        (properties_lengths <= PROPERTIES_BYTES_MAX) & (properties_starts + properties_lengths == ends),
        "properties do not end with the record",
    )
    found = body_crcs(buffer, BODY_AT, starts, body_lengths, wanted)
    _demand(found == heads["body_crc"], "the body's CRC differs")
    tags_codes = _check_properties(buffer, properties_starts, ends)
    if tags_codes is None:
        return BatchCheck(starts, wanted, np.empty(0, np.int64), needs_slow_path=True)
    return BatchCheck(starts, wanted, tags_codes, needs_slow_path=False)


def _demand(holds: npt.NDArray[np.bool_], fault: str) -> None:
    if not holds.all():
        raise MessageIllegal(f"batch record {int(np.argmin(holds))}: {fault}")


def body_crcs(
    buffer: Buffer, head_bytes: int, starts: IntArray, body_lengths: IntArray, sizes: IntArray
) -> IntArray:
    """Return the CRC, as a record holds it, of the body behind the first ``head_bytes`` of each record or
    element of a batch, which lie back to back."""
    bodies: Iterable[Buffer]
    is_table = bool((sizes == sizes[0]).all() and (body_lengths == body_lengths[0]).all())
    if is_table and sizes[0] < SMALL_RECORD_BYTES:
        body_length = int(body_lengths[0])
        record = struct.Struct(f"{head_bytes}x{body_length}s{int(sizes[0]) - head_bytes - body_length}x")
        bodies = chain.from_iterable(record.iter_unpack(buffer))
    else:
        bodies = pieces_of(buffer, starts + head_bytes, starts + head_bytes + body_lengths)
    return np.fromiter(map(crc32, bodies), np.int64, len(starts)) & 0x7FFFFFFF


def pieces_of(buffer: Buffer, starts: IntArray, ends: IntArray) -> list[Buffer]:
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
        rows = gathered(buffer, width, starts)
        equal = (rows == rows[0]).all(axis=0)
        if of_one_shape(rows, equal):
            return _uniform_tags_codes(rows, rows[0].tobytes(), equal)
    pieces = [bytes(piece) for piece in pieces_of(buffer, starts, ends)]
    joined = b"\x03".join(pieces)
    if 0 in joined:
        _demand(
            np.fromiter((0 not in piece for piece in pieces), np.bool_, len(pieces)), "properties hold a NUL"
        )
    if RESERVED_PATTERN.search(joined):
        return None
    return _tags_codes([piece.partition(b"\x02")[0] for piece in pieces])


def of_one_shape(rows: ByteArray, equal: npt.NDArray[np.bool_]) -> bool:
    """Tell whether encoded properties of one length, a row each, are read alike: separators and names at the
    same columns, values that hold nothing else below 0x03. ``equal`` says which columns are the same."""
    free = np.ones(rows.shape[1], np.bool_)
    free[_fixed_columns(rows[0].tobytes())] = False
    return bool((equal | free).all()) and not bool((rows[:, free] <= 2).any())


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
    if first.startswith(KEY_PREFIX):
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
        if first.startswith(TAGS_PREFIX):
            codes[first] = tags_code_of(str(first[len(TAGS_PREFIX) :], "utf-8", "replace"))
        elif first.startswith(KEY_PREFIX):
            codes[first] = 0
        else:
            return None
    return np.fromiter(map(codes.__getitem__, firsts), np.int64, len(firsts))
