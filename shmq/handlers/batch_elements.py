"""From the elements of request 320 to records: RocketMQ's own batches, as any client over TCP sends them.

Two ways with one outcome. ``records_one_by_one`` is the general one: each element as if it had come alone.
``records_at_once`` handles the usual batch with arrays, and leaves to the other whatever is small, faulty, or
holds a property that decides more than tag and key; so it refuses nothing itself.

Pure functions on buffers; called by ``send_batch`` in a worker, without a lock.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from shmq.handlers.message_properties import prepare_element
from shmq.handlers.send_checks import check_body_size
from shmq.model import properties as names
from shmq.model.batch_check import body_crcs, of_one_shape, pieces_of
from shmq.model.batch_encoder import encode_batch
from shmq.model.host import HOST_V4_BYTES
from shmq.model.properties import PROPERTIES_BYTES_MAX
from shmq.model.record import BODY_AT, MAGIC_V1, TOPIC_LENGTH_V1_MAX, encode_record
from shmq.model.record_array import HEAD_DTYPE, ByteArray, IntArray, gathered
from shmq.model.record_batch import stamp_hosts
from shmq.model.subscription import tags_code_of
from shmq.model.timer import TIMER_PROPERTIES
from shmq.protocol.bodies.batch import ELEMENT_OVERHEAD, iter_batch_elements

VECTOR_MIN = 16
"""Messages from which on the arrays are faster than the loop."""

ELEMENT_HEAD = np.dtype(
    [("size", ">i4"), ("magic", ">i4"), ("crc", ">i4"), ("flag", ">i4"), ("body_length", ">i4")]
)
"""The fixed part of an element (``protocol/bodies/batch.py``)."""

_HEAD_BYTES = ELEMENT_HEAD.itemsize
_LENGTH_BYTES = ELEMENT_OVERHEAD - _HEAD_BYTES
_SIZE = struct.Struct(">i")

_DECISIVE = frozenset(
    name.encode()
    for name in (names.DELAY, *TIMER_PROPERTIES, names.TRANSACTION_PREPARED, names.SHMQ_WAIT_FOR)
)
"""Names whose values ``prepare_element`` judges: a batch that has one goes the general way."""

_DECISIVE_MARKS = (b"\0", *(name + b"\x01" for name in sorted(_DECISIVE)))
_TAGS = names.TAGS.encode()
_UNIQUE_KEY = names.UNIQ_KEY.encode()


class Envelope(NamedTuple):
    """What all records of a batch have in common, and the largest body one may have."""

    topic: bytes
    queue_id: int
    sys_flag: int
    born_timestamp: int
    born_host: bytes
    store_host: bytes
    reconsume_times: int
    body_bytes_max: int


class BatchRecords(NamedTuple):
    """Unstamped records back to back, hosts included; ``unique_keys`` are joined by commas."""

    data: bytearray
    sizes: list[int]
    tags_codes: list[int] | IntArray
    unique_keys: str


def batch_records(body: memoryview, envelope: Envelope) -> BatchRecords:
    """Return the records of all elements; ``MessageIllegal`` for the first that may not be stored."""
    return records_at_once(body, envelope) or records_one_by_one(body, envelope)


def records_one_by_one(body: memoryview, envelope: Envelope) -> BatchRecords:
    """Check and encode each element by itself; ``MessageIllegal`` for the first that may not be stored."""
    data = bytearray()
    sizes: list[int] = []
    tags_codes: list[int] = []
    unique_keys: list[str] = []
    for element in iter_batch_elements(body):
        properties = prepare_element(element.properties)
        check_body_size(len(element.body), envelope.body_bytes_max)
        record = encode_record(
            topic=envelope.topic,
            body=element.body,
            properties=properties.stored,
            queue_id=envelope.queue_id,
            flag=element.flag,
            sys_flag=envelope.sys_flag,
            born_timestamp=envelope.born_timestamp,
            born_host=envelope.born_host,
            store_host=envelope.store_host,
            reconsume_times=envelope.reconsume_times,
        )
        data += record
        sizes.append(len(record))
        tags_codes.append(properties.tags_code)
        unique_keys.append(properties.unique_key)
    return BatchRecords(data, sizes, tags_codes, ",".join(unique_keys))


def records_at_once(body: memoryview, envelope: Envelope) -> BatchRecords | None:
    """Return the same by arrays; None for a batch that the general way has to look at."""
    is_plain = len(envelope.born_host) == len(envelope.store_host) == HOST_V4_BYTES
    if not is_plain or len(envelope.topic) > TOPIC_LENGTH_V1_MAX or envelope.reconsume_times:
        return None
    elements = _cut(body, envelope.body_bytes_max)
    if elements is None:
        return None
    properties = _read_properties(body, elements)
    if properties is None:
        return None
    width = _one_value(elements.ends - elements.properties_starts)
    if width and _one_value(elements.body_lengths):
        last = gathered(body, 1, elements.ends - 1) == ord("\x02")
        if last.all() or not last.any():
            data, sizes = _tabular(body, envelope, elements, width, is_ended=bool(last[0, 0]))
            return BatchRecords(data, sizes, properties.tags_codes, properties.unique_keys)
    pieces = properties.pieces or _properties_of(body, elements)
    data, sizes = _piecewise(body, envelope, elements, pieces)
    return BatchRecords(data, sizes, properties.tags_codes, properties.unique_keys)


class _Elements(NamedTuple):
    """Where the elements of a batch, and the parts of each, lie."""

    starts: IntArray
    ends: IntArray
    flags: IntArray
    body_lengths: IntArray
    properties_starts: IntArray


def _cut(body: memoryview, body_bytes_max: int) -> _Elements | None:
    """Find all elements; None when there are few, or when one does not hold together."""
    starts = _starts_of(body)
    if starts is None or len(starts) < VECTOR_MIN:
        return None
    ends = np.append(starts[1:], len(body))
    heads = gathered(body, _HEAD_BYTES, starts).view(ELEMENT_HEAD).ravel()
    body_lengths = heads["body_length"].astype(np.int64)
    body_starts = starts + _HEAD_BYTES
    fits = (body_lengths >= 1) & (body_lengths <= body_bytes_max)
    fits &= body_starts + body_lengths + _LENGTH_BYTES <= ends
    if not fits.all():
        return None
    properties_starts = body_starts + body_lengths + _LENGTH_BYTES
    lengths = gathered(body, _LENGTH_BYTES, properties_starts - _LENGTH_BYTES).view(">i2").ravel()
    if not (properties_starts + lengths == ends).all() or int(lengths.max()) >= PROPERTIES_BYTES_MAX:
        return None  # one at the limit has no room for a final separator
    return _Elements(starts, ends, heads["flag"], body_lengths, properties_starts)


def _starts_of(body: memoryview) -> IntArray | None:
    """Follow the chain of total sizes; None when it does not end with the batch, or is surely short."""
    end = len(body)
    size = _SIZE.unpack_from(body)[0] if end >= ELEMENT_OVERHEAD else 0
    if size < ELEMENT_OVERHEAD or size * VECTOR_MIN > 2 * end:
        return None
    if end % size == 0:
        sizes = np.ndarray((end // size,), ">i4", body, strides=(size,))
        if (sizes == size).all():
            return np.arange(0, end, size)
    starts = []
    position, limit = 0, end - ELEMENT_OVERHEAD
    unpack = _SIZE.unpack_from
    while position <= limit:
        starts.append(position)
        (size,) = unpack(body, position)
        if size < ELEMENT_OVERHEAD:
            return None
        position += size
    return np.array(starts, np.int64) if position == end else None


class _Properties(NamedTuple):
    """What the broker reads of the properties of a batch; ``pieces`` are each element's, if they were cut."""

    tags_codes: IntArray
    unique_keys: str
    pieces: list[bytes] | None = None


