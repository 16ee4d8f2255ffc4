"""What was measured: turns, rows, and the comparison of two systems by the rounds they shared."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.durability import Durability
from bench.workload import Workload
from histogram import Histogram


@dataclass(slots=True)
class Turn:
    """One system's turn in one round.

    figures  name -> value: rate (messages/s), bytes_s (body bytes/s), p50 ... max (us), cpu_us (CPU
             microseconds a message, server and clients), others_cpu (part of one core the idle systems used
             meanwhile), foreign_cpu (the same of everything that is no part of the bench); probes have
             figures of their own
    latency  nanoseconds, for the curves
    """

    system: str
    round: int
    figures: dict[str, float]
    latency: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class Ratio:
    """One figure of a system divided by that of another, round by round."""

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        """Such as 3.12 (2.98 .. 3.30, 3 rounds)."""
        return f"{self.median:.3g} ({self.low:.3g} .. {self.high:.3g}, {self.rounds} rounds)"


@dataclass(slots=True)
class Row:
    """A workload in one class: the turns of all its rounds; why systems are missing; verdicts of its
    goals."""

    workload: Workload
    durability: Durability
    turns: list[Turn] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    verdicts: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    took_s: float = 0.0
    """The whole row: starts, warming up, filling, all turns."""

    @property
    def systems(self) -> list[str]:
        """The systems that have turns, in the order of the workload."""
        seen = dict.fromkeys(turn.system for turn in self.turns)
        named = [name for name in self.workload.systems if name in seen]
        # A probe may split a system into parts, in an order of its own.
        return named + [name for name in seen if name not in named]

    def values(self, system: str, figure: str) -> dict[int, float]:
        """Round -> figure of one system."""
        return {
            turn.round: turn.figures[figure]
            for turn in self.turns
            if turn.system == system and figure in turn.figures
        }

    def median(self, system: str, figure: str) -> float | None:
        """The middle one of a system's rounds."""
        values = self.values(system, figure).values()
        return statistics.median(values) if values else None

    def latency(self, system: str) -> Histogram:
        """All rounds of a system in one histogram."""
        total = Histogram()
        for turn in self.turns:
            if turn.system == system:
                total.merge(turn.latency.counts)
        return total

    def ratio(self, left: str, right: str, figure: str, right_figure: str | None = None) -> Ratio | None:
        """`left` divided by `right` in every round that has both; None when there is none."""
        ours, theirs = self.values(left, figure), self.values(right, right_figure or figure)
        quotients = [
            ours[number] / theirs[number] for number in ours.keys() & theirs.keys() if theirs[number]
        ]
        if not quotients:
            return None
        return Ratio(statistics.median(quotients), min(quotients), max(quotients), len(quotients))

    def as_json(self) -> dict[str, Any]:
        """The row with every round, for the JSON report."""
        return {
            "workload": self.workload.name,
            "title": self.workload.title,
            "durability": self.durability.value,
            "metric": self.workload.metric,
            "sweep": self.workload.sweep,
            "seconds": self.seconds,
            "took_s": self.took_s,
            "turns": [
                {
                    "system": turn.system,
                    "round": turn.round,
                    "figures": turn.figures,
                    "latency_ns": turn.latency.counts,
                }
                for turn in self.turns
            ],
            "missing": self.missing,
            "goals": [{"goal": goal, "verdict": verdict} for goal, verdict in self.verdicts],
        }


def spread(values: Iterable[float]) -> float:
    """(largest - smallest) / median of some rounds; 0 of one."""
    found = list(values)
    middle = statistics.median(found)
    return (max(found) - min(found)) / middle if middle else 0.0
