"""Latencies in a log-linear histogram: constant memory, percentiles within about 1.6 percent, mergeable.

Buckets as in HdrHistogram's idea: every power of two is cut into 64 equal parts, so that small and large
values are known with the same relative precision. The counts are one numpy array: a million values are
counted in some milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

PARTS_BITS = 6
PARTS = 1 << PARTS_BITS
BUCKETS = PARTS * (64 - PARTS_BITS)
"""Enough for every value below 2**63."""
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)


def buckets_of(values: np.ndarray) -> np.ndarray:
    """The buckets of values >= 0; values below 64 have one each."""
    # A float64 may round up to the next power of two; the comparison puts that right.
    bits = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    bits -= (values >> np.maximum(bits - 1, 0)) == 0
    shift = np.maximum(bits - PARTS_BITS - 1, 0)
    return (shift << PARTS_BITS) + (values >> shift)


def bucket_of(value: int) -> int:
    """The bucket of one value."""
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
        self._counts = np.zeros(BUCKETS, np.int64)
        if counts:
            self.merge(counts)

    @property
    def counts(self) -> dict[int, int]:
        """Bucket -> count, of the buckets that have one; what `merge` takes and JSON carries."""
        return {int(bucket): int(self._counts[bucket]) for bucket in np.flatnonzero(self._counts)}

    def record(self, value: int) -> None:
        """Count one value."""
        self._counts[bucket_of(max(0, value))] += 1

    def record_all(self, values: Iterable[int]) -> None:
        """Count many values: an array, or anything with integers."""
        array = np.asarray(values if isinstance(values, np.ndarray) else list(values), np.int64)
        self._counts += np.bincount(buckets_of(np.maximum(array, 0)), minlength=BUCKETS)

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add the bucket counts of another histogram."""
        for bucket, count in counts.items():
            self._counts[int(bucket)] += count

    @property
    def total(self) -> int:
        """How many values were recorded."""
        return int(self._counts.sum())

    def percentile(self, percent: float) -> int:
        """The value that `percent` of all recorded ones do not exceed; 0 when empty."""
        seen = np.cumsum(self._counts)
        if not seen[-1]:
            return 0
        # At least one: the 0th percentile is the smallest value, not the first bucket.
        wanted = max(percent / 100 * float(seen[-1]), 1)
        return highest_in(int(np.searchsorted(seen, wanted)))

    def percentiles(self) -> dict[str, int]:
        """The usual percentiles by name: p50, p90, p99, p99.9, max."""
        return {
            "max" if percent == 100 else f"p{percent:g}": self.percentile(percent) for percent in PERCENTILES
        }
