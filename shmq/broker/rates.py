"""Messages per second over the last 10, 60 and 600 seconds, from one cumulative count sampled each second.

Pure; the coordinator samples. Apache RocketMQ 5.3 keeps the same 600 samples (StoreStatsService.java).
"""

from __future__ import annotations

from collections import deque

WINDOWS_S = (10, 60, 600)


class Rate:
    """The samples (wall ms, count so far) of one cumulative count."""

    def __init__(self) -> None:
        """Start without samples: all rates are 0."""
        self.total = 0
        self._samples: deque[tuple[int, int]] = deque(maxlen=WINDOWS_S[-1] + 1)

    def add(self, n: int) -> None:
        """Count `n` more."""
        self.total += n

    def sample(self, now_ms: int) -> None:
        """Remember the count as it is now; call about once a second."""
        self._samples.append((now_ms, self.total))

    def per_second(self, window_s: int) -> float:
        """The mean rate over the last `window_s` samples, over all there are when they are fewer."""
        if len(self._samples) < 2:
            return 0.0
        before_ms, before = self._samples[max(0, len(self._samples) - 1 - window_s)]
        last_ms, last = self._samples[-1]
        return (last - before) * 1000 / (last_ms - before_ms) if last_ms > before_ms else 0.0

    def text(self) -> str:
        """Three numbers as runtime info wants them; never empty, which some tools cannot read."""
        return rates_text(self)


def rates_text(*rates: Rate) -> str:
    """The sum of several rates, as `10s 60s 600s`."""
    return " ".join(str(sum(rate.per_second(window_s) for rate in rates)) for window_s in WINDOWS_S)
