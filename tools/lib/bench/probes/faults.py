"""What a death costs shmq: a restart after all processes died, or after a power cut; a worker's death under
load."""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil

from bench import processes
from bench.clients import run_together
from bench.load.job import LoadFailed
from bench.loads import fill
from bench.probes.stage import Stage, first_send
from bench.result import Turn
from bench.servers.shmq import ShmqServer
from bench.systems import System
from bench.workload import Workload
from histogram import Histogram

WORKER_TITLE = "shmq: worker"
KILL_AFTER_S = 0.2
STRETCH_S = 0.6
"""Paced load around one kill."""


def after_kill(stage: Stage, system: System, workload: Workload, seconds: float) -> list[Turn]:
    """All processes of a broker with `count` messages killed at once, then started: until the first
    answer."""
    return _restart(stage, system, workload, ["kill"])


def after_power_cut(stage: Stage, system: System, workload: Workload, seconds: float) -> list[Turn]:
    """The same, and the shared page and the cached store are lost, too, as at a power cut."""
    return _restart(stage, system, workload, ["kill", "forget"])


def _restart(stage: Stage, system: System, workload: Workload, orders: list[str]) -> list[Turn]:
    with stage.fresh(system) as server:
        assert isinstance(server, ShmqServer)
        server.start()
        seat = stage.seat(system, server, workload)
        fill(seat, workload, workload.count)
        for order in orders:
            server.order(order)
        started = time.perf_counter()
        server.order("start")
        seat.address = server.address
        first_send(seat, workload)
        return [Turn(system.name, 0, {"seconds": time.perf_counter() - started})]


def worker_death(stage: Stage, system: System, workload: Workload, seconds: float) -> list[Turn]:
    """Workers killed one after the other under paced load: the longest wait of a send around each kill.

    Half of the kills, about, hit the worker that serves the sender: its reconnection is part of the pause.
    """
    pauses = Histogram()
    with stage.fresh(system) as server:
        server.start()
        seat = stage.seat(system, server, workload)
        job = seat.job("paced", workload, STRETCH_S)
        run_together([(seat.client(0), job)])
        for number in range(max(1, round(seconds / STRETCH_S))):
            victim = _worker(server.pids[0], number)
            killer = threading.Timer(KILL_AFTER_S, os.kill, (victim, signal.SIGKILL))
            (outcome,) = run_together([(seat.client(0), job)], killer.start)
            killer.join()
            pauses.record(outcome.latency.percentile(100))
    micros = {name: value / 1000 for name, value in pauses.percentiles().items()}
    return [Turn(system.name, 0, micros, pauses)]


def _worker(supervisor: int, number: int) -> int:
    """The pid of a worker process, another one for the next number."""
    workers = sorted(
        child.pid for child in processes.tree([supervisor]) if _title(child).startswith(WORKER_TITLE)
    )
    if not workers:
        raise LoadFailed(f"no process of the broker has a title that begins with {WORKER_TITLE!r}")
    return int(workers[number % len(workers)])


def _title(process: psutil.Process) -> str:
    """The first word of its command line, which a process that names itself writes; empty when it is gone."""
    try:
        return str(next(iter(process.cmdline()), ""))
    except psutil.Error:
        return ""
