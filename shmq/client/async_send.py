"""AsyncSend: one message handed over by `send_async`: its future, its limits, and its place in a stored
batch.

One object per message, because an async producer makes hundreds of thousands a second. The result of a
batched message is made when somebody asks: a producer that never looks pays nothing for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from shmq.client.future import PENDING, SendFuture
from shmq.client.send_result import Durability, SendResult, SendStatus
from shmq.model.message import Message
from shmq.model.message_id import offset_message_id
from shmq.model.message_queue import MessageQueue


class StoredBatch:
    """What a broker said of a whole batch, stored at consecutive queue offsets."""

    __slots__ = (
        "_durability",
        "_first",
        "_first_queue_offset",
        "_host",
        "_ids",
        "_keys",
        "_queue",
        "_sizes",
        "_status",
    )

    def __init__(
        self,
        status: SendStatus,
        queue: MessageQueue,
        first_queue_offset: int,
        keys: Sequence[str],
        *,
        host: bytes = b"",
        first: int = 0,
        sizes: Sequence[int] = (),
        ids: Sequence[str] = (),
        durability: Durability | None = None,
    ) -> None:
        """Keep the answer; the broker's ids come ready (`ids`), or follow from the store host, the first
        physical offset and the records' sizes."""
        self._status = status
        self._queue = queue
        self._first_queue_offset = first_queue_offset
        self._keys = keys
        self._host = host
        self._first = first
        self._sizes = sizes
        self._ids = ids
        self._durability = durability

    def result(self, place: int) -> SendResult:
        """Return the result of the message at `place` of the batch."""
        return SendResult(
            self._status,
            self._keys[place],
            self._queue,
            self._first_queue_offset + place,
            self._ids[place] if self._ids else lambda: self._offset_id(place),
            durability=self._durability,
        )

    def _offset_id(self, place: int) -> str:
        return offset_message_id(self._host, self._first + sum(self._sizes[:place]))


class AsyncSend(SendFuture[SendResult]):
    """The future of one asynchronous send (of a message, or of a list as one batch)."""

    __slots__ = ("attempts", "deadline", "fixed", "message", "place", "size", "stored")

    def __init__(self, message: Message, deadline: float, attempts: int, fixed: bool, size: int) -> None:
        """`attempts` are those left after the next one, `fixed`: the caller named the queue, `size`: bytes
        counted while it is under way, `deadline`: monotonic seconds."""
        # All that `SendFuture.__init__` does, without a second call for each message.
        self._result = PENDING
        self._error = self._waiter = self._callbacks = None
        self.message = message
        self.deadline = deadline
        self.attempts = attempts
        self.fixed = fixed
        self.size = size
        self.stored: StoredBatch | None = None
        self.place = 0

    def _wait(self, timeout: float | None) -> None:
        """Wait; without a `timeout` as long as the send itself may take, answers that come late included."""
        if timeout is None:
            timeout = max(0.0, self.deadline - time.monotonic()) + LATE_S
        super()._wait(timeout)

    def result(self, timeout: float | None = None) -> SendResult:
        """Wait like any future; the result is made by the first who asks."""
        if self._result is not _LATER:
            found = super().result(timeout)
            if found is not _LATER:
                return found
        assert self.stored is not None
        found = self._result = self.stored.result(self.place)
        return found


def settle_stored(sends: Sequence[AsyncSend], batch: StoredBatch) -> None:
    """Settle the messages of a stored batch, in their order, each with its place. Called once, by the client.

    One pass, without a call for each: nearly always nobody waits yet and nobody wants to be called.
    """
    for place, send in enumerate(sends):
        send.place = place
        send.stored = batch
        send._result = _LATER
        if send._waiter is not None or send._callbacks:
            send._settle()


LATE_S = 15.0
"""A send that is not settled so long after its time belongs to a process that was forked away."""

_LATER: Any = object()
"""Stands for a result that is known and not made yet."""
