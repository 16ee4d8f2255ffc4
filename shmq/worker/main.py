"""Entry point of a broker worker.

```text
What for       serves clients: appends their sends to the shared log, answers and holds their pulls
How it starts  spawned by the supervisor, which fills its slot before it may append; run(boot) is called by
               the child's first code (`supervisor/child.py`) and blocks until the worker has drained
How it ends    SIGTERM drains (`lifecycle.py`), a second one stops waiting; EOF on the supervisor pipe: at
               once
Its crash      costs its connections, never an acknowledged message: the supervisor repairs a claim it died
               in and starts another; clients connect again and resend with the same unique key
```
"""

from __future__ import annotations

import gc

import uvloop

from shmq.net.child_life import live
from shmq.shm.boot import ChildBoot
from shmq.worker.lifecycle import DRAIN, START
from shmq.worker.worker import Worker

GC_THRESHOLD = 50_000
"""Objects between two looks of the cycle collector: a worker makes few cycles, and each look is a pause."""


def run(boot: ChildBoot) -> None:
    """Serve until asked to stop."""
    gc.set_threshold(GC_THRESHOLD)
    uvloop.run(live("worker", lambda loop: Worker(boot, loop), START, DRAIN))
