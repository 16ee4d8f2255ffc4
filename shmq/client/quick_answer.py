"""The plain answer to a single send, read by position: what a local broker says nine hundred and ninety-nine
times.

Anything else (a refusal, a status other than SEND_OK, an id made by the broker, fields that are not there) is
None, and goes the ordinary way through the codec. The positions come from the typed header's own table. Pure.
"""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from typing import Any

import cbor2

from shmq.client.links import BrokerLink
from shmq.client.send_result import SendResult, SendStatus, durability_of
from shmq.model.message_id import offset_message_id
from shmq.model.message_queue import MessageQueue
from shmq.protocol.command import RESPONSE_FLAG, Serialization
from shmq.protocol.frame import HEADER_LENGTH_MASK, LENGTHS, LENGTHS_BYTES, SERIALIZATION_SHIFT
from shmq.protocol.header_table import table_of
from shmq.protocol.headers.send import SendMessageResponseHeader

_PLACE = {row.name: place for place, row in enumerate(table_of(SendMessageResponseHeader), 1)}
_QUEUE_ID, _QUEUE_OFFSET = _PLACE["queue_id"], _PLACE["queue_offset"]
_PHYSICAL_OFFSET, _FLUSHED = _PLACE["physical_offset"], _PLACE["flushed"]
_unusual = itemgetter(
    *(
        _PLACE[name]
        for name in ("msg_id", "transaction_id", "batch_uniq_id", "recall_handle", "msg_region", "trace_on")
    )
)
_NOTHING_UNUSUAL = ("", None, None, None, None, None)
_FIELDS = 1 + len(_PLACE)
_CBOR = int(Serialization.CBOR)


def read_quick_answer(
    frame: bytes | bytearray | memoryview, opaque: int, link: BrokerLink, queue: MessageQueue, unique_key: str
) -> SendResult | None:
    """Return the result a plain answer to request `opaque` tells; None when it is not plain."""
    length, word = LENGTHS.unpack_from(frame)
    if word >> SERIALIZATION_SHIFT != _CBOR or length - 4 != word & HEADER_LENGTH_MASK:
        return None
    try:
        _, code, flag, answered, remark, fields, ext = cbor2.loads(frame[LENGTHS_BYTES:])
    except Exception:  # no CBOR, or another shape: cbor2 has errors of many kinds, the codec finds the words
        return None
    if code or answered != opaque or not flag & RESPONSE_FLAG or remark or ext or not _plain(fields):
        return None
    if fields[_QUEUE_ID] != queue.queue_id:
        return None
    return SendResult(
        SendStatus.SEND_OK,
        unique_key,
        queue,
        fields[_QUEUE_OFFSET],
        partial(_offset_id, link, fields[_PHYSICAL_OFFSET]),
        durability=durability_of(fields[_FLUSHED]),
    )


def _plain(fields: Any) -> bool:
    """Tell whether an answer's fields are what `read_quick_answer` can say."""
    return (
        type(fields) is list
        and len(fields) == _FIELDS
        and type(fields[_QUEUE_OFFSET]) is int
        and type(fields[_PHYSICAL_OFFSET]) is int
        and fields[_FLUSHED] in (None, True, False)
        and _unusual(fields) == _NOTHING_UNUSUAL
    )


def _offset_id(link: BrokerLink, physical_offset: int) -> str:
    """Return the broker's id of a message; most senders never ask."""
    return offset_message_id(link.store_host, physical_offset)
