"""SharedCore: a worker runs on its only busy client's core for a while.

A client that sends one request and waits, and its worker, never work at the same time. On two cores each of
them finds the other's asleep and has to wake it, 30 to 50 us each way on a virtual machine, as much as the
work itself; on one core the kernel only changes from one to the other. The kernel prefers an idle core, so
both must be told: the client keeps to one core while it waits for an answer, and asks its worker to come
there (`handlers/share_core.py`). Whether that pays the client measures (`client/core_sharing.py`).

    begins      a client asks, no other client has the worker, and it may run on that core
    ends        the client says so, closes, or was silent for ``LOOK_S``; others ask for more than little;
                a process is started
    meanwhile   no busy polling: it would keep the client off its core

Only the thread of the worker's event loop is bound, and its former mask given back. Event loop only.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Set

LOOK_S = 0.1
OTHERS_MIN = 8
OTHERS_SHARE = 8
"""Between two looks others may ask so often, and once for every ``OTHERS_SHARE`` requests of the client."""

_NOBODY = -1


class SharedCore:
    """Where one worker runs."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        enabled: bool,
        poll: Callable[[], None],
        count: Callable[[str, int], None],
        bind: Callable[[int, Set[int]], None] = os.sched_setaffinity,
    ) -> None:
        """``poll`` hears of each request while no core is shared; ``bind(0, cores)`` binds this thread."""
        self._loop = loop
        self._poll = poll
        self._count = count
        self._bind = bind
        self._cores: Set[int] = os.sched_getaffinity(0)
        self._enabled = enabled and len(self._cores) > 1
        self._client = _NOBODY
        self._own = self._others = 0
        self._timer: asyncio.TimerHandle | None = None

    def worked(self, connection_id: int) -> None:
        """A request came."""
        if self._client == _NOBODY:
            self._poll()
        elif connection_id == self._client:
            self._own += 1
        else:
            self._others += 1
            if self._others > OTHERS_MIN + self._own // OTHERS_SHARE:
                self._end()

    def share(self, connection_id: int, cpu: int) -> bool:
        """Run on core ``cpu`` with that client, -1: anywhere; False when that is not possible."""
        if cpu < 0:
            self.closed(connection_id)
            return True
        if not self._enabled or self._client not in (_NOBODY, connection_id):
            return False
        if self._client == _NOBODY:
            self._cores = os.sched_getaffinity(0)  # somebody may have changed them
        if cpu not in self._cores:
            return False
        try:
            self._bind(0, {cpu})
        except OSError:  # the core went offline, or the cgroup took it away
            return False
        if self._client == _NOBODY:
            self._client = connection_id
            self._own, self._others = 1, 0
            self._timer = self._loop.call_later(LOOK_S, self._look)
            self._count("cores_shared", 1)
        return True

    def go_home(self) -> None:
        """Run anywhere again: a process is started, which inherits where this thread may run."""
        if self._client != _NOBODY:
            self._end()

    def closed(self, connection_id: int) -> None:
        """A client has gone, or wants the core for itself."""
        if connection_id == self._client:
            self._end()

    def _look(self) -> None:
        """Go on as long as the client does."""
        if not self._own:
            self._end()
            return
        self._own = self._others = 0
        self._timer = self._loop.call_later(LOOK_S, self._look)

    def _end(self) -> None:
        self._client = _NOBODY
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._bind(0, self._cores)
        except OSError:  # none of them is left: the kernel has chosen others
            self._enabled = False
