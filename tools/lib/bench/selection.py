"""Selection: from the command line to a plan of workloads, systems and classes; and the list of what there
is."""

from __future__ import annotations

import argparse
import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from bench.catalogue import TARGETS
from bench.comparison import WARM_UP_PART
from bench.durability import MEASURED, Durability
from bench.matrix import FULL
from bench.other_tree import other_tree
from bench.scaling import SCALING
from bench.systems import PEERS, SYSTEMS, System
from bench.workload import Workload

SETS = {"all": TARGETS, "scaling": SCALING, "full": TARGETS + SCALING + FULL}
OVERHEAD_S = 1.5
"""Of a turn: preparing topics and connections, writing out what is dirty."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be measured."""

    workloads: tuple[Workload, ...]
    systems: dict[str, System]
    classes: tuple[Durability, ...] | None
    rounds: int
    seconds: float

    def of_class(self, kind: Durability) -> list[Workload]:
        """The workloads that are measured in a class; with --durability every workload in those named."""
        if self.classes is not None:
            return list(self.workloads) if kind in self.classes else []
        return [workload for workload in self.workloads if kind in workload.classes]

    @property
    def facts(self) -> dict[str, str]:
        """For the report's head."""
        return {
            "rounds": str(self.rounds),
            "seconds": f"{self.seconds:g} a turn",
            "systems": ", ".join(self.systems),
            "takes": f"about {self.estimate_s() / 60:.0f} minutes",
        }

    def estimate_s(self) -> float:
        """How long it will take, about."""
        return sum(
            sum(name in self.systems for name in workload.systems)
            * (
                (1 if workload.once else self.rounds) * (self.seconds * workload.length + OVERHEAD_S)
                + WARM_UP_PART * self.seconds
            )
            for kind in MEASURED
            for workload in self.of_class(kind)
        )


def plan(asked: argparse.Namespace, stack: ExitStack) -> Plan:
    """The plan of a command line; SystemExit for names that do not exist. `stack` holds a checked out
    tree."""
    known = {workload.name: workload for workload in SETS["full"]}
    wanted: dict[str, Workload] = {}
    for name in asked.workloads or ["all"]:
        if name not in known and name not in SETS:
            raise SystemExit(f"no workload {name!r}: tools/bench --list names them")
        wanted |= {row.name: row for row in SETS.get(name, (known.get(name),)) if row is not None}
    systems = {name: system for name, system in SYSTEMS.items() if name not in PEERS or name in asked.peer}
    for name in [*asked.peer, *(asked.systems or [])]:
        if name not in SYSTEMS:
            raise SystemExit(f"no system {name!r}: {', '.join(SYSTEMS)}")
    if asked.systems:
        systems = {name: SYSTEMS[name] for name in (*asked.systems, *asked.peer)}
    workloads = tuple(_with_peers(workload, asked.peer) for workload in wanted.values())
    if asked.compare:
        systems, workloads = _two_trees(asked.compare, systems, workloads, stack)
    classes = tuple(Durability(name) for name in asked.durability) if asked.durability else None
    return Plan(workloads, systems, classes, asked.rounds, asked.seconds)


def _with_peers(workload: Workload, peers: list[str]) -> Workload:
    """The workload with the asked-for peers that can do its kind."""
    if workload.options:  # filters, order, transactions: RocketMQ's own
        return workload
    able = [name for name in peers if workload.kind in (SYSTEMS[name].kinds or {workload.kind})]
    return dataclasses.replace(workload, systems=(*workload.systems, *able))


def _two_trees(
    ref: str, systems: dict[str, System], workloads: tuple[Workload, ...], stack: ExitStack
) -> tuple[dict[str, System], tuple[Workload, ...]]:
    """Only shmq's own systems, each twice: of this tree and of another commit."""
    source = stack.enter_context(other_tree(ref))
    both: dict[str, System] = {}
    for name, system in systems.items():
        if system.server is not None and system.server.startswith("shmq"):
            both[name] = system
            old = f"{name}@{ref}"
            both[old] = dataclasses.replace(system, name=old, title=f"{system.title}, {ref}", source=source)
    paired = [
        dataclasses.replace(
            workload,
            systems=tuple(
                each for name in workload.systems if name in both for each in (name, f"{name}@{ref}")
            ),
            goals=(),
        )
        for workload in workloads
    ]
    return both, tuple(workload for workload in paired if workload.systems)


def print_list(found: Plan, out: Console) -> None:
    """Print workloads by set, and systems with what they lack."""
    for name, workloads in (("all", TARGETS), ("scaling", SCALING), ("full, beside those", FULL)):
        out.print(f"[bold]{name}[/]")
        for workload in workloads:
            classes = ", ".join(kind.value for kind in workload.classes)
            out.print(f"  {escape(workload.name):<26} {escape(workload.title)}  ({classes})", soft_wrap=True)
    out.print("[bold]systems[/] (* only with --peer)")
    for name, system in SYSTEMS.items():
        lacking = system.lacking()
        mark = "*" if name in PEERS else " "
        out.print(
            f" {mark}{name:<17} {system.title}{f'; MISSING: {lacking}' if lacking else ''}", soft_wrap=True
        )
    out.print(f"this selection takes about {found.estimate_s() / 60:.0f} minutes")
