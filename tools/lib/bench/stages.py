"""Reading what tracing/sitecustomize.py left: how often each stage ran, and how long it took; and the model
on paper that follows from it for more cores than this machine has.
"""

from __future__ import annotations

import importlib.util
import struct
from dataclasses import dataclass
from pathlib import Path

HOOK = Path(__file__).parent / "tracing"
MODEL_CORES = (4, 16, 64)


def _hook_module() -> tuple[tuple[str, ...], str, str]:
    """Names from the hook, which cannot be imported by its own name: Python may have one of its own."""
    spec = importlib.util.spec_from_file_location("bench_stage_hook", HOOK / "sitecustomize.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NAMES, module.LOCK_HELD, module.OVERHEAD


NAMES, LOCK_HELD, OVERHEAD = _hook_module()


@dataclass(frozen=True, slots=True)
class Stage:
    """How often a stage ran, and nanoseconds of all its runs, what it called included."""

    calls: int = 0
    nanoseconds: int = 0


def environment(folder: Path) -> dict[str, str]:
    """What a process needs so that its stages are noted in `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return {"SHMQ_BENCH_STAGES": str(folder)}


def read(folder: Path) -> dict[str, Stage]:
    """The sums of all processes that noted stages in `folder`, dead ones included."""
    totals = [0] * (2 * len(NAMES))
    for path in folder.iterdir():
        words = struct.unpack(f"{len(totals)}q", path.read_bytes())
        totals = [total + word for total, word in zip(totals, words, strict=True)]
    return {name: Stage(*totals[2 * place : 2 * place + 2]) for place, name in enumerate(NAMES)}


def since(before: dict[str, Stage], after: dict[str, Stage]) -> dict[str, Stage]:
    """What happened between two readings; the calibration of tracing is as it was."""
    return {
        name: Stage(stage.calls - before[name].calls, stage.nanoseconds - before[name].nanoseconds)
        if name != OVERHEAD
        else stage
        for name, stage in after.items()
    }


@dataclass(frozen=True, slots=True)
class Model:
    """What more cores would give, if nothing but cores and the append lock bounded it.

    cpu_us    processor time of a message, server and client together, on one core
    lock_us   how long the append lock is held for a message
    A host of n cores carries n / cpu_us messages a microsecond until the lock is held all the time: 1 /
    lock_us. Memory bandwidth, the disk and shared caches are left out: the model is an upper bound.
    """

    cpu_us: float
    lock_us: float

    def rate(self, cores: int) -> float:
        """Messages a second on so many cores."""
        return min(cores / self.cpu_us, 1 / self.lock_us) * 1e6

    def lock_share(self, cores: int) -> float:
        """The part of the time that the lock is held at that rate."""
        return self.rate(cores) * self.lock_us / 1e6

    @property
    def saturation_cores(self) -> float:
        """From so many cores on the lock is the bound, and more cores give nothing."""
        return self.cpu_us / self.lock_us
