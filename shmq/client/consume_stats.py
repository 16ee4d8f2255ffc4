"""ConsumeStats: what one consumer pulled and consumed of each topic, for operators (statusTable of 307).

Counted in buckets of ten seconds; rates are those of the last minute, `consumeFailedMsgs` is the last hour's
sum (Apache RocketMQ 5.3, ConsumerStatsManager.java, ConsumeStatus.java). Any thread; `_lock` guards the
table.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

BUCKET_S = 10
MINUTE_BUCKETS = 6
HOUR_BUCKETS = 360


@dataclass(slots=True)
class _Bucket:
    """What happened in ten seconds: counts, and sums of milliseconds."""

    number: int
    consumed: int = 0
    failed: int = 0
    consume_calls: int = 0
    consume_ms: float = 0.0
    pulled: int = 0
    pulls: int = 0
    pull_ms: float = 0.0


@dataclass(slots=True)
class _Topic:
    buckets: deque[_Bucket] = field(default_factory=lambda: deque(maxlen=HOUR_BUCKETS))

    def now(self, number: int) -> _Bucket:
        """The bucket of this moment."""
        if not self.buckets or self.buckets[-1].number != number:
            self.buckets.append(_Bucket(number))
        return self.buckets[-1]


class ConsumeStats:
    """The figures of one consumer."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self._topics: dict[str, _Topic] = {}
        self._now: dict[str, _Bucket] = {}
        """The newest bucket of each topic."""

    def consumed(self, topic: str, messages: int, success: bool, took_ms: float, ended_s: float) -> None:
        """A listener's call ended, at `ended_s` of the monotonic clock. Once per message, mostly: cheap."""
        number = int(ended_s) // BUCKET_S
        with self._lock:
            bucket = self._now.get(topic)
            if bucket is None or bucket.number != number:
                bucket = self._bucket(topic, number)
            if success:
                bucket.consumed += messages
            else:
                bucket.failed += messages
            bucket.consume_calls += 1
            bucket.consume_ms += took_ms

    def pulled(self, topic: str, messages: int, took_ms: float) -> None:
        """A pull brought messages."""
        with self._lock:
            bucket = self._bucket(topic, int(time.monotonic()) // BUCKET_S)
            bucket.pulled += messages
            bucket.pulls += 1
            bucket.pull_ms += took_ms

    def _bucket(self, topic: str, number: int) -> _Bucket:
        """The bucket of that number, under the lock."""
        held = self._topics.get(topic)
        if held is None:
            held = self._topics[topic] = _Topic()
        bucket = self._now[topic] = held.now(number)
        return bucket

    def status_table(self) -> dict[str, dict[str, float]]:
        """Return RocketMQ's ConsumeStatus of each topic, as JSON objects."""
        number = int(time.monotonic()) // BUCKET_S
        with self._lock:
            return {topic: _status(list(held.buckets), number) for topic, held in self._topics.items()}


def _status(buckets: list[_Bucket], number: int) -> dict[str, float]:
    minute = [bucket for bucket in buckets if bucket.number > number - MINUTE_BUCKETS]
    hour = [bucket for bucket in buckets if bucket.number > number - HOUR_BUCKETS]
    seconds = MINUTE_BUCKETS * BUCKET_S
    return {
        "consumeFailedMsgs": sum(bucket.failed for bucket in hour),
        "consumeFailedTPS": sum(bucket.failed for bucket in minute) / seconds,
        "consumeOKTPS": sum(bucket.consumed for bucket in minute) / seconds,
        "consumeRT": _mean(sum(b.consume_ms for b in minute), sum(b.consume_calls for b in minute)),
        "pullRT": _mean(sum(b.pull_ms for b in minute), sum(b.pulls for b in minute)),
        "pullTPS": sum(bucket.pulled for bucket in minute) / seconds,
    }


def _mean(total: float, count: int) -> float:
    return total / count if count else 0.0
