"""Requests about waiting messages: take back (370), put off (30011). Called in the producer's thread."""

from __future__ import annotations

from datetime import UTC, datetime

from shmq.base.errors import MessageIllegal
from shmq.client.links import BrokerLink
from shmq.model.message_queue import MessageQueue
from shmq.model.timer import RecallHandle
from shmq.protocol.codes import RequestCode, error_of
from shmq.protocol.command import Command
from shmq.protocol.headers.send import RecallMessageHeader, RecallMessageResponseHeader
from shmq.protocol.headers.timer import RescheduleTimerHeader, RescheduleTimerResponseHeader


def epoch_ms(moment: datetime) -> int:
    """Return a moment as ms since the Unix epoch, rounded up; one without time zone is local time."""
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return -(-(since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds) // 1000)


def recall(link: BrokerLink, group: str, topic: str, handle: str, timeout_s: float) -> str:
    """Take a waiting message back; returns its unique key. IllegalOperation when it was delivered."""
    header = RecallMessageHeader(topic, handle, group)
    response = link.call(Command.request(RequestCode.RECALL_MESSAGE, header), timeout_s)
    if response.code:
        raise error_of(response.code, response.remark)
    return response.read_header(RecallMessageResponseHeader).msg_id


def reschedule(link: BrokerLink, topic: str, handle: str, deliver_at: datetime, timeout_s: float) -> str:
    """Put a waiting message off; returns its new handle, "" when it was delivered at once."""
    header = RescheduleTimerHeader(topic, handle, epoch_ms(deliver_at))
    response = link.call(Command.request(RequestCode.RESCHEDULE_TIMER, header), timeout_s)
    if response.code:
        raise error_of(response.code, response.remark)
    return response.read_header(RescheduleTimerResponseHeader).recall_handle


def queue_of(topic: str, handle: str) -> MessageQueue:
    """Return a queue of the broker that has a waiting message. IllegalOperation for what is no handle."""
    if not handle:
        raise MessageIllegal("no recall handle: the message did not wait, or its broker cannot take it back")
    return MessageQueue(topic, RecallHandle.decode(handle).broker_name, 0)
