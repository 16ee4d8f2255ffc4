"""A delayed message's way back: from its record in a delay level's queue to the record of its own topic.

Facts: Apache RocketMQ 5.3, ScheduleMessageService.java. Unlike there DELAY is gone from the delivered
message, so that nothing takes it for one that still waits. Pure; called by the coordinator.
"""

from __future__ import annotations

from typing import NamedTuple

from shmq.base.errors import MessageIllegal
from shmq.model.properties import (
    DELAY,
    REAL_QUEUE_ID,
    REAL_TOPIC,
    TAGS,
    decode_properties,
    encode_properties,
)
from shmq.model.record import encode_record, parse_record
from shmq.model.subscription import tags_code_of


class Delivery(NamedTuple):
    """Where a message goes, and what it becomes there: an unstamped record and its tags code."""

    topic: str
    queue_id: int
    record: bytearray
    tags_code: int


def delivery_of(record: memoryview) -> Delivery:
    """Rebuild the message; MessageIllegal when the record does not say where it belongs."""
    fields = parse_record(record)
    properties = decode_properties(record[fields.properties_at : fields.end])
    topic, queue_id = properties.get(REAL_TOPIC), properties.get(REAL_QUEUE_ID, "")
    if not topic or not queue_id.isdecimal():
        raise MessageIllegal(
            f"the delayed message at {fields.physical_offset} names no topic and queue of its own"
        )
    properties.pop(DELAY, None)
    encoded = encode_record(
        topic=topic.encode(),
        body=record[fields.body_at : fields.body_at + fields.body_length],
        properties=encode_properties(properties),
        queue_id=int(queue_id),
        flag=fields.flag,
        sys_flag=fields.sys_flag,
        born_timestamp=fields.born_timestamp,
        born_host=fields.born_host,
        store_host=fields.store_host,
        reconsume_times=fields.reconsume_times,
    )
    return Delivery(topic, int(queue_id), encoded, tags_code_of(properties.get(TAGS)))
