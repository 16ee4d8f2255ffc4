"""Heartbeats that say nothing new: answered by the worker, and only counted towards the coordinator.

A client says every 30 s who it is, what it produces, consumes and subscribes to, mostly what it said before.
The coordinator judged that; as long as no group and no topic has changed since, it would do nothing but note
the time. So the worker answers, and tells the coordinator every few seconds which connections have beaten.
Any change forgets everything: the next heartbeat of each client is judged anew (a deleted group comes back by
it, for instance). A client that waits for messages is silent because it was promised an answer: it counts as
living until it got that, as long as its connection is there. Worker's event loop only.
"""

from __future__ import annotations

from hashlib import blake2b

_DIGEST_BYTES = 16


class KnownBeats:
    """What each connection last said in a heartbeat that was accepted."""

    def __init__(self) -> None:
        """Know nothing."""
        self._digests: dict[int, bytes] = {}
        self._beaten: set[int] = set()
        self.waiting: set[int] = set()
        """Connections whose clients wait for messages."""
        self.generation = 0
        """Moved on by each change; what was asked before a change is not learned after it."""

    @staticmethod
    def digest(body: bytes | bytearray | memoryview) -> bytes:
        """Return what stands for a heartbeat's body."""
        return blake2b(body, digest_size=_DIGEST_BYTES).digest()

    def knows(self, connection_id: int, digest: bytes) -> bool:
        """Tell whether a heartbeat says nothing new; False when it has to be judged."""
        return self._digests.get(connection_id) == digest

    def lives(self, connection_id: int) -> None:
        """A client has shown that it lives: by a heartbeat, or by asking for messages."""
        self._beaten.add(connection_id)

    def waits(self, connection_id: int, waits: bool) -> None:
        """A client has begun to wait for messages, or has got its answer: that long it lives."""
        self._beaten.add(connection_id)
        if waits:
            self.waiting.add(connection_id)
        else:
            self.waiting.discard(connection_id)

    def all_waiting_live(self) -> bool:
        """Those that wait live; False when there are none."""
        self._beaten |= self.waiting
        return bool(self.waiting)

    def learn(self, connection_id: int, digest: bytes, generation: int) -> None:
        """A heartbeat was accepted; `generation` is from before it was asked."""
        if generation == self.generation:
            self._digests[connection_id] = digest

    def forget(self, connection_id: int) -> None:
        """A connection ended, or left a group."""
        self._digests.pop(connection_id, None)
        self._beaten.discard(connection_id)
        self.waiting.discard(connection_id)

    def forget_all(self) -> None:
        """Something has changed."""
        self._digests.clear()
        self.generation += 1

    def take_beaten(self) -> list[int]:
        """Return the connections whose clients have shown that they live since the last call."""
        beaten, self._beaten = sorted(self._beaten), set()
        return beaten

    def give_back(self, beaten: list[int]) -> None:
        """The coordinator was not there to be told."""
        self._beaten.update(beaten)
