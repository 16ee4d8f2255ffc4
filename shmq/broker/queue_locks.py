"""Who may consume a queue in order: RocketMQ's broker-side locks (requests 41 and 42).

A lock belongs to (group, queue) and names one client id; it ends 60 s after its last renewal, on unlock, or
when its group is deleted (Apache RocketMQ 5.3, RebalanceLockManager.java); here also when its client's
process has surely ended. Who was refused is told when the queue is free, instead of asking again and again.
All times are monotonic: a clock that is set gives nobody's queue away. Lives in the coordinator's loop, no
locks of its own. After a coordinator's death it is filled again from the notes that workers kept (`held`,
`restore`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shmq.model.message_queue import MessageQueue

LOCK_LIFE_MS = 60_000
"""A lock that was not renewed for so long is free."""


@dataclass(slots=True)
class _Lock:
    client_id: str
    renewed_ms: int

    def is_expired(self, now_ms: int) -> bool:
        return now_ms - self.renewed_ms > LOCK_LIFE_MS


class QueueLocks:
    """All queue locks of this broker."""

    def __init__(self) -> None:
        """Start with every queue free."""
        self._locks: dict[str, dict[MessageQueue, _Lock]] = {}
        self._refused: dict[str, set[MessageQueue]] = {}
        """Queues that somebody asked for while another held them."""
        self._withheld_until_ms = 0

    def withhold(self, until_ms: int) -> None:
        """Grant no lock anew before that moment (renewals go on): a worker did not tell which it knows of."""
        self._withheld_until_ms = until_ms

    def lock(
        self, group: str, client_id: str, queues: Iterable[MessageQueue], now_ms: int
    ) -> list[MessageQueue]:
        """Take or renew locks; returns the queues that now belong to the client, in the order asked."""
        of_group = self._locks.setdefault(group, {})
        granted = []
        for queue in queues:
            held = of_group.get(queue)
            if held is None or held.is_expired(now_ms):
                free = now_ms >= self._withheld_until_ms
            else:
                free = held.client_id == client_id
            if free:
                of_group[queue] = _Lock(client_id, now_ms)
                granted.append(queue)
            else:
                self._refused.setdefault(group, set()).add(queue)
        return granted

    def unlock(self, group: str, client_id: str, queues: Iterable[MessageQueue]) -> bool:
        """Give queues back; those held by somebody else stay as they are. True: somebody waits for one."""
        of_group, refused = self._locks.get(group, {}), self._refused.get(group, set())
        waited_for = False
        for queue in queues:
            held = of_group.get(queue)
            if held is not None and held.client_id == client_id:
                del of_group[queue]
                waited_for |= queue in refused
                refused.discard(queue)
        if not of_group:
            self._locks.pop(group, None)
        if not refused:
            self._refused.pop(group, None)
        return waited_for

    def held(self, group: str, client_id: str) -> dict[MessageQueue, int]:
        """The queues a client holds, each with its last renewal (monotonic ms): told to a new coordinator."""
        of_group = self._locks.get(group, {})
        return {queue: held.renewed_ms for queue, held in of_group.items() if held.client_id == client_id}

    def restore(self, group: str, client_id: str, renewed: dict[MessageQueue, int]) -> None:
        """Take over locks granted by the coordinator before this one; the later renewal wins a queue."""
        of_group = self._locks.setdefault(group, {})
        for queue, renewed_ms in renewed.items():
            held = of_group.get(queue)
            if held is None or held.renewed_ms <= renewed_ms:
                of_group[queue] = _Lock(client_id, renewed_ms)

    def expire(self, now_ms: int) -> int:
        """Forget locks nobody renewed; returns how many."""
        gone = 0
        for group in list(self._locks):
            of_group = self._locks[group]
            for queue in [queue for queue, held in of_group.items() if held.is_expired(now_ms)]:
                del of_group[queue]
                gone += 1
            if not of_group:
                del self._locks[group]
                self._refused.pop(group, None)
        return gone

    def drop_client(self, group: str, client_id: str) -> None:
        """Give back all that a client holds: its process has ended."""
        self.unlock(group, client_id, list(self.held(group, client_id)))

    def drop_group(self, group: str) -> None:
        """Forget all locks of a deleted group."""
        self._locks.pop(group, None)
        self._refused.pop(group, None)

    def __len__(self) -> int:
        """Count the locks, expired ones included."""
        return sum(len(of_group) for of_group in self._locks.values())
