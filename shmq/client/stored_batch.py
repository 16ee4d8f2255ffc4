"""StoredBatch: what a broker said of a whole batch, from which each message's own result is made when asked
for.

An async producer that never looks at its results (or only at errors) pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from shmq.client.future import SendFuture
from shmq.client.send_result import SendResult, SendStatus
from shmq.model.message_id import offset_message_id
from shmq.model.message_queue import MessageQueue


class StoredBatch:
    """A batch stored at consecutive queue offsets."""

    __slots__ = ("_first", "_first_queue_offset", "_host", "_ids", "_keys", "_queue", "_sizes", "_status")

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

    def result(self, place: int) -> SendResult:
        """Return the result of the message at `place` of the batch."""
        return SendResult(
            self._status,
            self._keys[place],
            self._queue,
            self._first_queue_offset + place,
            self._ids[place] if self._ids else lambda: self._offset_id(place),
        )

    def _offset_id(self, place: int) -> str:
        return offset_message_id(self._host, self._first + sum(self._sizes[:place]))


class BatchedFuture(SendFuture[SendResult]):
    """The future of a message that travels in a batch."""

    __slots__ = ("_batch", "_place")

    def __init__(self) -> None:
        """Start pending."""
        super().__init__()
        self._batch: StoredBatch | None = None
        self._place = 0

    def set_stored(self, batch: StoredBatch, place: int) -> None:
        """Settle with the message's place in a stored batch. Called once, by the client."""
        self._place = place
        self._batch = batch
        self.set_result(None)  # type: ignore[arg-type]  # `result` makes it

    def result(self, timeout: float | None = None) -> SendResult:
        """Wait like any future; the result is made by the first who asks."""
        found = super().result(timeout)
        if found is None:
            assert self._batch is not None
            found = self._result = self._batch.result(self._place)
        return found
