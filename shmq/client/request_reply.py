"""Request and reply over topics: `Producer.request` on one side, `create_reply_message` on the other.

A request is an ordinary message with three properties (CORRELATION_ID, REPLY_TO_CLIENT, TTL). Whoever
consumes it answers with a reply message, which the broker pushes (326) to the connection of the client that
asked. Facts: Apache RocketMQ 5.3, DefaultMQProducerImpl.java, MessageUtil.java.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable

from shmq.base import log
from shmq.base.clock import now_ms
from shmq.client.channel import view_of
from shmq.client.errors import CREATE_REPLY_MESSAGE, REQUEST_TIMEOUT, ClientError
from shmq.client.future import SendFuture
from shmq.client.outgoing import REPLY
from shmq.model import properties as names
from shmq.model.host import pack_host
from shmq.model.message import Message
from shmq.model.message_ext import MessageExt
from shmq.model.names import reply_topic
from shmq.model.record import encode_record
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import PushReplyMessageHeader

_LOG = log.get(__name__)


class RequestTimeout(ClientError, TimeoutError):
    """No reply came in time; the request may have been consumed."""

    def __init__(self, text: str) -> None:
        """Code 10006, as RocketMQ's RequestTimeoutException."""
        super().__init__(REQUEST_TIMEOUT, text)


class PendingReplies:
    """The requests of one client instance that wait for a reply. Any thread."""

    def __init__(self, expected: Callable[[], object] = lambda: None) -> None:
        """Wait for none; `expected` is called when there is another one, so that `expire` is."""
        self._expected = expected
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[SendFuture[MessageExt], float, str]] = {}

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._waiting)

    def expect(self, message: Message, client_id: str, timeout_ms: int) -> SendFuture[MessageExt]:
        """Make a message a request; the future gets its reply, or RequestTimeout from `expire`."""
        correlation = uuid.uuid4().hex
        message.properties[names.CORRELATION_ID] = correlation
        message.properties[names.REPLY_TO_CLIENT] = client_id
        message.properties[names.TTL] = str(timeout_ms)
        future: SendFuture[MessageExt] = SendFuture()
        with self._lock:
            self._waiting[correlation] = (future, time.monotonic() + timeout_ms / 1000, message.topic)
        self._expected()
        return future

    def give_up(self, message: Message, error: BaseException) -> None:
        """Fail a request, unless its reply is there already."""
        with self._lock:
            waiting = self._waiting.pop(message.properties[names.CORRELATION_ID], None)
        if waiting is not None:
            waiting[0].set_exception(error)

    def expire(self) -> None:
        """Fail the requests whose time is over; a duty of the instance."""
        now = time.monotonic()
        with self._lock:
            late = [key for key, (_, deadline, _) in self._waiting.items() if deadline <= now]
            expired = [self._waiting.pop(key) for key in late]
        for future, _, topic in expired:
            future.set_exception(no_reply(topic))

    def arrived(self, command: Command) -> Command:
        """Take a pushed reply (326) and return the answer to the broker. Runs on a reader thread.

        A reply nobody waits for any more is logged and dropped, and the broker is told that it arrived.
        """
        header = command.read_header(PushReplyMessageHeader)
        message = _message_of(header, bytes(view_of(command)))
        correlation = message.properties.get(names.CORRELATION_ID, "")
        with self._lock:
            waiting = self._waiting.pop(correlation, None)
        if waiting is None:
            log.event(_LOG, logging.WARNING, "reply_without_request", correlation=correlation)
        else:
            waiting[0].set_result(message)
        return command.response(ResponseCode.SUCCESS)


def no_reply(topic: str) -> RequestTimeout:
    """Return the error of a request whose time is over."""
    return RequestTimeout(
        f"no reply to the request in time: does a consumer of topic {topic!r} answer, and quickly enough?"
    )


def _message_of(header: PushReplyMessageHeader, body: bytes) -> MessageExt:
    """Return the pushed reply as a received message; it was never stored, so its offsets are 0."""
    stored = (header.properties or "") + f"{names.ARRIVE_TIME}\x01{now_ms()}\x02"
    return MessageExt(
        encode_record(
            topic=header.topic.encode(),
            body=body,
            properties=stored.encode(),
            queue_id=header.queue_id,
            flag=header.flag,
            sys_flag=header.sys_flag,
            born_timestamp=header.born_timestamp,
            born_host=_host(header.born_host),
            store_host=_host(header.store_host),
            reconsume_times=header.reconsume_times,
        )
    )


def _host(text: str) -> bytes:
    """Return `ip:port` as records hold it; a peer on a Unix socket has no address."""
    address, _, port = text.rpartition(":")
    try:
        return pack_host(address.strip("[]").lstrip("/"), int(port))
    except (ValueError, OSError):
        return pack_host("127.0.0.1", 0)


def create_reply_message(request: MessageExt, body: bytes) -> Message:
    """Return the reply to a consumed request, to be sent with any producer's `send`.

    ClientError 10007 when the message is no request (it names no cluster, or nobody to answer to).
    """
    cluster = request.properties.get(names.CLUSTER)
    wanted = {name: request.properties.get(name) for name in (names.CORRELATION_ID, names.REPLY_TO_CLIENT)}
    missing = [name for name, value in {names.CLUSTER: cluster, **wanted}.items() if not value]
    if missing:
        raise ClientError(
            CREATE_REPLY_MESSAGE,
            f"message {request.msg_id} is no request: its property {missing[0]} is missing",
        )
    reply = Message(reply_topic(str(cluster)), body)
    reply.properties[names.MSG_TYPE] = REPLY
    reply.properties.update({name: str(value) for name, value in wanted.items()})
    reply.properties[names.TTL] = request.properties.get(names.TTL, "3000")
    return reply
