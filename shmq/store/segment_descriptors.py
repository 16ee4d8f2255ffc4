"""Descriptors of CommitLog segments for those who sync: opened before the first byte goes in, kept until all
is synced.

A descriptor opened after a failed write-back may never hear of it (Linux reports an error once to each
descriptor that was open), so a sync through a late one could succeed over lost data. Shared by the flusher
and the segment allocator, two threads of the supervisor.
"""

from __future__ import annotations

import os
import threading

from shmq.store.names import StoreLayout


class SegmentDescriptors:
    """Open descriptors by segment start."""

    def __init__(self, layout: StoreLayout) -> None:
        """Nothing is opened yet."""
        self._layout = layout
        self._lock = threading.Lock()
        self._fds: dict[int, int] = {}

    def hold(self, start: int, fd: int) -> None:
        """Take over the descriptor of a segment that was just made."""
        with self._lock:
            self._fds[start] = fd

    def get(self, start: int) -> int:
        """The descriptor of the segment that begins at `start`; opened when it was made by an earlier run.

        OSError.
        """
        with self._lock:
            if start not in self._fds:
                self._fds[start] = os.open(self._layout.segment_path(start), os.O_RDWR | os.O_CLOEXEC)
            return self._fds[start]

    def open_from(self, position: int) -> None:
        """Open every segment that exists and ends above `position`. At the start, before any appender."""
        for start in self._layout.segments():
            if start + self._layout.segment_bytes > position:
                self.get(start)

    def close_below(self, position: int) -> None:
        """Close those whose last byte is below `position`: synced, nobody writes there any more."""
        with self._lock:
            for start in [s for s in self._fds if s + self._layout.segment_bytes <= position]:
                os.close(self._fds.pop(start))

    def close(self) -> None:
        """Close all. Twice is harmless."""
        with self._lock:
            while self._fds:
                os.close(self._fds.popitem()[1])
