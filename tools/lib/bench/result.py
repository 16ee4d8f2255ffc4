"""One row of the bench: what was measured, and what it is compared with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from histogram import Histogram


@dataclass(slots=True)
class Result:
    """A workload's figures.

    rate     messages (or operations) a second; 0 where only latency counts
    bytes_s  body bytes a second
    latency  nanoseconds of one operation
    ratios   comparisons with this run's limits: text -> figure
    goal     what it should reach, and whether it did
    """

    name: str
    rate: float = 0.0
    bytes_s: float = 0.0
    latency: Histogram = field(default_factory=Histogram)
    ratios: dict[str, float] = field(default_factory=dict)
    goal: str = ""

    def micros(self, percentile: str = "p50") -> float:
        """A latency percentile in microseconds."""
        return self.latency.percentiles()[percentile] / 1000

    def as_json(self) -> dict[str, Any]:
        """The row for --json; latencies in microseconds."""
        row = asdict(self)
        row["latency"] = {name: value / 1000 for name, value in self.latency.percentiles().items()}
        return row
