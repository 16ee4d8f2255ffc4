"""Where the microseconds of a send go: stage costs inside client and worker, the append lock's, and the
model.

Two runs of the same load: one as it is, for rate and processor time; one traced, for the stages. Tracing
costs some tenths of a microsecond a call (a line of the table says how much), so stages come out a little
dear, the more the more stages they contain.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from bench import processes, stages
from bench.load.job import Outcome
from bench.loads import LOADS
from bench.probes.stage import Stage
from bench.result import Turn
from bench.stages import MODEL_CORES, Model
from bench.systems import System
from bench.workload import Workload

WARM_UP_S = 0.3
RARE = 0.1
"""Calls a request below which a stage is none of a send's: heartbeats, routes."""


def stage_costs(stage: Stage, system: System, workload: Workload, seconds: float) -> list[Turn]:
    """A turn for each stage (microseconds and calls per message), for the load as a whole, and for the
    model."""
    plain, cpu_us = _plain(stage, system, workload, seconds)
    traced, client, server = _traced(stage, system, workload, seconds)
    turns = [Turn(f"{system.name}, untraced", 0, _whole(plain) | {"cpu_us": cpu_us}, plain.latency)]
    turns.append(Turn(f"{system.name}, traced", 0, _whole(traced), traced.latency))
    rare = RARE / (workload.batch if workload.extra["load"] == "batch" else 1)
    for place, found in (("client", client), ("worker", server)):
        for name, cost in found.items():
            if cost.calls >= rare * traced.messages and name != stages.OVERHEAD:
                turns.append(Turn(f"{place}: {name}", 0, _per_message(cost, traced.messages)))
    overhead = server[stages.OVERHEAD]
    turns.append(Turn(stages.OVERHEAD, 0, {"micros": overhead.nanoseconds / max(overhead.calls, 1) / 1000}))
    held = server[stages.LOCK_HELD]
    if held.calls and cpu_us > 0:
        model = Model(cpu_us, held.nanoseconds / traced.messages / 1000)
        for cores in MODEL_CORES:
            share = {"rate": model.rate(cores), "lock_percent": model.lock_share(cores) * 100}
            turns.append(Turn(f"model: {cores} cores", 0, share))
        turns.append(Turn("model: the lock is the bound from", 0, {"cores": model.saturation_cores}))
    return turns


def _whole(outcome: Outcome) -> dict[str, float]:
    figures = {"rate": outcome.messages / outcome.seconds}
    if outcome.latency.total:
        figures["p50"] = outcome.latency.percentile(50) / 1000
    return figures


def _per_message(cost: stages.Stage, messages: int) -> dict[str, float]:
    return {"micros": cost.nanoseconds / messages / 1000, "calls": cost.calls / messages}


def _plain(stage: Stage, system: System, workload: Workload, seconds: float) -> tuple[Outcome, float]:
    """The load, and processor microseconds a message."""
    with stage.fresh(system) as server:
        server.start()
        seat = stage.seat(system, server, workload)
        load = LOADS[workload.extra["load"]]
        load(seat, workload, WARM_UP_S)
        pids = [*server.pids, *stage.client_pids(system)]
        marks = []
        outcome = load(seat, workload, seconds, lambda: marks.append(processes.cpu_seconds(pids)))
        spent = processes.cpu_seconds(pids) - marks[0]
    return outcome, spent / outcome.messages * 1e6


def _traced(
    stage: Stage, system: System, workload: Workload, seconds: float
) -> tuple[Outcome, dict[str, stages.Stage], dict[str, stages.Stage]]:
    """The load, and the stages of clients and of the server while it ran."""
    twin = dataclasses.replace(system, name=f"{system.name}-traced", traced=True)
    with stage.fresh(twin) as server:
        server.start()
        seat = stage.seat(twin, server, workload)
        load = LOADS[workload.extra["load"]]
        load(seat, workload, WARM_UP_S)
        folders = [stage.client_stages(twin), server.stages]
        before: list[dict[str, stages.Stage]] = []
        outcome = load(seat, workload, seconds, lambda: before.extend(map(_read, folders)))
        time.sleep(WARM_UP_S)  # what the last turn noted after its answer
        client, worker = (
            stages.since(old, _read(folder)) for old, folder in zip(before, folders, strict=True)
        )
    return outcome, client, worker


def _read(folder: Path) -> dict[str, stages.Stage]:
    return stages.read(folder)
