"""Job and Outcome: what the bench asks of a client process, and what it answers; JSON, one line each.

The Java client reads and writes the same lines (java/BenchClient.java): change both together.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from histogram import Histogram


@dataclass(frozen=True, slots=True)
class Job:
    """One stretch of load on one topic.

    work        name of a loop: send, stream, batch, paced, receive, consume, pull
    address     where the server is, as the driver wants it
    options     what this system's driver does differently, such as {"direct": true}
    seconds     how long; loops that end by themselves take it as their limit
    count       messages after which batch, receive and consume end; 0: by the clock
    threads     senders in this process, each with a connection of its own
    in_flight   unanswered messages (stream) or batches (batch) of one sender
    rate        messages a second of the paced loop, all threads together
    """

    work: str
    topic: str
    address: dict[str, str]
    options: dict[str, Any]
    seconds: float
    body_bytes: int = 256
    queues: int = 1
    threads: int = 1
    batch: int = 1_000
    in_flight: int = 2
    rate: float = 0.0
    count: int = 0

    def line(self) -> str:
        """The job as it is written to a client."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, line: str) -> Job:
        """Read it back."""
        return cls(**json.loads(line))


@dataclass(slots=True)
class Outcome:
    """What a stretch of load came to; `latency` in nanoseconds, one value per operation that was waited
    for."""

    messages: int = 0
    body_bytes: int = 0
    seconds: float = 0.0
    latency: Histogram = field(default_factory=Histogram)

    def line(self) -> str:
        """The outcome as a client writes it."""
        return json.dumps(
            {
                "messages": self.messages,
                "body_bytes": self.body_bytes,
                "seconds": self.seconds,
                "latency": self.latency.counts,
            }
        )

    @classmethod
    def parse(cls, line: str) -> Outcome:
        """Read it back; a client that failed wrote {"error": text} instead."""
        facts = json.loads(line)
        if "error" in facts:
            raise LoadFailed(facts["error"])
        counts = {int(bucket): count for bucket, count in facts["latency"].items()}
        return cls(facts["messages"], facts["body_bytes"], facts["seconds"], Histogram(counts))

    def add(self, other: Outcome) -> None:
        """Join the outcome of a client that ran at the same time."""
        self.messages += other.messages
        self.body_bytes += other.body_bytes
        self.seconds = max(self.seconds, other.seconds)
        self.latency.merge(other.latency.counts)


class LoadFailed(Exception):
    """A client process could not do its job; the text is its own."""
