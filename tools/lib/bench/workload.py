"""Workload: one named row of the bench, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.durability import MEASURED, Durability
from bench.goals import Goal


@dataclass(frozen=True, slots=True)
class Workload:
    """What is done, at which size, by how many, on which systems.

    kind      how it is run: a load (see `loads.LOADS`) or a probe (see `probes.PROBES`)
    metric    the figure that is compared: "rate" (more is better) or a latency such as "p50" (less is better)
    systems   names of systems that take part; those that are not there are named in the report
    classes   durability classes it makes sense in
    threads   senders, all processes together; `processes` of them, at most
    count     messages of a backlog, when the kind reads one; a batch load ends after so many, not by the
              clock
    rate      messages a second of an open-loop kind
    options   handed to the drivers beside the system's own, such as {"filter": "TagA"}
    extra     what only one kind knows
    length    how many times as long as others' its turns are
    once      one round, however many are asked for: it takes long
    sweep     (name of a curve, position on its x axis): rows of one sweep are drawn as one curve
    """

    name: str
    title: str
    kind: str
    systems: tuple[str, ...]
    metric: str = "rate"
    classes: tuple[Durability, ...] = (Durability.TIMED,)
    body_bytes: int = 256
    queues: int = 1
    threads: int = 1
    batch: int = 1_000
    in_flight: int = 2
    rate: float = 0.0
    count: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    length: int = 1
    once: bool = False
    sweep: tuple[str, float] | None = None

    def __post_init__(self) -> None:
        """A row that no report would show is a mistake in the catalogue."""
        assert self.classes and set(self.classes) <= set(MEASURED), self.name


def sweep(name: str, axis: str, base: Workload, varied: str, values: Sequence[int]) -> tuple[Workload, ...]:
    """The same workload at several sizes of its field `varied`, drawn as one curve."""
    rows = []
    for value in values:
        row = replace(base, name=f"{name}-{value}", title=f"{base.title}, {axis}: {value:,}", goals=())
        # A logarithmic axis has no 0: an empty store is drawn at 1.
        curve = (f"{base.title} against {axis}", float(value or 1))
        rows.append(replace(row, sweep=curve, **{varied: value}))  # type: ignore[arg-type]
    return tuple(rows)
