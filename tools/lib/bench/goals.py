"""What each row should reach, and whether it did in this run."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bench.result import Result


class Goal(NamedTuple):
    """A goal in words, and the test of it against (row, bare round trip)."""

    text: str
    reached: Callable[[Result, Result], bool]


GOALS: dict[str, Goal] = {
    "start": Goal("below 1 s", lambda row, echo: row.micros() < 1e6),
    "sync": Goal("p50 <= 1.4 round trips", lambda row, echo: row.micros() <= 1.4 * echo.micros()),
    "batch": Goal(">= 1,000,000 a second", lambda row, echo: row.rate >= 1e6),
    "latency": Goal(
        "p50 <= 2.5 round trips, p99 < 1 ms",
        lambda row, echo: row.micros() <= 2.5 * echo.micros() and row.micros("p99") < 1000,
    ),
}
"""Rows without an entry are compared with other brokers only."""


def judge(name: str, row: Result, echo: Result) -> str:
    """The goal of a row with its verdict; empty for a row without one."""
    goal = GOALS.get(name)
    if goal is None:
        return ""
    return f"{'reached' if goal.reached(row, echo) else 'NOT reached'}: {goal.text}"
