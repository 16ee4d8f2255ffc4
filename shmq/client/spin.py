"""Spinner: looks for an answer a little before the thread goes to sleep for it.

Being woken on another core costs 30 to 50 us, more than a local broker's whole answer; a reader that is still
awake sees it at once. But a spinning thread takes a core from somebody, so it stops by itself: each time the
limit passes without an answer it sits out twice as many calls as the time before, up to `SKIP_MAX`; each
answer in time halves that again. On a loaded machine, where answers take longer, it is soon off.
"""

from __future__ import annotations

import os
import socket
import time

SPIN_MICROS = 60
"""The limit of one spin where the setting leaves it to us (-1) and a second core is there."""
SKIP_MAX = 1024


def spin_limit_ns(setting_micros: int) -> int:
    """Return how long to spin for the setting `spin_micros`: -1 adaptive, 0 never, else so many
    microseconds."""
    if setting_micros >= 0:
        return setting_micros * 1000
    return SPIN_MICROS * 1000 if len(os.sched_getaffinity(0)) > 1 else 0


class Spinner:
    """The spinning of one channel, used by one thread at a time."""

    __slots__ = ("_limit_ns", "_penalty", "_skip")

    def __init__(self, limit_ns: int) -> None:
        """Spin up to `limit_ns` per call; 0 never spins."""
        self._limit_ns = limit_ns
        self._penalty = 1
        self._skip = 0

    def receive(self, sock: socket.socket, size: int) -> bytes | None:
        """Return what has come within the limit; None: sleep for it. An empty result means a hang-up, as
        always."""
        if not self._limit_ns:
            return None
        if self._skip:
            self._skip -= 1
            return None
        deadline = time.perf_counter_ns() + self._limit_ns
        while True:
            try:
                data = sock.recv(size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if time.perf_counter_ns() >= deadline:
                    self._penalty = min(self._penalty * 2, SKIP_MAX)
                    self._skip = self._penalty
                    return None
            else:
                self._penalty = max(1, self._penalty // 2)
                return data
