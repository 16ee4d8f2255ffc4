"""Batches: SEND_BATCH_MESSAGE (320) of RocketMQ's clients and SEND_LOG_BATCH (30001) of shmq's own.

    320     RocketMQ's batch elements (``protocol/bodies/batch.py``), made into records by ``batch_elements``
    30001   finished CommitLog records, checked as a whole with arrays and stamped in place; small batches,
    and
            those in which a reserved property name was seen, go through the ordinary check of each message

Runs in the worker's event loop. A batch is one append request: stored whole and together, or refused.
"""

from __future__ import annotations

import numpy as np

from shmq.base.errors import InvalidParameter, MessageIllegal
from shmq.handlers.batch_elements import VECTOR_MIN, Envelope, batch_records
from shmq.handlers.context import WorkerContext
from shmq.handlers.message_properties import HALF_IN_BATCH, prepare, prepare_element
from shmq.handlers.routes import Place, Route
from shmq.handlers.send import topic_bytes
from shmq.handlers.send_checks import check_body_size, check_send, choose_queue, received_body
from shmq.handlers.send_reply import SendReply
from shmq.handlers.sequences import sequence_in, sequence_ref
from shmq.model import names
from shmq.model import properties as names_of
from shmq.model.host import HOST_V4_BYTES
from shmq.model.record import BODY_CRC_AT, MAGIC_V1, RecordFields, encode_record, parse_record
from shmq.model.record_batch import check_batch, stamp_hosts
from shmq.model.sys_flag import LOG_READY_FORBIDDEN
from shmq.model.wait_for import AS_CONFIGURED, Wait, wait_of
from shmq.net.connection import Connection
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.log_batch import SendLogBatchHeader
from shmq.protocol.headers.send import SendMessageHeader
from shmq.shm.queue_table import QueueRef
from shmq.store.append_request import AppendRequest

WAIT_MARKS = (b"WAIT\x01false\x02", names_of.SHMQ_WAIT_FOR.encode())
"""Where one of these is, a batch says what its sender waits for; its messages agree, the first is asked."""


def send_batch(
    ctx: WorkerContext, connection: Connection, command: Command, header: SendMessageHeader
) -> None:
    """320: store every element as a message of its own, with consecutive queue offsets."""
    topic = check_send(ctx, header)
    if header.topic.startswith(names.RETRY_PREFIX):
        raise MessageIllegal("a batch may not be sent to a retry topic: send its messages one by one")
    queue = choose_queue(ctx, topic, header.queue_id)
    body = received_body(command)
    check_body_size(len(body), ctx.settings.max_message_size)
    outer = prepare(header.properties or "", b"")
    if outer.is_half:
        raise MessageIllegal(HALF_IN_BATCH)
    if outer.delay_level or outer.timer is not None:
        raise MessageIllegal("a delayed message may not be part of a batch: send it alone")
    envelope = Envelope(
        topic=topic_bytes(header.topic),
        queue_id=queue.queue_id,
        sys_flag=header.sys_flag & ~LOG_READY_FORBIDDEN,
        born_timestamp=header.born_timestamp,
        born_host=connection.peer.born_host,
        store_host=ctx.store_host,
        reconsume_times=header.reconsume_times,
        body_bytes_max=ctx.settings.max_message_size,
    )
    data, sizes, tags_codes, unique_keys = batch_records(body, envelope)
    reply = SendReply(
        ctx,
        connection,
        command,
        topic=header.topic,
        queue_id=queue.queue_id,
        unique_key=unique_keys,
        wait=outer.wait,
        count=len(sizes),
        size=len(data),
        sizes=sizes,
    )
    sequence = sequence_ref(ctx, sequence_in(_first_properties(data)))
    ctx.appends.add(AppendRequest(queue, data, sizes, tags_codes, sequence=sequence), reply)


