"""Which producers were asked about transactions and have not answered yet. Pure; lives in the coordinator.

A client holds 2,000 checks (RocketMQ's `checkRequestHoldMax`) and drops more; each that is dropped would
count, and a transaction be given up that nobody was really asked about.
"""

from __future__ import annotations

from collections import Counter

from shmq.broker.client_key import ClientKey

ASKED_MAX = 1000
"""Checks one producer may have before it: those of a round before may still wait there."""


class OutstandingChecks:
    """The checks of one round, by the queue offset of the copy that is asked about."""

    def __init__(self) -> None:
        """Nobody was asked."""
        self._asked: dict[int, ClientKey] = {}
        self._counts: Counter[ClientKey] = Counter()

    def has_room(self, producer: ClientKey) -> bool:
        """Whether a producer may be asked more."""
        return self._counts[producer] < ASKED_MAX

    def sent(self, queue_offset: int, producer: ClientKey) -> None:
        """A producer was asked."""
        self._asked[queue_offset] = producer
        self._counts[producer] += 1

    def answered(self, queue_offset: int) -> None:
        """An answer came, whatever it says."""
        producer = self._asked.pop(queue_offset, None)
        if producer is not None:
            self._counts[producer] -= 1

    def forget(self) -> None:
        """A new round: what was not answered is asked again."""
        self._asked.clear()
        self._counts.clear()
