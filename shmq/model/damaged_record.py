"""What stands in the log where a record was damaged: a record of the same place, size, queue and number.

It is valid by RocketMQ's rules, so any broker reads past it and every queue keeps its numbers. Readers of
ours know it by two marks that no client can set, and pass over it: DAMAGED_MARK in the record, where a
prepared transaction's offset stands, and DAMAGED_TAGS_CODE in its ConsumeQueue unit. People, and consumers of
other engines, know it by the property SHMQ_DAMAGED. Where the queue is not known it is a rolled-back
transaction message (no unit, no number: spec of Apache RocketMQ 5.3, CommitLog.java), here called a plug.
Pure functions.
"""

from __future__ import annotations

from shmq.model.record import (
    PREPARED_TRANSACTION_OFFSET_AT,
    RECORD_OVERHEAD_V1,
    TOPIC_LENGTH_V1_MAX,
    encode_record,
    stamp_record,
)
from shmq.model.sys_flag import TRANSACTION_ROLLBACK

DAMAGED = "SHMQ_DAMAGED"
"""Property of a record that stands for a damaged one."""

DAMAGED_MARK = int.from_bytes(b"SHMQDAMG")
"""The prepared transaction offset of such a record."""

DAMAGED_TAGS_CODE = 0x53484D51_80000000
"""The tags code of its unit. The upper half is no tag's; the lower one is the hash of hardly any."""

PLUG_TOPIC = b"_"
RECORD_BYTES_MIN = RECORD_OVERHEAD_V1 + len(PLUG_TOPIC)
"""The size of the smallest record."""

_PROPERTIES = f"{DAMAGED}\x011\x02".encode()


def is_damaged(record: memoryview | bytes) -> bool:
    """Whether a record stands for a damaged one."""
    at = PREPARED_TRANSACTION_OFFSET_AT
    return int.from_bytes(record[at : at + 8], "big") == DAMAGED_MARK


def substitute(
    size: int, *, topic: bytes, queue_id: int, queue_offset: int, physical_offset: int, store_timestamp: int
) -> bytes | None:
    """A record of `size` bytes that takes a damaged one's place in its queue; None when none is so small.

    The property is left out where there is no room for it.
    """
    head = RECORD_OVERHEAD_V1 + len(topic) + (len(topic) > TOPIC_LENGTH_V1_MAX)
    properties = _PROPERTIES if size >= head + len(_PROPERTIES) else b""
    if size < head:
        return None
    record = encode_record(
        topic=topic,
        body=bytes(size - head - len(properties)),
        properties=properties,
        queue_id=queue_id,
        born_timestamp=store_timestamp,
        prepared_transaction_offset=DAMAGED_MARK,
    )
    stamp_record(record, 0, queue_offset, physical_offset, store_timestamp)
    return bytes(record)


def plug(size: int, *, physical_offset: int, store_timestamp: int) -> bytes:
    """A record of `size` bytes, at least RECORD_BYTES_MIN, that belongs to no queue."""
    record = encode_record(
        topic=PLUG_TOPIC,
        body=bytes(size - RECORD_BYTES_MIN),
        properties=b"",
        queue_id=0,
        born_timestamp=store_timestamp,
        sys_flag=TRANSACTION_ROLLBACK,
        prepared_transaction_offset=DAMAGED_MARK,
    )
    stamp_record(record, 0, 0, physical_offset, store_timestamp)
    return bytes(record)
