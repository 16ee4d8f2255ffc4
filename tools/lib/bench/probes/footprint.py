"""What a server takes when nobody asks for anything: memory, wake-ups, processor time."""

from __future__ import annotations

import time

from bench import processes
from bench.clients import run_together
from bench.loads import fill
from bench.probes.stage import Stage
from bench.result import Turn
from bench.systems import System
from bench.workload import Workload

MIB = 1 << 20
SOME_MESSAGES = 1_000
QUIET_S = 1.0
"""Between the last message and the measurement: caches settle, pollers go to sleep."""


def memory(stage: Stage, system: System, workload: Workload, seconds: float) -> list[Turn]:
    """Resident memory of all its processes after some messages, in MiB; store files and page cache not
    counted."""
    del seconds
    with stage.fresh(system) as server:
        server.start()
        fill(stage.seat(system, server, workload), workload, SOME_MESSAGES)
        time.sleep(QUIET_S)
        return [Turn(system.name, 0, {"memory": processes.resident_bytes(server.pids) / MIB})]


def idle(stage: Stage, system: System, workload: Workload, seconds: float) -> list[Turn]:
    """Wake-ups a second of its busiest process, and CPU of all, while nothing is asked of it.

    With `extra["consumers"]` so many consumers wait for messages; what they ask for once, after their start,
    is over after `extra["settle_s"]`. It is looked at for `workload.length` turns.
    """
    with stage.fresh(system) as server:
        server.start()
        seat = stage.seat(system, server, workload)
        consumers = workload.extra.get("consumers", 0)
        if not consumers:  # a thousand groups would be busy with those messages for minutes
            fill(seat, workload, SOME_MESSAGES)
        found: dict[str, float] = {}

        def look() -> None:
            time.sleep(workload.extra.get("settle_s", QUIET_S))
            before, cpu = processes.wakeups(server.pids), processes.cpu_seconds(server.pids)
            started = time.monotonic()
            time.sleep(seconds * workload.length)
            length = time.monotonic() - started
            after = processes.wakeups(server.pids)
            each = [(after[pid] - count) / length for pid, count in before.items() if pid in after]
            found["wakeups"] = max(each, default=0.0)
            found["cpu_percent"] = (processes.cpu_seconds(server.pids) - cpu) / length * 100

        if consumers:
            run_together([(seat.client(0), seat.job("hold", workload, 0.0, threads=consumers))], look)
        else:
            look()
        return [Turn(system.name, 0, found)]
