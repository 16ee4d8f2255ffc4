"""A half message, and what is made of it: the committed message, a copy for a later check, one to give up.

Facts: Apache RocketMQ 5.3, EndTransactionProcessor.java, TransactionalMessageBridge.java. Unlike there the
committed message carries none of the marks of a half message, and a copy always names the first one
(TRAN_PREPARED_QUEUE_OFFSET), so that a late outcome for an earlier copy decides the newest. Pure; called by
the coordinator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from shmq.base.errors import MessageIllegal
from shmq.model import properties as names
from shmq.model.names import TRANSACTION_HALF_TOPIC, TRANSACTION_OP_HALF_TOPIC
from shmq.model.properties import decode_properties, encode_properties
from shmq.model.record import RecordFields, encode_record, parse_record, stamp_record
from shmq.model.subscription import tags_code_of
from shmq.model.sys_flag import TRANSACTION_COMMIT, TRANSACTION_MASK
from shmq.model.transaction import OP_TAG, op_body
from shmq.protocol.bodies.batch import iter_batch_elements

_MARKS = (
    names.TRANSACTION_PREPARED,
    names.REAL_TOPIC,
    names.REAL_QUEUE_ID,
    names.TRANSACTION_CHECK_TIMES,
    names.TRANSACTION_PREPARED_QUEUE_OFFSET,
    names.SHMQ_HALF_BATCH,
    names.SHMQ_SEQUENCE,
)
"""What only a half message has."""

OP_TAGS_CODE = tags_code_of(OP_TAG)


class HalfMessage(NamedTuple):
    """One record of the half topic, taken apart."""

    record: memoryview
    fields: RecordFields
    properties: dict[str, str]

    @property
    def queue_offset(self) -> int:
        """Its place in the half queue."""
        return self.fields.queue_offset

    @property
    def first(self) -> int:
        """The queue offset of the half message it is a copy of; its own when it is the first."""
        text = self.properties.get(names.TRANSACTION_PREPARED_QUEUE_OFFSET, "")
        return int(text) if text.isdecimal() else self.fields.queue_offset

    @property
    def checks(self) -> int:
        """How often its producers were asked."""
        text = self.properties.get(names.TRANSACTION_CHECK_TIMES, "")
        return int(text) if text.isdecimal() else 0

    @property
    def group(self) -> str:
        """The producer group that decides."""
        return self.properties.get(names.PRODUCER_GROUP, "")

    @property
    def topic(self) -> str:
        """Where the message goes when it is committed."""
        return self.properties[names.REAL_TOPIC]

    @property
    def queue_id(self) -> int:
        """The queue it goes to."""
        return int(self.properties[names.REAL_QUEUE_ID])

    @property
    def unique_key(self) -> str:
        """The producer's key, which is the transaction id too."""
        return self.properties.get(names.UNIQ_KEY, "")

    @property
    def committed_properties(self) -> dict[str, str]:
        """What the committed message has: no marks, and DELAY or TIMER_* when it waits from then on."""
        return {
            name.removeprefix(names.SHMQ_COMMIT_PREFIX): value
            for name, value in self.properties.items()
            if name not in _MARKS
        }

    @property
    def body(self) -> memoryview:
        """The body as stored."""
        return self.record[self.fields.body_at : self.fields.body_at + self.fields.body_length]


def half_of(record: memoryview, topic: str = TRANSACTION_HALF_TOPIC) -> HalfMessage:
    """Take a half message apart that lies in the half topic, or in that of those given up; MessageIllegal
    when it is none, or does not say where it belongs."""
    fields = parse_record(record)
    if record[fields.topic_at : fields.topic_at + fields.topic_length] != topic.encode():
        raise MessageIllegal(f"the record at {fields.physical_offset} is no message of {topic}")
    properties = decode_properties(record[fields.properties_at : fields.end])
    if not properties.get(names.REAL_TOPIC) or not properties.get(names.REAL_QUEUE_ID, "").isdecimal():
        raise MessageIllegal(
            f"the half message at {fields.physical_offset} names no topic and queue of its own"
        )
    return HalfMessage(record, fields, properties)


