"""The histogram of the tools: right within its precision, the same one by one and by the million."""

from __future__ import annotations

import json
import random

import numpy as np

from histogram import BUCKETS, Histogram, bucket_of, buckets_of, highest_in

EDGES = [0, 1, 63, 64, 65, 127, 128, 2**31 - 1, 2**31, 2**53 - 1, 2**53, 2**53 + 1, 2**62, 2**63 - 1]


def values(count: int = 20_000) -> list[int]:
    source = random.Random(6)
    return EDGES + [source.randrange(2 ** source.randrange(1, 63)) for _ in range(count)]


def test_many_values_fall_into_the_same_buckets_as_one_by_one() -> None:
    found = values()
    assert buckets_of(np.array(found)).tolist() == [bucket_of(value) for value in found]


def test_a_bucket_ends_at_most_one_part_in_64_above_its_values() -> None:
    for value in values():
        highest = highest_in(bucket_of(value))
        assert value <= highest <= value + max(0, value // 64)
        assert bucket_of(highest) == bucket_of(value) < BUCKETS


def test_percentiles_are_those_of_the_sorted_values_within_the_precision() -> None:
    found = sorted(values())
    histogram = Histogram()
    histogram.record_all(found)
    for percent in (0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0):
        exact = found[max(0, -(-len(found) * int(percent * 10) // 1000) - 1)]
        assert exact <= histogram.percentile(percent) <= exact * (1 + 1 / 64)


def test_merged_halves_are_the_whole_also_through_json() -> None:
    found = values(1_000)
    whole, left, right = Histogram(), Histogram(), Histogram()
    whole.record_all(found)
    left.record_all(np.array(found[:400]))
    for value in found[400:]:
        right.record(value)
    left.merge({int(bucket): count for bucket, count in json.loads(json.dumps(right.counts)).items()})
    assert left.counts == whole.counts and left.total == whole.total == len(found)
    assert Histogram(whole.counts).percentiles() == whole.percentiles()


def test_an_empty_histogram_has_percentiles_of_zero() -> None:
    assert set(Histogram().percentiles().values()) == {0}


def test_negative_values_count_as_zero() -> None:
    histogram = Histogram()
    histogram.record(-5)
    histogram.record_all([-7, 0])
    assert histogram.counts == {0: 3}
