"""Finding messages: by key (12) and by offset message id (33). Served by any worker from the store.

Runs in the worker's event loop. The index finds keys by hash; here the records are looked at, so that only
messages that really have the key are answered. Facts: Apache RocketMQ 5.3, QueryMessageProcessor.java.
"""

from __future__ import annotations

from shmq.base.errors import QueryNotFound, ShmqError
from shmq.broker import limits
from shmq.handlers.context import WorkerContext
from shmq.handlers.routes import Place, Route
from shmq.model import properties as names
from shmq.model.record import parse_record
from shmq.net.connection import Connection
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.query import (
    UNIQUE_KEY_QUERY,
    QueryMessageHeader,
    QueryMessageResponseHeader,
    ViewMessageHeader,
)
from shmq.shm.page_layout import INDEXED_POSITION, LAST_STORE_TIME


class MessageNotFound(ShmqError):
    """No message at that physical offset: answered with SYSTEM_ERROR, as RocketMQ does."""


def query_message(
    ctx: WorkerContext, connection: Connection, command: Command, header: QueryMessageHeader
) -> Command:
    """12: messages of a topic with a key, newest first, within the bytes of one answer."""
    by_unique_key = (command.ext_value(UNIQUE_KEY_QUERY) or "").lower() == "true"
    most = ctx.settings.default_query_max_num if by_unique_key else limits.QUERY_COUNT_MAX
    count = max(1, min(header.max_num, most))
    found: list[memoryview] = []
    size = 0
    for physical_offset in ctx.store.lookup_key(
        header.topic, header.key, count, header.begin_timestamp, header.end_timestamp
    ):
        record = ctx.store.record_at(physical_offset)
        if record is None or not _has_key(record, header.topic, header.key):
            continue
        size += len(record)
        if found and size > limits.QUERY_BYTES_MAX:
            break
        found.append(record)
    if not found:
        raise QueryNotFound(
            f"no message of topic {header.topic} with key {header.key} was found in that time"
        )
    words = ctx.store.page.words
    answer = QueryMessageResponseHeader(
        index_last_update_timestamp=words[LAST_STORE_TIME],
        index_last_update_phyoffset=words[INDEXED_POSITION],
    )
    return command.response(ResponseCode.SUCCESS, None, answer, [*found])


def _has_key(record: memoryview, topic: str, key: str) -> bool:
    """Look into the record itself: two keys may share a hash."""
    fields = parse_record(record)
    topic_end = fields.topic_at + fields.topic_length
    if record[fields.topic_at : topic_end] != topic.encode():
        return False
    found = names.decode_properties(record[fields.properties_at : fields.end])
    return found.get(names.UNIQ_KEY) == key or key in names.split_keys(found.get(names.KEYS))


def view_message(
    ctx: WorkerContext, connection: Connection, command: Command, header: ViewMessageHeader
) -> Command:
    """33: the message whose record begins at a physical offset."""
    record = ctx.store.record_at(header.offset)
    if record is None:
        raise MessageNotFound(f"there is no message at physical offset {header.offset}")
    return command.response(ResponseCode.SUCCESS, None, None, record)


ROUTES: dict[int, Route] = {
    RequestCode.QUERY_MESSAGE: Route(QueryMessageHeader, query_message, Place.WORKER),
    RequestCode.VIEW_MESSAGE_BY_ID: Route(ViewMessageHeader, view_message, Place.WORKER),
}
