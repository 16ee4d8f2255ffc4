"""The plain answer to a single send, read by position: what a local broker says nine hundred and ninety-nine
times.

Anything else (a refusal, a status other than SEND_OK, an id made by the broker, fields that are not there) is
None, and goes the ordinary way through the codec. Pure.
"""

from __future__ import annotations

from functools import partial

from shmq.client.links import BrokerLink
from shmq.client.send_result import SendResult, SendStatus, durability_of
from shmq.model.message_id import offset_message_id
from shmq.model.message_queue import MessageQueue
from shmq.protocol.send_answer import unpack_send_answer


def read_quick_answer(
    frame: bytes | bytearray | memoryview, opaque: int, link: BrokerLink, queue: MessageQueue, unique_key: str
) -> SendResult | None:
    """Return the result a plain answer to request `opaque` tells; None when it is not plain."""
    answer = unpack_send_answer(frame)
    if answer is None:
        return None
    answered, queue_id, queue_offset, physical_offset, flushed = answer
    if answered != opaque or queue_id != queue.queue_id:
        return None
    return SendResult(
        SendStatus.SEND_OK,
        unique_key,
        queue,
        queue_offset,
        partial(_offset_id, link, physical_offset),
        durability=durability_of(flushed),
    )


def _offset_id(link: BrokerLink, physical_offset: int) -> str:
    """Return the broker's id of a message; most senders never ask."""
    return offset_message_id(link.store_host, physical_offset)
