"""PulledMessage: a received message as consumers see it: a view of its record plus where it was pulled.

Made by the thousand, so it is lazy to the last: only record, broker and bounds are stored at once. Every
other part of the object comes into being when it is first looked at (`__getattr__` runs for empty slots
only); the body, which nearly everybody looks at, without taking the record apart.
"""

from __future__ import annotations

import struct
from typing import Any

from shmq.model import properties as names
from shmq.model.message_ext import MessageExt
from shmq.model.record import QUEUE_OFFSET_AT, Buffer, parse_record, plain_body

_I64 = struct.Struct(">q")

_UNSET: dict[str, Any] = {
    "_consume_start_ms": 0,
    "_local_retries": 0,
    "_properties": None,
    "_topic": None,
}
"""What an empty slot holds when it is first looked at; `_fields` is parsed then."""


class PulledMessage(MessageExt):
    """A `MessageExt` whose properties also name the queue's bounds at the pull (MIN_OFFSET, MAX_OFFSET).

    `reconsume_times` counts on when the consumer tries a message again without the broker's help.
    """

    __slots__ = ("_bounds", "_consume_start_ms", "_local_retries")

    _consume_start_ms: int
    _local_retries: int

    def __init__(self, record: Buffer, broker_name: str, bounds: tuple[int, int]) -> None:
        """Look at exactly one record of a queue that holds `bounds` = (min, max) offsets."""
        self._record = record
        self.broker_name = broker_name
        self._bounds = bounds
        self._body = None

    def __getattr__(self, name: str) -> Any:
        """Fill an empty slot; MessageIllegal when the record does not hold together."""
        if name == "_fields":
            value: Any = parse_record(self._record)
        elif name in _UNSET:
            value = _UNSET[name]
        else:
            raise AttributeError(f"a message has no attribute {name!r}")
        setattr(self, name, value)
        return value

    @property
    def body(self) -> bytes:
        """The body as the producer gave it, decompressed; copied out of the record on first use."""
        if self._body is None:
            plain = plain_body(self._record)
            if plain is None:
                return super().body
            self._body = bytes(plain)
        return self._body

    @property
    def queue_offset(self) -> int:
        """Index in its queue; at a fixed place of every record."""
        offset: int = _I64.unpack_from(self._record, QUEUE_OFFSET_AT)[0]
        return offset

    @property
    def store_size(self) -> int:
        """Bytes of the whole record."""
        return len(self._record)

    @property
    def properties(self) -> dict[str, str]:
        """All properties, with the bounds; the same dictionary each time."""
        held = self._properties
        if held is None:
            held = super().properties
            held[names.MIN_OFFSET] = str(self._bounds[0])
            held[names.MAX_OFFSET] = str(self._bounds[1])
            if self._consume_start_ms:
                held[names.CONSUME_START_TIME] = str(self._consume_start_ms)
        return held

    @property
    def consume_start_ms(self) -> int:
        """When a listener was last called with it (ms), 0 for not yet; also property CONSUME_START_TIME."""
        return self._consume_start_ms

    def start_consuming(self, now_ms: int) -> None:
        """Note that a listener is called with it now. Properties nobody has read yet stay undecoded."""
        self._consume_start_ms = now_ms
        if self._properties is not None:
            self._properties[names.CONSUME_START_TIME] = str(now_ms)

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
