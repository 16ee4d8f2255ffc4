"""The fixed part of a record as a numpy type, and how to reach it at many places of a buffer at once.

A log-ready record (V1 magic, IPv4 hosts) has all its fixed fields in the first 88 bytes; layout: see
``record``. Heads are gathered and scattered through an overlapping view: an array with one element starting
at *every* byte of the buffer (stride 1), indexed by the records' starts. That is one memcpy per record and
no index arithmetic per byte.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from shmq.model.properties import PROPERTIES_BYTES_MAX
from shmq.model.record import BODY_AT, MAGIC_V1, TOPIC_LENGTH_V1_MAX, Buffer
from shmq.model.sys_flag import BORN_HOST_V6, STORE_HOST_V6

IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]

KEY_PREFIX = b"UNIQ_KEY\x01"
TAGS_PREFIX = b"TAGS\x01"
"""Properties of a log-ready record begin with one of the two; with TAGS, UNIQ_KEY follows."""

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


def heads_everywhere(buffer: Buffer) -> npt.NDArray[Any]:
    """Return the overlapping view: a head starting at every byte of the buffer, for scattering into it."""
    return np.ndarray((len(buffer) - BODY_AT + 1,), HEAD_DTYPE, buffer, strides=(1,))


def gathered(buffer: Buffer, width: int, starts: IntArray) -> ByteArray:
    """Return ``width`` bytes from each start as rows; all of them must lie inside the buffer.

    Gathered as void, which numpy moves by memcpy (a structured type is fifteen times slower).
    """
    void = np.dtype((np.void, width))
    everywhere: npt.NDArray[Any] = np.ndarray((len(buffer) - width + 1,), void, buffer, strides=(1,))
    return everywhere[starts].view(np.uint8).reshape(-1, width)


def body_ends(buffer: Buffer, heads: npt.NDArray[Any], starts: IntArray, ends: IntArray) -> IntArray | None:
    """Return where the bodies of records end that begin at ``starts`` with ``heads`` and end at ``ends``.

    None when one of them is not usual (V1, IPv4 hosts, a body), or its lengths do not add up to its size.
    """
    lengths = heads["body_length"].astype(np.int64)
    found: IntArray = starts + BODY_AT + lengths
    usual = (heads["magic"] == MAGIC_V1) & (heads["sys_flag"] & (BORN_HOST_V6 | STORE_HOST_V6) == 0)
    if not (usual & (lengths > 0) & (found + 3 <= ends)).all():
        return None
    u8 = np.frombuffer(buffer, np.uint8)
    topic_lengths = u8[found]
    properties_at = found + 3 + topic_lengths
    if ((properties_at > ends) | (topic_lengths > TOPIC_LENGTH_V1_MAX)).any():
        return None
    properties_lengths = u8[properties_at - 2].astype(np.int64) << 8 | u8[properties_at - 1]
    if (properties_at + properties_lengths != ends).any() or properties_lengths.max() > PROPERTIES_BYTES_MAX:
        return None
    return found


def scatter(buffer: bytearray | memoryview, rows: ByteArray, starts: IntArray) -> None:
    """Write each row at its start; all of them must lie inside the buffer. The way back of ``gathered``."""
    width = rows.shape[1]
    void = np.dtype((np.void, width))
    everywhere: npt.NDArray[Any] = np.ndarray((len(buffer) - width + 1,), void, buffer, strides=(1,))
    everywhere[starts] = np.ascontiguousarray(rows).view(void).ravel()
