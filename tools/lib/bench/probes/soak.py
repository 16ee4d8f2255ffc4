"""A long, steady load: does the memory of a broker's processes stay as it is?"""

from __future__ import annotations

import statistics
import threading
import time

from bench import processes
from bench.clients import run_together
from bench.probes.stage import Stage
from bench.result import Turn
from bench.systems import System
from bench.workload import Workload

MIB = 1 << 20
LOOKS = 240
"""Looks at the memory, evenly over the time."""


def soak(stage: Stage, system: System, workload: Workload, seconds: float) -> list[Turn]:
    """Memory without the files of the store, during an open loop of sends and a subscription.

    It takes `workload.length` turns. Compared are the second tenth of the time and the last one.
    The first is left out: caches fill.
    """
    length = seconds * workload.length
    with stage.fresh(system) as server:
        server.start()
        seat = stage.seat(system, server, workload)
        count = round(workload.rate * length)
        receiver = seat.job("receive", workload, length, count=count)
        sender = seat.job("paced", workload, length)
        looks: list[float] = []
        over = threading.Event()

        def look() -> None:
            while not over.wait(length / LOOKS):
                looks.append(processes.resident_bytes(server.pids) / MIB)

        looker = threading.Thread(target=look)
        began = time.monotonic()
        try:
            received, sent = run_together(
                [(seat.client(0), receiver), (seat.client(1), sender)], looker.start
            )
        finally:
            over.set()
        took = time.monotonic() - began
        looker.join()
    tenth = max(1, len(looks) // 10)
    early, late = statistics.median(looks[tenth : 2 * tenth]), statistics.median(looks[-tenth:])
    latency = {name: value / 1000 for name, value in received.latency.percentiles().items()}
    figures = {"rate": sent.messages / took, "memory": late, "growth": late - early, **latency}
    return [Turn(system.name, 0, figures, received.latency)]
