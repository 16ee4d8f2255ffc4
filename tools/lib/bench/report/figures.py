"""The figures a row may have: what they are called and how they are printed; and what a row's columns are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bench.result import Row, spread

REFERENCE = "shmq"
BUSY = 0.1
"""From so much of one core on, what others did meanwhile is worth a warning."""


class Figure(NamedTuple):
    """A column's heading, the number printed, and whether less of it is better."""

    heading: str
    text: Callable[[float], str]
    less_is_better: bool = True


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _digits(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


FIGURES: dict[str, Figure] = {
    "rate": Figure("per second", _whole, less_is_better=False),
    "bytes_s": Figure("MB/s", lambda value: f"{value / 1e6:,.1f}", less_is_better=False),
    "p50": Figure("p50 us", _digits),
    "p99": Figure("p99 us", _digits),
    "p99.9": Figure("p99.9 us", _digits),
    "max": Figure("max us", _digits),
    "cpu_us": Figure("CPU us/message", _digits),
    "seconds": Figure("seconds", lambda value: f"{value:.3f}"),
    "memory": Figure("MiB", _digits),
    "growth": Figure("MiB more than at first", _digits),
    "wakeups": Figure("wake-ups/s of one process", _digits),
    "micros": Figure("us/message", lambda value: f"{value:,.3f}"),
    "calls": Figure("calls/message", lambda value: f"{value:,.3f}"),
    "lock_percent": Figure("% of the time the lock is held", _digits),
    "cores": Figure("cores", _digits),
    "cpu_percent": Figure("% of a core", lambda value: f"{value:.2f}"),
}


def columns(row: Row) -> list[str]:
    """The figures that any turn of the row has, in the order of FIGURES."""
    there = {name for turn in row.turns for name in turn.figures}
    return [name for name in FIGURES if name in there]


def reference(row: Row) -> str | None:
    """The system others are compared with: shmq where it takes part."""
    return REFERENCE if REFERENCE in row.systems else next(iter(row.systems), None)


def advantage(row: Row, system: str) -> str:
    """How many times better the reference is than a system in the row's metric, with spread and rounds."""
    against = reference(row)
    if against is None or against == system or system not in row.workload.systems:
        return ""
    metric = row.workload.metric
    left, right = (system, against) if FIGURES[metric].less_is_better else (against, system)
    ratio = row.ratio(left, right, metric)
    return str(ratio) if ratio else ""


def table(row: Row) -> list[list[str]]:
    """The row as lines of text, the heading first; without the last column where nothing is compared."""
    head = [
        "system",
        *[FIGURES[name].heading for name in columns(row)],
        f"{reference(row)} is x times better",
    ]
    lines = [head, *([system, *cells(row, system), advantage(row, system)] for system in row.systems)]
    if not any(line[-1] for line in lines[1:]):
        lines = [line[:-1] for line in lines]
    return lines


def cells(row: Row, system: str) -> list[str]:
    """The printed medians of a system, one per column, the metric with its spread over the rounds."""
    found = []
    for name in columns(row):
        median = row.median(system, name)
        text = "" if median is None else FIGURES[name].text(median)
        if text and name == row.workload.metric:
            text += f" ±{spread(row.values(system, name).values()) * 50:.0f}%"
        found.append(text)
    return found


def disturbance(row: Row) -> str:
    """A warning when the machine was busy with anything but the system that had its turn; else empty."""
    for name, what in (("foreign_cpu", "other programs"), ("others_cpu", "the systems that were waiting")):
        worst = max((turn.figures.get(name, 0.0) for turn in row.turns), default=0.0)
        if worst >= BUSY:
            return f"disturbed: {what} used up to {worst:.2f} cores during a turn"
    return ""
