"""Whether the supervisor still lives: its pipe, whose write end no child holds, shows EOF when it is gone.

Used by a child's event loop (leave at once) and by the AppendLock while it waits (nobody would ever end
the wait).
"""

from __future__ import annotations

import asyncio
import os
import select

from shmq.shm.boot import ChildExit


class SupervisorWatch:
    """The read end of the supervisor pipe; -1 when there is no supervisor (tests)."""

    def __init__(self, fd: int) -> None:
        """Watch an inherited descriptor."""
        self._fd = fd
        self._poll = select.poll()
        if fd >= 0:
            self._poll.register(fd, select.POLLIN)

    def gone(self) -> bool:
        """Look, without waiting, whether the supervisor is gone."""
        return self._fd >= 0 and bool(self._poll.poll(0))

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Leave the process when the supervisor does: what is shared is repaired by the next one."""
        if self._fd >= 0:
            loop.add_reader(self._fd, self._leave)

    def _leave(self) -> None:
        os._exit(ChildExit.ORPHANED)
