"""Doorbell: "look again", across processes. One eventfd per slot, made before the first child and inherited
by all.

A bell carries no data and may ring for nothing. Who sleeps on one clears it first and looks afterwards; any
other order loses a wake-up. Descriptors live as long as the page does.
"""

from __future__ import annotations

import os
import select


class Doorbell:
    """One eventfd, non-blocking. Any process and thread may ring; the slot's owner waits and clears."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        """Wrap an inherited descriptor."""
        self._fd = fd

    @classmethod
    def create(cls) -> Doorbell:
        """Make a new bell that does not ring yet. Supervisor, before the first child."""
        return cls(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))

    def ring(self) -> None:
        """Wake the owner, or leave the bell ringing for its next look."""
        try:  # a message pays for each ring: no context manager here
            os.eventfd_write(self._fd, 1)
        except BlockingIOError:  # 2**64 - 2 rings that nobody cleared: it rings already
            return

    def clear(self) -> None:
        """Stop the ringing, all of it; then look for work, then wait again."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:  # it did not ring
            return

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until it rings (True) or the time is over; it goes on ringing. For threads without a loop."""
        ready = select.poll()
        ready.register(self._fd, select.POLLIN)
        return bool(ready.poll(None if timeout_s is None else timeout_s * 1000))

    def fileno(self) -> int:
        """Return the descriptor, for an event loop or for a child to inherit."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor. Supervisor, at the end of the page's life."""
        os.close(self._fd)
