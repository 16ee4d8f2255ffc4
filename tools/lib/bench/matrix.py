"""FULL: the rest of the matrix, run by hand: every size, number of queues, clients, rate; filters; special
messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.catalogue import BACKLOG, ENGINES, KIB, LOG_GIB_MESSAGES, RIVALS, SYNCED
from bench.durability import MEASURED, Durability
from bench.goals import Goal
from bench.workload import Workload

SIZES = (128, KIB, 64 * KIB)
QUEUES = (1, 16, 1_000, 10_000)
CLIENTS = (1, 2, 4, 8, 16, 32, 64)
RATES = (500, 1_000, 2_000, 5_000, 10_000, 20_000)
STORED = (0, LOG_GIB_MESSAGES, 10 * LOG_GIB_MESSAGES)
IDLE_CONSUMERS = 1_000
TIMED = (Durability.TIMED,)
RESTART = Workload(
    "restart", "restart with a log of 10 GiB", "after-kill", ("shmq",), "seconds", count=STORED[-1]
)

SEND = Workload("send", "sync send", "send", ("shmq", *RIVALS), classes=MEASURED)
BATCH = Workload("batch", "batches of 1,000", "batch", ("shmq", *RIVALS), classes=MEASURED)
SMALL_BATCH = replace(BATCH, title="batches of 100", batch=100)
READ = Workload("read", "reading a topic", "pull", ("shmq", "shmq-direct", *RIVALS), count=BACKLOG)
CONSUME = Workload("consume", "consuming a backlog", "consume", ("shmq-direct", *RIVALS), count=BACKLOG)
ACK = Workload("ack", "acknowledgement, open loop", "paced", ("shmq", *RIVALS), "p99", classes=MEASURED)
AGE = Workload("age", "end to end, open loop", "latency", ("shmq", *RIVALS), "p99")
STORE = Workload("stored", "sync send", "send-stored", ENGINES)
SHARED = Workload(
    "shared",
    "one group's consumers beside a batch producer",
    "shared",
    ("shmq", "redis", "rocketmq-python"),
    count=BACKLOG,
    queues=64,
    batch=500,
)
LARGE = ("shmq", "shmq-100-gib")
CROWD = Workload("crowd", "sync send", "crowd", ("shmq",))
TEN_GIB = replace(READ, count=10 * LOG_GIB_MESSAGES, systems=("shmq", "shmq-direct", "rocketmq"))


def _sweep(name: str, axis: str, base: Workload, field: str, values: Sequence[int]) -> tuple[Workload, ...]:
    """The same workload at several sizes, drawn as one curve."""
    rows = []
    for value in values:
        row = replace(base, name=f"{name}-{value}", title=f"{base.title}, {axis}: {value:,}", goals=())
        # A logarithmic axis has no 0: an empty store is drawn at 1.
        sweep = (f"{base.title} against {axis}", float(value or 1))
        rows.append(replace(row, sweep=sweep, **{field: value}))  # type: ignore[arg-type]
    return tuple(rows)


def _filters() -> tuple[Workload, ...]:
    """Messages in two parts, of which a filter passes one."""
    rows = []
    for kind, expression in (("tag", "TagA"), ("sql", "part = 'TagA'")):
        for percent in (1, 50):
            rows.append(
                Workload(
                    f"filter-{kind}-{percent}",
                    f"reading through a {kind} filter that passes {percent} %; messages looked at",
                    "pull",
                    ("shmq", "shmq-direct", "rocketmq"),
                    count=BACKLOG,
                    options={"percent": percent, "filter": expression, "filter_kind": kind},
                )
            )
    return tuple(rows)


FULL: tuple[Workload, ...] = (
    *_sweep("send-size", "body bytes", SEND, "body_bytes", SIZES),
    *_sweep("batch-size", "body bytes", replace(BATCH, title="batches of 16", batch=16), "body_bytes", SIZES),
    *_sweep("read-size", "body bytes", replace(READ, batch=16, count=20_000), "body_bytes", SIZES),
    *_sweep("send-queues", "queues", SEND, "queues", QUEUES),
    *_sweep("batch-queues", "queues", SMALL_BATCH, "queues", QUEUES),
    *_sweep("send-clients", "producers", SEND, "threads", CLIENTS),
    *_sweep("batch-clients", "producers", BATCH, "threads", (1, 2, 4)),
    *_sweep("consume-groups", "groups that read the same", CONSUME, "threads", (1, 2, 10)),
    *_sweep("consumers", "consumers", SHARED, "threads", (1, 4, 16, 64)),
    *_sweep("ack-rate", "messages a second", ACK, "rate", RATES),
    *_sweep("age-rate", "messages a second", AGE, "rate", RATES),
    *_sweep("stored", "messages in the store", STORE, "count", STORED),
    replace(
        SEND, name="send-100", title="sync send behind 100 GiB of synthetic log", systems=LARGE, classes=TIMED
    ),
    replace(
        BATCH, name="batch-100", title="batches behind 100 GiB of synthetic log", systems=LARGE, classes=TIMED
    ),
    *_sweep("connections", "idle connections", CROWD, "count", (1, 100, 1_000)),
    replace(TEN_GIB, name="backlog-hot", title="backlog of 10 GiB, cached where memory allows"),
    replace(
        TEN_GIB,
        name="backlog-cold",
        title="backlog of 10 GiB, from the disk",
        kind="pull-cold",
        systems=("shmq", "shmq-direct"),
    ),
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
    *_filters(),
    replace(
        CONSUME, name="orderly", title="a backlog consumed in order", options={"orderly": True}, queues=4
    ),
    replace(
        AGE,
        name="delayed",
        title="lateness after a delay of 1 s",
        systems=ENGINES,
        rate=200,
        options={"delay_s": 1},
    ),
    replace(
        SEND,
        name="transaction",
        title="transactional sends",
        systems=ENGINES,
        classes=(Durability.TIMED, Durability.SYNCED),
        options={"transaction": True},
    ),
    replace(
        SEND,
        name="sync-flush-8",
        title="SYNC_FLUSH: sync send, 8 producers",
        classes=SYNCED,
        body_bytes=KIB,
        threads=8,
    ),
    replace(
        SEND,
        name="sync-flush-naming",
        title="SYNC_FLUSH: sync send while four clients ask the name server for routes",
        kind="send-beside-routes",
        classes=SYNCED,
        systems=("shmq", "rocketmq-python"),
        body_bytes=KIB,
        count=4,
    ),
    Workload(
        "soak",
        "an hour of 500 messages a second, sent and consumed: memory",
        "soak",
        ("shmq",),
        "growth",
        rate=500,
        once=True,
        goals=(Goal("shmq", "growth", "<=", 5, unit=" MiB"),),
    ),
    Workload(
        "idle-consumers",
        f"an idle broker with {IDLE_CONSUMERS:,} consumers waiting",
        "idle",
        ("shmq",),
        "cpu_percent",
        extra={"consumers": IDLE_CONSUMERS},
        goals=(Goal("shmq", "cpu_percent", "<", 0.5, unit=" %"),),
    ),
)
