"""Which half messages are still open: a byte each from the oldest open one on, and where copies went.

A half message ends (an op message says so) or is copied to the end of the queue for a later check. All below
`base` are over, and the newest copies are known by the offset of the first.
Pure; lives in the coordinator.
"""

from __future__ import annotations


class OpenHalves:
    """The half queue as far as decisions go."""

    def __init__(self, base: int) -> None:
        """All below `base` are over, all others open."""
        self.base = base
        self._ended = bytearray()
        self._newest: dict[int, int] = {}
        self._ended_count = 0

    @property
    def moved(self) -> int:
        """How many are open as a copy."""
        return len(self._newest)

    def count(self, high: int) -> int:
        """How many are open when the queue ends at `high`."""
        return max(0, high - self.base - self._ended_count)

    def is_open(self, queue_offset: int) -> bool:
        """Whether that one, not a copy of it, is open."""
        place = queue_offset - self.base
        return place >= 0 and not (place < len(self._ended) and self._ended[place])

    def newest(self, first: int, queue_offset: int) -> int:
        """The queue offset under which a half message is now known, from any of its copies."""
        return self._newest.get(first, queue_offset)

    def has_copy(self, first: int) -> bool:
        """Whether a copy of that half message is open."""
        return first in self._newest

    def learn_copy(self, first: int, queue_offset: int) -> None:
        """A copy is open at that offset."""
        self._newest[first] = queue_offset

    def end(self, queue_offset: int, first: int) -> None:
        """One is decided."""
        self._newest.pop(first, None)
        place = queue_offset - self.base
        if place < 0:
            return
        if place >= len(self._ended):
            self._ended.extend(bytes(place + 1 - len(self._ended)))
        self._ended_count += not self._ended[place]
        self._ended[place] = 1

    def next_open(self, queue_offset: int) -> int:
        """The first open one at or behind an offset; the queue may end before it."""
        place = max(0, queue_offset - self.base)
        found = self._ended.find(0, place)
        return self.base + (found if found >= 0 else max(place, len(self._ended)))

    def skip_ended(self) -> int:
        """Move `base` to the oldest open one and return it."""
        self.pass_to(self.next_open(self.base))
        return self.base

    def pass_to(self, queue_offset: int) -> None:
        """All below are over: ended, or copied."""
        gone = queue_offset - self.base
        if gone > 0:
            self._ended_count -= self._ended.count(1, 0, gone)
            del self._ended[:gone]
            self.base = queue_offset
