"""Pass accepted connections between workers: one descriptor per message over inherited socketpairs
(SCM_RIGHTS).

Every worker listens on the same sockets, and the kernel would let one of them accept nearly everything. So
whoever accepts hands the descriptor, unread, to the live worker with the fewest connections. Runs in the
worker's event loop thread; the sending ends are shared by all workers, which is safe because a message is
written whole.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence

from shmq.base.clock import monotonic_ms
from shmq.net.descriptor_passing import give, take_some

UNDER_WAY_MS_MAX = 10_000
"""After this a hand-over counts as arrived: its worker may have died between taking and counting it."""

ConnectionsOf = Callable[[int], int | None]
ReceivedOf = Callable[[int], int]


class Spread:
    """Choose which worker serves the next connection. Pure, but for the page words it is given functions for.

    ``connections_of(i)`` is worker i's published number of connections, None while it is not alive;
    ``received_of(i)`` counts the descriptors worker i has ever taken from its socketpair. What was handed
    over and not yet taken is added to the published number, so that a burst accepted in one turn is spread
    evenly.
    """

    def __init__(
        self,
        own: int,
        workers: int,
        connections_of: ConnectionsOf,
        received_of: ReceivedOf,
        clock_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        """``own`` is this worker's index among ``workers``."""
        self._own = own
        self._workers = workers
        self._connections_of = connections_of
        self._received_of = received_of
        self._clock_ms = clock_ms
        self._under_way: list[deque[tuple[int, int]]] = [deque() for _ in range(workers)]
        self._next_tie = own

    def choose(self) -> int:
        """Return the worker with the fewest connections; ties go round, beginning with this one."""
        best, best_load = self._own, None
        for step in range(self._workers):
            index = (self._next_tie + step) % self._workers
            connections = self._connections_of(index)
            if connections is None:
                continue
            load = connections + self._still_under_way(index)
            if best_load is None or load < best_load:
                best, best_load = index, load
        self._next_tie = (best + 1) % self._workers
        return best

    def handed_to(self, index: int) -> None:
        """Remember one descriptor on its way to worker ``index``."""
        waiting = self._under_way[index]
        expected = self._received_of(index) + 1
        if waiting:
            expected = max(expected, waiting[-1][0] + 1)
        waiting.append((expected, self._clock_ms() + UNDER_WAY_MS_MAX))

    def not_handed_to(self, index: int) -> None:
        """Take back the last ``handed_to`` of this worker: the hand-off failed."""
        self._under_way[index].pop()

    def _still_under_way(self, index: int) -> int:
        waiting = self._under_way[index]
        if waiting:
            received, now_ms = self._received_of(index), self._clock_ms()
            while waiting and (waiting[0][0] <= received or waiting[0][1] <= now_ms):
                waiting.popleft()
        return len(waiting)


class Handoff:
    """The sending ends to every worker, and this worker's receiving end."""

    def __init__(self, send_fds: Sequence[int], receive_fd: int) -> None:
        """Wrap inherited descriptors; they stay owned by this object until ``close``."""
        self._senders = [socket.socket(fileno=fd) for fd in send_fds]
        self._receiver = socket.socket(fileno=receive_fd) if receive_fd >= 0 else None
        for end in (*self._senders, *([self._receiver] if self._receiver else [])):
            end.setblocking(False)

    def fileno(self) -> int:
        """Return the receiving descriptor, for the event loop; -1 when this worker is alone."""
        return -1 if self._receiver is None else self._receiver.fileno()

    def send(self, index: int, connection: socket.socket) -> bool:
        """Hand ``connection`` to worker ``index`` and close it here; False: keep it, its pipe is full."""
        return give(self._senders[index], connection)

    def receive_some(self) -> list[socket.socket]:
        """Take the connections that other workers sent, as many as one turn takes."""
        return [] if self._receiver is None else take_some(self._receiver)

    def close(self) -> None:
        """Close all ends; what is under way goes to another worker, or waits for the successor."""
        for end in (*self._senders, *([self._receiver] if self._receiver else [])):
            end.close()
