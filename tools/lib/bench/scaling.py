"""SCALING: what must not cost more as it grows: queues, log, store, connections, hours, idle consumers."""

from __future__ import annotations

from dataclasses import replace

from bench.catalogue import ENGINES, LOG_GIB_MESSAGES
from bench.durability import Durability
from bench.goals import Goal
from bench.matrix import BATCH, SEND
from bench.workload import Workload, sweep

QUEUES = (1, 16, 1_000, 10_000)
STORED = (0, LOG_GIB_MESSAGES, 10 * LOG_GIB_MESSAGES)
IDLE_CONSUMERS = 1_000
IDLE_SETTLE_S = 160.0
"""By then each has begun to rest, and what it opened for its start was closed."""
TIMED = (Durability.TIMED,)
LARGE = ("shmq", "shmq-100-gib")
CROWD = Workload("crowd", "sync send", "crowd", ("shmq",))
SMALL_BATCH = replace(BATCH, title="batches of 100", batch=100)
STORE = Workload("stored", "sync send", "send-stored", ENGINES)
RESTART = Workload(
    "restart", "restart with a log of 10 GiB", "after-kill", ("shmq",), "seconds", count=STORED[-1]
)


SCALING: tuple[Workload, ...] = (
    *sweep("send-queues", "queues", SEND, "queues", QUEUES),
    *sweep("batch-queues", "queues", SMALL_BATCH, "queues", QUEUES),
    *sweep("stored", "messages in the store", STORE, "count", STORED),
    replace(
        SEND, name="send-100", title="sync send behind 100 GiB of synthetic log", systems=LARGE, classes=TIMED
    ),
    replace(
        BATCH, name="batch-100", title="batches behind 100 GiB of synthetic log", systems=LARGE, classes=TIMED
    ),
    *sweep("connections", "idle connections", CROWD, "count", (1, 100, 1_000)),
    replace(
        RESTART,
        name="restart-kill-10",
        title="restart with a log of 10 GiB after kill -9 of all",
        goals=(Goal("shmq", "seconds", "<", 2, unit=" s"),),
    ),
    replace(
        RESTART,
        name="restart-power-10",
        title="restart with a log of 10 GiB after a power cut",
        kind="after-power-cut",
        goals=(Goal("shmq", "seconds", "<", 10, unit=" s"),),
    ),
    replace(
        RESTART,
        name="restart-kill-100",
        title="restart behind 100 GiB of synthetic log after kill -9 of all",
        systems=("shmq-100-gib",),
        count=1_000,
        goals=(Goal("shmq-100-gib", "seconds", "<", 2, unit=" s"),),
    ),
    replace(
        RESTART,
        name="restart-power-100",
        title="restart behind 100 GiB of synthetic log after a power cut",
        kind="after-power-cut",
        systems=("shmq-100-gib",),
        count=1_000,
        goals=(Goal("shmq-100-gib", "seconds", "<", 10, unit=" s"),),
    ),
    Workload(
        "soak",
        "an hour of 500 messages a second, sent and consumed: memory",
        "soak",
        ("shmq",),
        "growth",
        rate=500,
        length=720,  # an hour, where a turn has five seconds
        once=True,
        goals=(Goal("shmq", "growth", "<=", 5, unit=" MiB"),),
    ),
    Workload(
        "idle-consumers",
        f"an idle broker with {IDLE_CONSUMERS:,} consumers of four queues each waiting",
        "idle",
        ("shmq",),
        "cpu_percent",
        queues=4,
        extra={"consumers": IDLE_CONSUMERS, "settle_s": IDLE_SETTLE_S},
        length=80,  # some 400 s: a client waits for two minutes, and asks some things every five
        once=True,
        goals=(Goal("shmq", "cpu_percent", "<", 0.5, unit=" %"),),
    ),
)
