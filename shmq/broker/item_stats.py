"""Named statistics items such as TOPIC_PUT_NUMS: sums over the last minute, hour and day (request 315).

An item is a cumulative sum and a number of calls. Snapshots of both are kept at three paces; a window's
answer is the difference between now and its oldest snapshot (Apache RocketMQ 5.3, StatsItem.java; there
only snapshots count, so a minute's sum is up to 10 s late). An item that has not moved for a whole minute is
left alone until it does, but for the longer windows: thousands of groups may be idle. Pure; lives in the
coordinator, lost at its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Window(NamedTuple):
    """How a window is sampled: every `interval_ms`, `kept` snapshots."""

    interval_ms: int
    kept: int


MINUTE = Window(10_000, 7)
HOUR = Window(600_000, 7)
DAY = Window(3_600_000, 25)
ALL_MS = 60_000
"""So often also the items are looked at that do not move."""


class WindowStats(NamedTuple):
    """One window's answer: the sum, its rate per second, its mean per call."""

    sum: int
    tps: float
    avgpt: float

    def to_json(self) -> dict[str, float]:
        """As the body of 315 names them."""
        return {"avgpt": self.avgpt, "sum": self.sum, "tps": self.tps}


class _Snapshot(NamedTuple):
    ms: int
    sum: int
    calls: int


class StatsItem:
    """One item: `add` counts, `sample` keeps the windows going."""

    __slots__ = ("_calls", "_sum", "_windows")

    def __init__(self, now_ms: int) -> None:
        """Start at zero, with one snapshot saying so in every window."""
        self._sum = 0
        self._calls = 0
        start = _Snapshot(now_ms, 0, 0)
        self._windows = {window: deque([start], maxlen=window.kept) for window in (MINUTE, HOUR, DAY)}

    def add(self, amount: int, calls: int) -> None:
        """Count `amount` (messages or bytes) that came in `calls` calls."""
        self._sum += amount
        self._calls += calls

    def sample(self, now_ms: int) -> bool:
        """Take the snapshots that are due; False when those of the minute are all alike."""
        for window, snapshots in self._windows.items():
            if now_ms - snapshots[-1].ms >= window.interval_ms:
                snapshots.append(_Snapshot(now_ms, self._sum, self._calls))
        minute = self._windows[MINUTE]
        return len(minute) < MINUTE.kept or minute[0].calls != self._calls or minute[0].sum != self._sum

    def wake(self, now_ms: int) -> None:
        """Set the snapshots of a minute in which nothing moved, as if they had been taken."""
        first_ms = now_ms - MINUTE.interval_ms * (MINUTE.kept - 1)
        self._windows[MINUTE].extend(
            _Snapshot(first_ms + n * MINUTE.interval_ms, self._sum, self._calls) for n in range(MINUTE.kept)
        )

    def over(self, window: Window, now_ms: int) -> WindowStats:
        """What came in since the window's oldest snapshot."""
        first = self._windows[window][0]
        amount, calls, elapsed_ms = self._sum - first.sum, self._calls - first.calls, now_ms - first.ms
        return WindowStats(
            amount,
            amount * 1000 / elapsed_ms if elapsed_ms > 0 else 0.0,
            amount / calls if calls > 0 else 0.0,
        )


class ItemStats:
    """All items by (name, key), made when something is first counted."""

    def __init__(self) -> None:
        """Start without items."""
        self._items: dict[tuple[str, str], StatsItem] = {}
        self._moving: dict[StatsItem, None] = {}
        """Those that may have moved within a minute."""
        self._sampled_all_ms = 0

    def add(self, name: str, key: str, amount: int, calls: int, now_ms: int) -> None:
        """Count `amount` of item `name`, `key`."""
        item = self._items.get((name, key))
        if item is None:
            item = self._items[name, key] = StatsItem(now_ms)
            self._moving[item] = None
        elif item not in self._moving:
            item.wake(now_ms)
            self._moving[item] = None
        item.add(amount, calls)

    def get(self, name: str, key: str) -> StatsItem | None:
        """The item, or None when nothing was ever counted under it."""
        return self._items.get((name, key))

    def sample(self, now_ms: int) -> None:
        """Take the due snapshots; call about every 10 s."""
        items: Iterable[StatsItem] = self._moving
        if now_ms - self._sampled_all_ms >= ALL_MS:
            self._sampled_all_ms = now_ms
            items = self._items.values()
        self._moving = {item: None for item in items if item.sample(now_ms)}

    def drop_topic(self, topic: str) -> None:
        """Forget the items of a deleted topic: keys `topic` and `topic@group`."""
        self._drop(lambda key: key == topic or key.startswith(topic + "@"))

    def drop_group(self, group: str) -> None:
        """Forget the items of a deleted group: keys `topic@group`."""
        self._drop(lambda key: key.endswith("@" + group))

    def _drop(self, is_gone: Callable[[str], bool]) -> None:
        for name, key in [(name, key) for name, key in self._items if is_gone(key)]:
            self._moving.pop(self._items.pop((name, key)), None)
