"""Entry point of a broker worker.

What for       serves clients: appends their sends to the shared log, answers and holds their pulls.
How it starts  spawned by the supervisor, which fills its slot before it may append; ``run(boot)`` is called
by the
               child's first code (``supervisor/child.py``) and blocks until the worker has drained.
How it ends    SIGTERM drains (``worker/lifecycle.py``), a second SIGTERM stops waiting; EOF on the
supervisor pipe
               leaves at once.
Its crash      costs its connections, never an acknowledged message: the supervisor repairs a claim it died
in and
               starts another; clients connect again and resend with the same unique key.
"""

from __future__ import annotations

import asyncio
import gc
import signal

import uvloop

from shmq.shm.boot import ChildBoot
from shmq.worker.lifecycle import DRAIN, START, run_steps
from shmq.worker.worker import Worker

GC_THRESHOLD = 50_000
"""Objects between two looks of the cycle collector: a worker makes few cycles, and each look is a pause."""


def run(boot: ChildBoot) -> None:
    """Serve until asked to stop."""
    uvloop.run(_serve(boot))


async def _serve(boot: ChildBoot) -> None:
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def asked_to_stop() -> None:
        (hurry if stop.is_set() else stop).set()

    loop.add_signal_handler(signal.SIGTERM, asked_to_stop)
    worker = Worker(boot, loop)
    await run_steps(START, worker, hurry)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    await stop.wait()
    await run_steps(DRAIN, worker, hurry)
