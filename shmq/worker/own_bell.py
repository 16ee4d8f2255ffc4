"""OwnBell: the worker's own doorbell, as its own store rings it.

A worker that appends to a queue whose pulls it holds itself has to look at them; it need not wake itself
through the kernel for that, as it is awake. Other processes ring the same descriptor as ever. Runs in the
worker's event loop, the only thread that appends.
"""

from __future__ import annotations

from collections.abc import Callable

from shmq.shm.doorbell import Doorbell


class OwnBell(Doorbell):
    """A bell that calls instead of ringing; all else is the inherited descriptor's."""

    __slots__ = ("_look",)

    def __init__(self, fd: int, look: Callable[[], None]) -> None:
        """`look` sees to it that the worker looks again before it sleeps; it must not raise."""
        super().__init__(fd)
        self._look = look

    def ring(self) -> None:
        """Have this worker look for what waits, later in this turn."""
        self._look()
