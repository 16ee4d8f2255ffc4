"""CONSUMER_SEND_MSG_BACK (36): a consumer failed; its message comes again later, or goes to the dead letters.

    retry         topic %RETRY%group, a queue of its own choice, after the delay of level 3 + tries so far (or
                  of the level the consumer names); reconsumeTimes + 1
    dead letter   topic %DLQ%group, at once: the tries are used up, or the consumer wants it so (level < 0)

Runs in the worker's event loop: reads the message from its own maps and appends the copy with its turn.
Facts: Apache RocketMQ 5.3, AbstractSendMessageProcessor.java.
"""

from __future__ import annotations

import logging
import random

from shmq.base import log
from shmq.base.errors import NoPermission, ShmqError
from shmq.handlers.context import Ask, NeedGroup, NeedTopic, WorkerContext
from shmq.handlers.delayed import delayed
from shmq.handlers.message_properties import check_stored
from shmq.handlers.routes import Place, Route
from shmq.handlers.send_checks import choose_queue
from shmq.model import names
from shmq.model import properties as property_names
from shmq.model.last_error import ERROR_BYTES_MAX, error_text
from shmq.model.message_id import offset_message_id
from shmq.model.properties import PROPERTIES_BYTES_MAX, decode_properties, encode_properties
from shmq.model.record import RecordFields, encode_record, parse_record
from shmq.model.subscription import tags_code_of
from shmq.model.topic_config import PERM_WRITE
from shmq.model.wait_for import AS_CONFIGURED
from shmq.net.connection import Connection
from shmq.net.log_rate import LogRate
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import ConsumerSendMsgBackHeader
from shmq.store.append_request import AppendOutcome, AppendRequest

FIRST_RETRY_LEVEL = 3
"""The delay level of the first retry: 10 s in the default table; each further one takes the next level."""

ROOM_FOR_ERROR = PROPERTIES_BYTES_MAX - 2 * ERROR_BYTES_MAX
"""A message with longer properties than this comes back without its error's text."""

_WAITING = (property_names.DELAY, property_names.REAL_TOPIC, property_names.REAL_QUEUE_ID)
"""What an earlier wait has left in the message."""


_drops = LogRate(log.get(__name__))


class MessageGone(ShmqError):
    """The message to be given back is not there: answered with SYSTEM_ERROR, as in RocketMQ."""


class BackReply:
    """The answer to a message given back, when the copy is stored as durably as the broker promises.

    RocketMQ does not wait for the disk here; but the consumer commits the original's offset then, and a power
    cut would take the copy.
    """

    wait = AS_CONFIGURED

    def __init__(self, connection: Connection, command: Command) -> None:
        """Remember whom to answer."""
        self._connection = connection
        self._command = command

    def settle(self, outcome: AppendOutcome, code: int) -> None:
        """Answer: the copy is stored, `code` says how durably."""
        del outcome
        if not self._command.is_oneway:
            self._connection.send(self._command.response(code))

    def refuse(self, error: ShmqError) -> None:
        """Answer: it is not stored, the consumer keeps the message."""
        if not self._command.is_oneway:
            self._connection.send(self._command.refusal(error))


def send_back(
    ctx: WorkerContext, connection: Connection, command: Command, header: ConsumerSendMsgBackHeader
) -> Command | None:
    """36: store the message once more, in the group's retry topic or among its dead letters."""
    group = ctx.view.groups.get(header.group)
    if group is None:
        names.check_group(header.group)
        raise Ask(NeedGroup(header.group))
    if not ctx.settings.broker_permission & PERM_WRITE:
        raise NoPermission(
            f"broker {ctx.settings.broker_name} has no write permission: the message stays with its consumer"
        )
    if group.config.retry_queue_nums <= 0:
        return _dropped(ctx, command, header)
    record = ctx.store.record_at(header.offset) if header.offset >= 0 else None
    if record is None:
        raise MessageGone(f"no message begins at commit log offset {header.offset} (any more)")
    fields = parse_record(record)
    limit = header.max_reconsume_times
    if limit is None or limit < 0:
        limit = group.config.retry_max_times
    is_dead = header.delay_level < 0 or fields.reconsume_times >= limit
    topic = names.dlq_topic(header.group) if is_dead else names.retry_topic(header.group)
    config = ctx.view.topics.get(topic)
    if config is None:
        raise Ask(NeedTopic(topic, create=True))
    if not config.writable:
        raise NoPermission(f"topic {topic} has no write permission (perm {config.perm})")
    queue = choose_queue(ctx, config, 0 if is_dead else random.randrange(max(1, config.write_queue_nums)))
    properties = _properties(record, fields, header.last_error or "")
    tags_code, delay_ms = tags_code_of(properties.get(property_names.TAGS)), 0
    level = 0
    if not is_dead:
        level = header.delay_level or FIRST_RETRY_LEVEL + fields.reconsume_times
        properties[property_names.DELAY] = str(level)
    stored = encode_properties(properties)
    if level:
        queue, stored, delay_ms = delayed(ctx, queue, stored, level)
    check_stored(stored)
    encoded = encode_record(
        topic=queue.topic.encode(),
        body=record[fields.body_at : fields.body_at + fields.body_length],
        properties=stored,
        queue_id=queue.queue_id,
        flag=fields.flag,
        sys_flag=fields.sys_flag,
        born_timestamp=fields.born_timestamp,
        born_host=fields.born_host,
        store_host=ctx.store_host,
        reconsume_times=fields.reconsume_times + 1,
    )
    ctx.appends.add(
        AppendRequest(queue, encoded, (len(encoded),), (tags_code,), delay_ms), BackReply(connection, command)
    )
    ctx.count("messages_dead" if is_dead else "messages_sent_back", 1)
    return None


def _dropped(ctx: WorkerContext, command: Command, header: ConsumerSendMsgBackHeader) -> Command:
    """The group wants no retries: the message is lost to it, as in RocketMQ; here somebody is told."""
    reason = f"group {header.group} keeps no failed messages (retryQueueNums 0)"
    ctx.count("messages_dropped", 1)
    _drops.event(
        logging.WARNING,
        "message_dropped",
        group=header.group,
        message=header.origin_msg_id,
        error=header.last_error,
        reason=reason,
    )
    return command.response(ResponseCode.SUCCESS, reason)


def _properties(record: memoryview, fields: RecordFields, last_error: str) -> dict[str, str]:
    """The copy's properties: where the message came from first, why it comes back, nothing of an earlier
    wait."""
    found = decode_properties(record[fields.properties_at : fields.end])
    for name in _WAITING:
        found.pop(name, None)
    topic = str(record[fields.topic_at : fields.topic_at + fields.topic_length], "utf-8", "replace")
    found.setdefault(property_names.RETRY_TOPIC, topic)
    own_id = offset_message_id(fields.store_host, fields.physical_offset)
    found.setdefault(property_names.ORIGIN_MESSAGE_ID, own_id)
    found.pop(property_names.SHMQ_LAST_ERROR, None)
    if last_error and fields.end - fields.properties_at < ROOM_FOR_ERROR:
        found[property_names.SHMQ_LAST_ERROR] = error_text(last_error)
    return found


ROUTES: dict[int, Route] = {
    RequestCode.CONSUMER_SEND_MSG_BACK: Route(ConsumerSendMsgBackHeader, send_back, Place.WORKER),
}
"""Served by the worker that has the consumer's connection."""
