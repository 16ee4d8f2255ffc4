"""Alternation: the order in which systems take turns.

Every round has one turn of every system, and rounds begin with another one in turn: a machine that gets
slower or faster meanwhile, or a turn that disturbs the next, then touches all alike. Ratios are taken
within rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def turns(systems: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """(round, system) for all turns of a comparison."""
    for number in range(rounds):
        first = number % len(systems) if systems else 0
        for system in (*systems[first:], *systems[:first]):
            yield number, system
