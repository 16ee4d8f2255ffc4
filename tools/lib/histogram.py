"""Latencies in a log-linear histogram: constant memory, percentiles within about 1.6 percent, mergeable.

Buckets as in HdrHistogram's idea: every power of two is cut into 64 equal parts, so that small and large
values are known with the same relative precision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

PARTS_BITS = 6
PARTS = 1 << PARTS_BITS
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)


def bucket_of(value: int) -> int:
    """The bucket of a value >= 0; values below 64 have one each."""
    shift = max(0, value.bit_length() - PARTS_BITS - 1)
    return (shift << PARTS_BITS) + (value >> shift)


def highest_in(bucket: int) -> int:
    """The largest value that falls into a bucket."""
    shift = max(0, (bucket >> PARTS_BITS) - 1)
    return (((bucket - (shift << PARTS_BITS)) + 1) << shift) - 1


class Histogram:
    """Counts of non-negative integers, such as nanoseconds."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        """Start empty, or from the bucket counts of another one."""
        self.counts: Counter[int] = Counter(counts)

    def record(self, value: int) -> None:
        """Count one value."""
        self.counts[bucket_of(max(0, value))] += 1

    def record_all(self, values: Iterable[int]) -> None:
        """Count many values."""
        self.counts.update(bucket_of(max(0, value)) for value in values)

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add the bucket counts of another histogram."""
        self.counts.update(counts)

    @property
    def total(self) -> int:
        """How many values were recorded."""
        return self.counts.total()

    def percentile(self, percent: float) -> int:
        """The value that `percent` of all recorded ones do not exceed; 0 when empty."""
        wanted = percent / 100 * self.total
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return highest_in(bucket)
        return 0

    def percentiles(self) -> dict[str, int]:
        """The usual percentiles by name: p50, p90, p99, p99.9, max."""
        return {
            "max" if percent == 100 else f"p{percent:g}": self.percentile(percent) for percent in PERCENTILES
        }
