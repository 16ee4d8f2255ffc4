"""From starting a server on an empty store to the first acknowledged send of a client that is already
running."""

from __future__ import annotations

import time

from bench.probes.stage import Stage, first_send
from bench.result import Turn
from bench.systems import System
from bench.workload import Workload


def start(stage: Stage, system: System, workload: Workload, seconds: float) -> list[Turn]:
    """Start it once; `seconds` does not matter."""
    del seconds
    stage.client(system, 0)  # the client's own start is not part of it
    with stage.fresh(system) as server:
        started = time.perf_counter()
        server.start()
        first_send(stage.seat(system, server, workload), workload)
        return [Turn(system.name, 0, {"seconds": time.perf_counter() - started})]
