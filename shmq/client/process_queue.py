"""ProcessQueue: the messages of one owned queue that were pulled and are not consumed yet.

Filled by the consumer's pull thread, emptied by its listener threads; `lock` guards all but the flags, which
are single stores. The commit offset that `remove` returns is the smallest offset still here, or one past the
largest ever seen: a slow head message holds it back, so after a crash nothing is skipped.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from shmq.base.clock import now_ms

PULL_EXPIRED_MS = 120_000
"""A queue without a pull for this long has lost its puller: dropped and taken anew by rebalance."""


class Queued(Protocol):
    """What a process queue needs of a message."""

    @property
    def queue_offset(self) -> int:
        """Index in the queue."""

    @property
    def store_size(self) -> int:
        """Bytes of the whole record."""


M = TypeVar("M", bound=Queued)


class ProcessQueue(Generic[M]):
    """Messages in hand of one queue, in offset order."""

    def __init__(self) -> None:
        """Start empty and owned."""
        self.lock = threading.Lock()
        self.dropped = False
        """Set once when the queue is given away: results of its messages no longer count."""
        self.message_bytes = 0
        self.max_offset_seen = -1
        self.last_pull_ms = now_ms()
        self.waits_until_ms = 0
        """A wait for this and other queues is under way; if it has not ended by then, it has failed."""
        self.last_consume_ms = 0
        """Wall time of the last consumption, for operators."""
        # An OrderedDict finds its first key at once; a dict would walk over the deleted ones.
        self._messages: OrderedDict[int, M] = OrderedDict()

    @property
    def message_count(self) -> int:
        """Messages in hand."""
        return len(self._messages)

    @property
    def span(self) -> int:
        """Distance from the first to the last offset in hand."""
        with self.lock:
            if not self._messages:
                return 0
            return next(reversed(self._messages)) - next(iter(self._messages))

    @property
    def pull_expired(self) -> bool:
        """Tell whether nobody has pulled for `PULL_EXPIRED_MS`, and no wait is under way."""
        now = now_ms()
        return now - self.last_pull_ms > PULL_EXPIRED_MS and now > self.waits_until_ms

    def put(self, messages: Sequence[M]) -> None:
        """Add messages in rising offset order; one that is already here is replaced."""
        with self.lock:
            held, added = self._messages, 0
            for message in messages:
                offset = message.queue_offset
                if offset not in held:
                    added += message.store_size
                held[offset] = message
            self.message_bytes += added
            if messages:
                self.max_offset_seen = max(self.max_offset_seen, messages[-1].queue_offset)

    def remove(self, messages: Iterable[M]) -> int:
        """Take out consumed messages and return the offset to commit; -1 when nothing was ever here."""
        with self.lock:
            self.last_consume_ms = now_ms()
            if self.max_offset_seen < 0:
                return -1
            pop, removed = self._messages.pop, 0
            for message in messages:
                if pop(message.queue_offset, None) is not None:
                    removed += message.store_size
            self.message_bytes -= removed
            return next(iter(self._messages)) if self._messages else self.max_offset_seen + 1

    def head(self, count: int) -> list[M]:
        """Return up to `count` messages with the smallest offsets, leaving them here."""
        with self.lock:
            return [message for message, _ in zip(self._messages.values(), range(count), strict=False)]

    def clear(self) -> None:
        """Forget everything in hand (offset reset)."""
        with self.lock:
            self._messages.clear()
            self.message_bytes = 0
