"""Offset resets that wait for the next pull."""

from __future__ import annotations

from shmq.broker.offset_resets import OffsetResets


def test_a_reset_waits_until_it_is_taken() -> None:
    resets = OffsetResets()
    resets.add("g", "t", {0: 5, 1: 9})
    assert resets.of_group("g") == {"t": {0: 5, 1: 9}}
    assert resets.taken("g", "t", 0, 5)
    assert not resets.taken("g", "t", 0, 5)
    assert resets.of_group("g") == {"t": {1: 9}}
    assert resets.taken("g", "t", 1, 9)
    assert resets.of_group("g") == {}


def test_a_newer_reset_survives_the_taking_of_the_older() -> None:
    resets = OffsetResets()
    resets.add("g", "t", {0: 5})
    resets.add("g", "t", {0: 7})
    assert not resets.taken("g", "t", 0, 5)
    assert resets.of_group("g") == {"t": {0: 7}}


def test_deleted_topics_and_groups_have_none() -> None:
    resets = OffsetResets()
    resets.add("g", "t", {0: 5})
    resets.add("g", "u", {0: 5})
    resets.add("h", "t", {0: 5})
    resets.drop_topic("t")
    assert resets.of_group("g") == {"u": {0: 5}} and resets.of_group("h") == {}
    resets.drop("g")
    assert resets.of_group("g") == {}