def _read_properties(body: memoryview, elements: _Elements) -> _Properties | None:
    """Read tags and unique keys; None when a property decides more than that."""
    width = _one_value(elements.ends - elements.properties_starts)
    if width:
        rows = gathered(body, width, elements.properties_starts)
        equal = (rows == rows[0]).all(axis=0)
        if of_one_shape(rows, equal):
            return _of_columns(rows, equal)
    return _of_pieces(_properties_of(body, elements))


def _properties_of(body: memoryview, elements: _Elements) -> list[bytes]:
    return [bytes(piece) for piece in pieces_of(body, elements.properties_starts, elements.ends)]


def _of_columns(rows: ByteArray, equal: npt.NDArray[np.bool_]) -> _Properties | None:
    """Read properties of one shape: what is a name or a value in the first row is one in all. ``equal`` says
    which columns are the same."""
    first = rows[0].tobytes()
    columns: dict[bytes, slice] = {}
    at = 0
    for piece in first.split(b"\x02"):
        name, _, value = piece.partition(b"\x01")
        if name and value:
            columns[name] = slice(at + len(piece) - len(value), at + len(piece))
        at += len(piece) + 1
    if 0 in first or not _DECISIVE.isdisjoint(columns):
        return None
    count = len(rows)
    tags_codes = np.zeros(count, np.int64)
    if _TAGS in columns:
        tags = rows[:1] if equal[columns[_TAGS]].all() else rows
        tags = np.ascontiguousarray(tags[:, columns[_TAGS]])
        tags_codes[:] = _tags_codes(tags.view(f"S{tags.shape[1]}").ravel().tolist())
    keys = rows[:, columns.get(_UNIQUE_KEY, slice(0, 0))]
    joined = np.full((count, keys.shape[1] + 1), ord(","), np.uint8)
    joined[:, :-1] = keys
    return _Properties(tags_codes, str(joined.tobytes()[:-1], "utf-8", "replace"))


