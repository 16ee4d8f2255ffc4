"""Probes: workloads that are no stretch of load. PROBES maps a kind to its function."""

from __future__ import annotations

from collections.abc import Callable

from bench.probes.faults import after_kill, after_power_cut, worker_death
from bench.probes.footprint import idle, memory
from bench.probes.soak import soak
from bench.probes.stage import Stage
from bench.probes.stages import stage_costs
from bench.probes.start import start
from bench.result import Turn
from bench.systems import System
from bench.workload import Workload

PROBES: dict[str, Callable[[Stage, System, Workload, float], list[Turn]]] = {
    "start": start,
    "memory": memory,
    "idle": idle,
    "after-kill": after_kill,
    "after-power-cut": after_power_cut,
    "worker-death": worker_death,
    "stages": stage_costs,
    "soak": soak,
}
