"""Entry point of the coordinator.

```text
What for       everything rare, or that only one process may decide: topics and groups, membership,
               queue locks, persisted offsets, registration at name servers, reader grants, key index
How it starts  spawned by the supervisor; run(boot) is called by the child's first code, and blocks
How it ends    SIGTERM (`lifecycle.py`); a second one stops waiting; EOF on the supervisor pipe: at once
Its crash      known topics and groups keep working, new ones wait; the next coordinator reads files and
               page, and hears from every worker what it holds before it answers for membership
```
"""

from __future__ import annotations

import uvloop

from shmq.coordinator.coordinator import Coordinator
from shmq.coordinator.lifecycle import START, STOP
from shmq.net.child_life import live
from shmq.shm.boot import ChildBoot


def run(boot: ChildBoot) -> None:
    """Serve until asked to stop."""
    uvloop.run(live("coordinator", lambda loop: Coordinator(boot, loop), START, STOP))