def send_log_batch(
    ctx: WorkerContext, connection: Connection, command: Command, header: SendLogBatchHeader
) -> None:
    """30001: check finished records as one, and append them after stamping, without encoding anything."""
    topic = check_send(ctx, header)
    if header.topic.startswith(names.RETRY_PREFIX):
        raise MessageIllegal("a batch may not be sent to a retry topic: send its messages one by one")
    queue = choose_queue(ctx, topic, header.queue_id)
    if queue.queue_id != header.queue_id:
        raise InvalidParameter("a log-ready batch names its queue: its records carry the queue id")
    body = received_body(command)
    if len(body) > ctx.settings.max_message_size:
        check_body_size(len(body), ctx.settings.max_message_size)
    born_host = connection.peer.born_host
    checked = None
    if header.count >= VECTOR_MIN and len(born_host) == len(ctx.store_host) == HOST_V4_BYTES:
        data = bytearray(body) if body.readonly else body  # what came piece by piece is a frame's own memory
        sizes = np.frombuffer(header.sizes, "<u4").astype(np.int64)
        checked = check_batch(
            data, sizes, topic_bytes(header.topic), queue.queue_id, ctx.settings.max_message_size
        )
    if checked is not None and not checked.needs_slow_path:
        stamp_hosts(data, checked.starts, ctx.store_host, born_host)
        request = AppendRequest(queue, data, checked.sizes, checked.tags_codes)
        ctx.count("log_batches", 1)
    else:
        request = _one_by_one(ctx, body, header, queue, born_host)
        ctx.count("log_batches_slow", 1)
    first = _first_properties(request.data)
    request.sequence = sequence_ref(ctx, sequence_in(first))
    reply = SendReply(
        ctx,
        connection,
        command,
        topic=header.topic,
        queue_id=queue.queue_id,
        unique_key="",
        wait=_wait_of_first(first),
        count=header.count,
        size=len(request.data),
    )
    ctx.appends.add(request, reply)


def _first_properties(data: bytearray | memoryview) -> bytes:
    """Return the encoded properties of a batch's first message: they speak for the whole batch."""
    first = parse_record(data)
    return bytes(data[first.properties_at : first.end])


def _wait_of_first(properties: bytes) -> Wait:
    """Read what the first message of a batch waits for; most say nothing."""
    if not any(mark in properties for mark in WAIT_MARKS):
        return AS_CONFIGURED
    return wait_of(names_of.decode_properties(properties.decode("utf-8", "replace")))


def _one_by_one(
    ctx: WorkerContext, body: memoryview, header: SendLogBatchHeader, queue: QueueRef, born_host: bytes
) -> AppendRequest:
    """Check and encode each record of a log-ready batch as if it had come alone."""
    data = bytearray()
    sizes: list[int] = []
    tags_codes: list[int] = []
    position = 0
    for index, size in enumerate(header.size_list()):
        fields = parse_record(body, position, min(len(body), position + size))
        refuse_foreign(ctx, body, header, fields, size, index)
        properties = prepare_element(body[fields.properties_at : fields.end])
        record = encode_record(
            topic=topic_bytes(header.topic),
            body=body[fields.body_at : fields.body_at + fields.body_length],
            properties=properties.stored,
            queue_id=queue.queue_id,
            flag=fields.flag,
            sys_flag=fields.sys_flag,
            born_timestamp=fields.born_timestamp,
            born_host=born_host,
            store_host=ctx.store_host,
        )
        if record[BODY_CRC_AT : BODY_CRC_AT + 4] != body[position + BODY_CRC_AT : position + BODY_CRC_AT + 4]:
            raise MessageIllegal(f"batch record {index}: the body's CRC differs")
        data += record
        sizes.append(len(record))
        tags_codes.append(properties.tags_code)
        position += size
    if position != len(body):
        raise MessageIllegal(f"the sizes of a batch must add up to its {len(body)} bytes")
    return AppendRequest(queue, data, sizes, tags_codes)


def refuse_foreign(
    ctx: WorkerContext,
    body: memoryview,
    header: SendLogBatchHeader,
    fields: RecordFields,
    size: int,
    index: int,
) -> None:
    """Refuse a record that is sound but not what a client may put into a batch for this queue."""
    faults = (
        (fields.size != size, "total size differs from the header's list"),
        (fields.magic != MAGIC_V1, "magic is not V1's"),
        (fields.queue_id != header.queue_id, f"queue id is not {header.queue_id}"),
        (fields.sys_flag & LOG_READY_FORBIDDEN, "sysFlag has a transaction, IPv6 or inner-batch bit"),
        (fields.reconsume_times, "reconsume times are not 0"),
        (fields.prepared_transaction_offset, "prepared transaction offset is not 0"),
        (
            body[fields.topic_at : fields.topic_at + fields.topic_length] != topic_bytes(header.topic),
            f"topic is not {header.topic}",
        ),
    )
    for found, fault in faults:
        if found:
            raise MessageIllegal(f"batch record {index}: {fault}")
    check_body_size(fields.body_length, ctx.settings.max_message_size)


ROUTES: dict[int, Route] = {
    RequestCode.SEND_BATCH_MESSAGE: Route(SendMessageHeader, send_batch, Place.WORKER),
    RequestCode.SEND_LOG_BATCH: Route(SendLogBatchHeader, send_log_batch, Place.WORKER),
}