def _of_pieces(pieces: list[bytes]) -> _Properties | None:
    """Read properties of any shape, of which each has at most one tag and one unique key."""
    framed = [b"\x02" + piece for piece in pieces]
    joined = b"".join(framed)
    if any(mark in joined for mark in _DECISIVE_MARKS):
        return None
    tags, keys = _values(framed, joined, _TAGS), _values(framed, joined, _UNIQUE_KEY)
    if tags is None or keys is None:
        return None
    return _Properties(_tags_codes(tags), str(b",".join(keys), "utf-8", "replace"), pieces)


def _values(framed: list[bytes], joined: bytes, name: bytes) -> list[bytes] | None:
    """Return the value of one property in each piece, b"" without it; None when some has it twice, or
    empty."""
    mark = b"\x02" + name + b"\x01"
    values = [piece.partition(mark)[2].partition(b"\x02")[0] for piece in framed]
    return values if joined.count(mark) == len(values) - values.count(b"") else None


def _tags_codes(tags: list[bytes]) -> IntArray:
    codes = {tag: tags_code_of(str(tag, "utf-8", "replace")) for tag in set(tags)}
    return np.fromiter(map(codes.__getitem__, tags), np.int64, len(tags))


def _one_value(numbers: IntArray) -> int:
    """Return the number that all are, 0 when they differ."""
    first = int(numbers[0])
    return first if bool((numbers == first).all()) else 0


def _tabular(
    body: memoryview, envelope: Envelope, elements: _Elements, width: int, *, is_ended: bool
) -> tuple[bytearray, list[int]]:
    """Encode elements of one length: they and the records are rows of two tables, moved by columns."""
    count = len(elements.starts)
    source = np.frombuffer(body, np.uint8).reshape(count, -1)
    body_length = int(elements.body_lengths[0])
    stored_width = width + (not is_ended)
    topic_part = bytes((len(envelope.topic),)) + envelope.topic + stored_width.to_bytes(2, "big")
    topic_at = BODY_AT + body_length
    properties_at = topic_at + len(topic_part)
    size = properties_at + stored_width
    data = bytearray(count * size)
    heads = np.ndarray((count,), HEAD_DTYPE, data, strides=(size,))
    heads["total_size"] = size
    heads["magic"] = MAGIC_V1
    heads["body_crc"] = body_crcs(
        body, _HEAD_BYTES, elements.starts, elements.body_lengths, elements.ends - elements.starts
    )
    heads["queue_id"] = envelope.queue_id
    heads["flag"] = elements.flags
    heads["sys_flag"] = envelope.sys_flag
    heads["born_timestamp"] = envelope.born_timestamp
    heads["born_host"] = np.void(envelope.born_host)
    heads["store_host"] = np.void(envelope.store_host)
    heads["body_length"] = body_length
    table = np.frombuffer(data, np.uint8).reshape(count, size)
    table[:, BODY_AT:topic_at] = source[:, _HEAD_BYTES : _HEAD_BYTES + body_length]
    table[:, topic_at:properties_at] = np.frombuffer(topic_part, np.uint8)
    table[:, properties_at : properties_at + width] = source[:, -width:]
    if not is_ended:
        table[:, -1] = ord("\x02")
    return data, [size] * count


def _piecewise(
    body: memoryview, envelope: Envelope, elements: _Elements, properties: list[bytes]
) -> tuple[bytearray, list[int]]:
    """Encode elements of different lengths as a client encodes a log-ready batch."""
    body_starts = elements.starts + _HEAD_BYTES
    records, sizes = encode_batch(
        topic=envelope.topic,
        queue_id=envelope.queue_id,
        bodies=pieces_of(body, body_starts, body_starts + elements.body_lengths),
        properties=[one if not one or one[-1] == 2 else one + b"\x02" for one in properties],
        born_timestamp=envelope.born_timestamp,
        flags=elements.flags,
        sys_flags=envelope.sys_flag,
    )
    lengths = np.array(sizes, np.int64)
    stamp_hosts(records, np.cumsum(lengths) - lengths, envelope.store_host, envelope.born_host)
    return cast(bytearray, records), sizes  # with properties for each it is one
