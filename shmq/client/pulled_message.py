"""PulledMessage: a received message as consumers see it: a view of its record plus where it was pulled.

Made by the thousand, by `cut_messages` alone. What a consumer asks of every message (body, offset, size) is
stored at once, in slots that are read without a call; every other part comes into being when it is first
looked at (`__getattr__` runs for empty slots only).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from shmq.base.errors import MessageIllegal
from shmq.model import properties as names
from shmq.model.compression import decompress
from shmq.model.message_ext import MessageExt
from shmq.model.properties import PROPERTIES_BYTES_MAX
from shmq.model.record import (
    BODY_AT,
    MAGIC_V1,
    RECORD_OVERHEAD_V1,
    TOPIC_LENGTH_V1_MAX,
    Buffer,
    parse_record,
    record_size,
)
from shmq.model.sys_flag import BORN_HOST_V6, COMPRESSED, STORE_HOST_V6

COPIED_BYTES = 4096
"""Answers with records up to this size are copied, to cut bodies out of bytes: a slice of bytes costs half of
one of a view. Bodies of larger ones are copied one by one, when they are looked at."""

NOT_PLAIN = BORN_HOST_V6 | STORE_HOST_V6 | COMPRESSED
"""sysFlag bits of records whose body is elsewhere, or not as the producer gave it."""

_PARTS = struct.Struct(">ii12xq8xi44xi")
"""Total size, magic, queue offset, sysFlag, body length."""
assert _PARTS.size == BODY_AT
assert TOPIC_LENGTH_V1_MAX == PROPERTIES_BYTES_MAX >> 8 == 0x7F


class Pull(NamedTuple):
    """What the messages of one pull share. `bounds` are the queue's (min, max) offsets at the pull."""

    records: Buffer
    """All of them, back to back."""
    broker_name: str
    bounds: tuple[int, int]


class PulledMessage(MessageExt):
    """A `MessageExt` whose properties also name the queue's bounds at the pull (MIN_OFFSET, MAX_OFFSET).

    `reconsume_times` counts on when the consumer tries a message again without the broker's help.
    """

    __slots__ = (
        "_consume_start_ms",
        "_local_retries",
        "_pull",
        "_start",
        "body",
        "queue_offset",
        "store_size",
    )

    _pull: Pull
    _start: int
    """Where its record begins among those of the pull."""
    _consume_start_ms: int
    _local_retries: int
    body: bytes
    """The body as the producer gave it, decompressed."""
    queue_offset: int
    """Index in its queue."""
    store_size: int
    """Bytes of the whole record."""

    def __getattr__(self, name: str) -> Any:
        """Fill an empty slot; MessageIllegal when the record does not hold together."""
        fill = _FILLED.get(name)
        if fill is None:
            raise AttributeError(f"a message has no attribute {name!r}")
        value = fill(self)
        setattr(self, name, value)
        return value

    @property
    def properties(self) -> dict[str, str]:
        """All properties, with the bounds; the same dictionary each time."""
        held = self._properties
        if held is None:
            held = super().properties
            held[names.MIN_OFFSET] = str(self._pull.bounds[0])
            held[names.MAX_OFFSET] = str(self._pull.bounds[1])
            if self._consume_start_ms:
                held[names.CONSUME_START_TIME] = str(self._consume_start_ms)
        return held

    @property
    def consume_start_ms(self) -> int:
        """When a listener was last called with it (ms), 0 for not yet; also property CONSUME_START_TIME."""
        return self._consume_start_ms

    @property
    def reconsume_times(self) -> int:
        """How often its consumption was tried before, here or through the broker."""
        return self._fields.reconsume_times + self._local_retries

    def count_local_retry(self) -> None:
        """Note that it will be consumed again from this process' memory."""
        self._local_retries += 1

    def restore_topic(self) -> None:
        """Give a message of a retry topic the topic it was first sent to."""
        original = self.properties.get(names.RETRY_TOPIC)
        if original:
            self.topic = original


def _body(message: PulledMessage) -> bytes:
    stored = message.stored_body
    return decompress(stored, message.sys_flag) if message.sys_flag & COMPRESSED else bytes(stored)


def _record(message: PulledMessage) -> memoryview:
    return memoryview(message._pull.records)[message._start : message._start + message.store_size]


_FILLED: dict[str, Callable[[PulledMessage], Any]] = {
    "_consume_start_ms": lambda message: 0,
    "_fields": lambda message: parse_record(message._record),
    "_local_retries": lambda message: 0,
    "_record": _record,
    "_topic": lambda message: None,
    "body": _body,
    "broker_name": lambda message: message._pull.broker_name,
}
"""What an empty slot gets when it is first looked at."""


def cut_messages(records: Buffer, broker_name: str, bounds: tuple[int, int]) -> list[PulledMessage]:
    """Return the messages of concatenated records; ``MessageIllegal`` at the first whose size does not fit.

    A record that does not hold together otherwise says so when it is looked at. One loop without calls: it
    runs for each message that is received.
    """
    copied = len(records) >= 4 and record_size(records) <= COPIED_BYTES
    source: Any = bytes(records) if copied else records
    pull = Pull(source, broker_name, bounds)
    new, unpack, magic_v1, not_plain = PulledMessage.__new__, _PARTS.unpack_from, MAGIC_V1, NOT_PLAIN
    messages: list[PulledMessage] = []
    add = messages.append
    start, end = 0, len(records)
    while start < end:
        if end - start < RECORD_OVERHEAD_V1:
            raise MessageIllegal(f"{end - start} bytes left: too few for a record")
        size, magic, queue_offset, sys_flag, body_length = unpack(source, start)
        next_start = start + size
        if size < RECORD_OVERHEAD_V1 or next_start > end:
            raise MessageIllegal(f"record size {size} does not fit the {end - start} bytes left")
        message = new(PulledMessage)
        message._pull = pull
        message._start = start
        message._properties = None
        message.queue_offset = queue_offset
        message.store_size = size
        if (
            copied
            and magic == magic_v1
            and not sys_flag & not_plain
            and 0 <= body_length <= size - RECORD_OVERHEAD_V1
        ):
            body_end = start + BODY_AT + body_length
            properties_at = body_end + 3 + source[body_end]
            # Both lengths are below 0x80, the second one's high byte; they end the record exactly.
            if (
                properties_at <= next_start
                and (source[body_end] | source[properties_at - 2]) < 0x80
                and properties_at + (source[properties_at - 2] << 8 | source[properties_at - 1]) == next_start
            ):
                message.body = source[start + BODY_AT : body_end]
        add(message)
        start = next_start
    return messages


def make_messages(
    pull: Pull, starts: list[int], sizes: list[int], queue_offsets: list[int], bodies: list[bytes]
) -> list[PulledMessage]:
    """Return the messages of records whose parts were found, and found to hold together, by arrays."""
    new, messages = PulledMessage.__new__, []
    for start, size, queue_offset, body in zip(starts, sizes, queue_offsets, bodies, strict=True):
        message = new(PulledMessage)
        message._pull = pull
        message._start = start
        message._properties = None
        message.queue_offset = queue_offset
        message.store_size = size
        message.body = body
        messages.append(message)
    return messages


def start_consuming(messages: Iterable[PulledMessage], now_ms: int) -> None:
    """Note that a listener is called with them now. Properties nobody has read yet stay undecoded."""
    for message in messages:
        message._consume_start_ms = now_ms
        if message._properties is not None:
            message._properties[names.CONSUME_START_TIME] = str(now_ms)
