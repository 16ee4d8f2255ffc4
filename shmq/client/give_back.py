"""GiveBack: hands messages that could not be consumed back to the broker, to be delivered again later.

Request 36 names the stored message: the broker makes the copy. When that fails (the message is gone from the
log, its broker is away) the client publishes the copy itself to the group's retry topic, at any broker that
takes it, with the same effect: the same delay, the same count of tries, the same dead letters. Rules: Apache
RocketMQ 5.3, DefaultMQPushConsumerImpl.java (sendMessageBack). Any thread.
"""

from __future__ import annotations

import logging

from shmq.base import log
from shmq.base.errors import ShmqError
from shmq.client.broker_calls import SEND_BACK_TIMEOUT_S, BrokerCalls
from shmq.client.pulled_message import PulledMessage
from shmq.client.routes import Routes
from shmq.client.send_commands import read_stored
from shmq.model import properties as names
from shmq.model.last_error import error_text
from shmq.model.message_queue import MessageQueue
from shmq.model.names import (
    AUTO_CREATE_TOPIC,
    CLIENT_INNER_PRODUCER_GROUP,
    retry_topic,
    with_namespace,
)
from shmq.model.properties import encode_properties
from shmq.model.sys_flag import COMPRESSED, COMPRESSION_MASK
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import SendMessageV2Header

DEFAULT_RECONSUME_TIMES = 16
FIRST_RETRY_LEVEL = 3
"""Delay level of the first retry; each further one takes the next."""
RETRY_QUEUES = 1

NOT_COPIED = frozenset(
    {
        *(names.MIN_OFFSET, names.MAX_OFFSET, names.CONSUME_START_TIME, names.DELAY),
        *(names.REAL_TOPIC, names.REAL_QUEUE_ID, names.TRANSACTION_PREPARED, names.SHMQ_LAST_ERROR),
    }
)
"""Properties of this delivery, not of the message."""

_LOG = log.get(__name__)


class GiveBack:
    """The way back to the brokers for one consumer's messages."""

    def __init__(
        self,
        group: str,
        max_reconsume_times: int,
        calls: BrokerCalls,
        routes: Routes,
        namespace: str | None = None,
    ) -> None:
        """`max_reconsume_times` -1 means RocketMQ's 16."""
        self._group = group
        self._namespace = namespace
        self._limit = DEFAULT_RECONSUME_TIMES if max_reconsume_times < 0 else max_reconsume_times
        self._calls = calls
        self._routes = routes

    def give(self, message: PulledMessage, delay_level: int, last_error: str) -> None:
        """Give a message back; ShmqError when no broker took it.

        `delay_level`: 0 the broker decides, > 0 that level, < 0 straight to the dead letters. `last_error` is
        kept with the message.
        """
        try:
            remark = self._calls.send_back(
                self._group,
                message,
                delay_level,
                self._limit,
                with_namespace(self._namespace, message.topic),
                last_error,
            )
        except ShmqError as error:
            log.event(_LOG, logging.WARNING, "send_back_refused", message=message.msg_id, reason=error)
            self._publish(message, delay_level, last_error, error)
            return
        if remark:
            log.event(_LOG, logging.WARNING, "message_dropped", message=message.msg_id, reason=remark)

    def try_to_give(self, message: PulledMessage, delay_level: int, last_error: str) -> bool:
        """Give a message back; False, with a log line, when no broker took it."""
        try:
            self.give(message, delay_level, last_error)
        except ShmqError as error:
            log.event(_LOG, logging.WARNING, "send_back_failed", message=message.msg_id, reason=error)
            return False
        return True

    def _publish(self, message: PulledMessage, delay_level: int, last_error: str, refusal: ShmqError) -> None:
        """Publish the copy to the retry topic; raises `refusal` when there is none or nobody takes it."""
        topic = retry_topic(self._group)
        try:
            queues = self._routes.publish_info(topic, AUTO_CREATE_TOPIC, RETRY_QUEUES).queues
        except ShmqError:
            raise refusal from None
        for queue in {queue.broker_name: queue for queue in queues}.values():
            command = self._copy(message, queue, delay_level, last_error)
            try:
                read_stored(self._routes.link(queue.broker_name).call(command, SEND_BACK_TIMEOUT_S))
            except ShmqError as error:
                log.event(_LOG, logging.WARNING, "retry_not_published", queue=queue, reason=error)
                continue
            return
        raise refusal

    def _copy(
        self, message: PulledMessage, queue: MessageQueue, delay_level: int, last_error: str
    ) -> Command:
        """Return request 310 for the copy; over the limit of tries the broker buries it."""
        tries = message.reconsume_times + 1
        properties = {name: text for name, text in message.properties.items() if name not in NOT_COPIED}
        properties.setdefault(names.RETRY_TOPIC, with_namespace(self._namespace, message.topic))
        properties.setdefault(names.ORIGIN_MESSAGE_ID, message.offset_msg_id)
        if last_error:
            properties[names.SHMQ_LAST_ERROR] = error_text(last_error)
        if delay_level < 0:
            tries = max(tries, self._limit + 1)
        else:
            properties[names.DELAY] = str(delay_level or FIRST_RETRY_LEVEL + message.reconsume_times)
        header = SendMessageV2Header(
            CLIENT_INNER_PRODUCER_GROUP,
            queue.topic,
            AUTO_CREATE_TOPIC,
            RETRY_QUEUES,
            queue.queue_id,
            message.sys_flag & (COMPRESSED | COMPRESSION_MASK),
            message.born_timestamp,
            message.flag,
            encode_properties(properties).decode(),
            reconsume_times=tries,
            max_reconsume_times=self._limit,
        )
        return Command.request(RequestCode.SEND_MESSAGE_V2, header, bytes(message.stored_body))
