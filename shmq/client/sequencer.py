"""Sequencer: numbers the sends of an idempotent producer, so that a broker stores each once.

One id and one count per broker: a producer's sends to one broker rise one by one. All attempts of a send
carry the same number and stay with the broker of the first. When a broker refuses a number (it lost track of
this producer) the next send begins with a new id. A forked child gets a sequencer of its own.
"""

from __future__ import annotations

import threading

from shmq.model.sequence import new_producer_id, sequence_text


class Sequencer:
    """The numbers of one producer. Any thread."""

    def __init__(self) -> None:
        """Nothing is numbered yet."""
        self._lock = threading.Lock()
        self._next: dict[str, tuple[int, int]] = {}

    def next(self, broker_name: str) -> str:
        """Return the property value for the next send to a broker."""
        with self._lock:
            producer_id, number = self._next.get(broker_name) or (new_producer_id(), 0)
            self._next[broker_name] = producer_id, number + 1
        return sequence_text(producer_id, number)

    def renew(self, broker_name: str) -> None:
        """Begin again under a new id: the broker refused the old one's number."""
        with self._lock:
            self._next.pop(broker_name, None)
