"""PulledMessage: a received message as consumers see it: a view of its record plus where it was pulled."""

from __future__ import annotations

from shmq.model import properties as names
from shmq.model.message_ext import MessageExt
from shmq.model.record import Buffer


class PulledMessage(MessageExt):
    """A `MessageExt` whose properties also name the queue's bounds at the pull (MIN_OFFSET, MAX_OFFSET).

    `reconsume_times` counts on when the consumer tries a message again without the broker's help.
    """

    __slots__ = ("_bounds", "_consume_start_ms", "_local_retries")

    def __init__(self, record: Buffer, broker_name: str, bounds: tuple[int, int]) -> None:
        """Look at one record of a queue that holds `bounds` = (min, max) offsets."""
        super().__init__(record, broker_name)
        self._bounds = bounds
        self._consume_start_ms = 0
        self._local_retries = 0

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
