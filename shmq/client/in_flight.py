"""InFlight: bounds what a producer has handed over and not heard of, in messages and bytes.

A send waits for room until its time is over. One condition guards both counts; whoever leaves wakes all that
wait, because each may need another amount of room.
"""

from __future__ import annotations

import threading
import time

from shmq.client.errors import TooMuchRequest


class InFlight:
    """The room for asynchronous sends."""

    def __init__(self, count_max: int, bytes_max: int) -> None:
        """Start empty."""
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._count = 0
        self._bytes = 0
        self._waiting = 0

    @property
    def count(self) -> int:
        """Messages inside now."""
        return self._count

    def enter(self, size: int, deadline: float) -> None:
        """Take room for one message of `size` bytes; TooMuchRequest when there is none before `deadline`.

        A message larger than all room is let in alone.
        """
        with self._lock:  # the condition's own lock, entered without its detour
            while self._count >= self._count_max or (self._bytes and self._bytes + size > self._bytes_max):
                left = deadline - time.monotonic()
                self._waiting += 1
                try:
                    if left <= 0 or not self._changed.wait(left):
                        raise TooMuchRequest(
                            f"{self._count} async sends with {self._bytes} bytes are unanswered, which is "
                            "the bound: send slower, or raise back_pressure_for_async_send_num/_size"
                        )
                finally:
                    self._waiting -= 1
            self._count += 1
            self._bytes += size

    def leave(self, count: int, size: int) -> None:
        """Give back the room of `count` messages of `size` bytes together."""
        with self._changed:
            self._count -= count
            self._bytes -= size
            if self._waiting or not self._count:
                self._changed.notify_all()

    def wait_empty(self, limit_s: float) -> bool:
        """Wait until nothing is under way; False when that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, limit_s)