class Committed(NamedTuple):
    """Unstamped records for the message's own topic (or its delay level's queue), back to back."""

    data: bytearray
    sizes: list[int]
    tags_codes: list[int]


def committed(half: HalfMessage, topic: str, queue_id: int, properties: Mapping[str, str]) -> Committed:
    """Make the message, or the messages of a batch, visible ones: in their own queue, or where delayed ones
    wait. `properties` are those of a single message."""
    if names.SHMQ_HALF_BATCH not in half.properties:
        record = _record(half, topic, queue_id, half.body, properties, half.fields.flag)
        return Committed(record, [len(record)], [tags_code_of(properties.get(names.TAGS))])
    made = Committed(bytearray(), [], [])
    transaction_id = {names.TRANSACTION_ID: half.unique_key, names.PRODUCER_GROUP: half.group}
    for element in iter_batch_elements(half.body):
        own = decode_properties(element.properties) | transaction_id
        record = _record(half, topic, queue_id, element.body, own, element.flag)
        made.data.extend(record)
        made.sizes.append(len(record))
        made.tags_codes.append(tags_code_of(own.get(names.TAGS)))
    return made


def _record(
    half: HalfMessage,
    topic: str,
    queue_id: int,
    body: bytes | bytearray | memoryview,
    properties: Mapping[str, str],
    flag: int,
) -> bytearray:
    fields = half.fields
    return encode_record(
        topic=topic.encode(),
        body=body,
        properties=encode_properties(properties),
        queue_id=queue_id,
        flag=flag,
        sys_flag=fields.sys_flag & ~TRANSACTION_MASK | TRANSACTION_COMMIT,
        born_timestamp=fields.born_timestamp,
        born_host=fields.born_host,
        store_host=fields.store_host,
        reconsume_times=fields.reconsume_times,
        prepared_transaction_offset=fields.physical_offset,
    )


def copied(half: HalfMessage, topic: str, checks: int, *, queue_id: int = 0) -> bytearray:
    """Return the half message once more, for the half topic or the one of those that were given up."""
    properties = half.properties | {names.TRANSACTION_PREPARED_QUEUE_OFFSET: str(half.first)}
    if checks:
        properties[names.TRANSACTION_CHECK_TIMES] = str(checks)
    else:
        properties.pop(names.TRANSACTION_CHECK_TIMES, None)
    properties.pop(names.SHMQ_SEQUENCE, None)  # the first copy was the send
    return _plain(half, topic, queue_id, properties)


def asked(half: HalfMessage, checks: int, queue_offset: int, physical_offset: int, store_time: int) -> bytes:
    """Return what a producer is asked about (body of request 39): the copy at those offsets, with the topic
    and the queue that the message is for."""
    properties = half.properties | {
        names.TRANSACTION_PREPARED_QUEUE_OFFSET: str(half.first),
        names.TRANSACTION_CHECK_TIMES: str(checks),
    }
    record = _plain(half, half.topic, half.queue_id, properties)
    stamp_record(record, 0, queue_offset, physical_offset, store_time)
    return bytes(record)


def _plain(half: HalfMessage, topic: str, queue_id: int, properties: Mapping[str, str]) -> bytearray:
    fields = half.fields
    return encode_record(
        topic=topic.encode(),
        body=half.body,
        properties=encode_properties(properties),
        queue_id=queue_id,
        flag=fields.flag,
        sys_flag=fields.sys_flag,
        born_timestamp=fields.born_timestamp,
        born_host=fields.born_host,
        store_host=fields.store_host,
        reconsume_times=fields.reconsume_times,
    )


def op_record(queue_offsets: Sequence[int], store_host: bytes, now_ms: int) -> bytearray:
    """Return the op message that marks half messages as decided."""
    return encode_record(
        topic=TRANSACTION_OP_HALF_TOPIC.encode(),
        body=op_body(queue_offsets),
        properties=encode_properties({names.TAGS: OP_TAG}),
        queue_id=0,
        born_timestamp=now_ms,
        born_host=store_host,
        store_host=store_host,
    )
