"""FULL: the rest of the matrix, run by hand: sizes, clients, rates; filters; special messages."""

from __future__ import annotations

from dataclasses import replace

from bench.catalogue import BACKLOG, ENGINES, KIB, LOG_GIB_MESSAGES, RIVALS, SYNCED
from bench.durability import MEASURED, Durability
from bench.workload import Workload, sweep

SIZES = (128, KIB, 64 * KIB)
CLIENTS = (1, 2, 4, 8, 16, 32, 64)
RATES = (500, 1_000, 2_000, 5_000, 10_000, 20_000)
TIMED = (Durability.TIMED,)

SEND = Workload("send", "sync send", "send", ("shmq", *RIVALS), classes=MEASURED)
BATCH = Workload("batch", "batches of 1,000", "batch", ("shmq", *RIVALS), classes=MEASURED)
READ = Workload("read", "reading a topic", "pull", ("shmq", "shmq-direct", *RIVALS), count=BACKLOG)
CONSUME = Workload("consume", "consuming a backlog", "consume", ("shmq-direct", *RIVALS), count=BACKLOG)
ACK = Workload("ack", "acknowledgement, open loop", "paced", ("shmq", *RIVALS), "p99", classes=MEASURED)
AGE = Workload("age", "end to end, open loop", "latency", ("shmq", *RIVALS), "p99")
SHARED = Workload(
    "shared",
    "one group's consumers beside a batch producer",
    "shared",
    ("shmq", "redis", "rocketmq-python"),
    count=BACKLOG,
    queues=64,
    batch=500,
)
TEN_GIB = replace(READ, count=10 * LOG_GIB_MESSAGES, systems=("shmq", "shmq-direct", "rocketmq"))


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
    *sweep("send-size", "body bytes", SEND, "body_bytes", SIZES),
    *sweep("batch-size", "body bytes", replace(BATCH, title="batches of 16", batch=16), "body_bytes", SIZES),
    *sweep("read-size", "body bytes", replace(READ, batch=16, count=20_000), "body_bytes", SIZES),
    *sweep("send-clients", "producers", SEND, "threads", CLIENTS),
    *sweep("batch-clients", "producers", BATCH, "threads", (1, 2, 4)),
    *sweep("consume-groups", "groups that read the same", CONSUME, "threads", (1, 2, 10)),
    *sweep("consumers", "consumers", SHARED, "threads", (1, 4, 16, 64)),
    *sweep("ack-rate", "messages a second", ACK, "rate", RATES),
    *sweep("age-rate", "messages a second", AGE, "rate", RATES),
    replace(TEN_GIB, name="backlog-hot", title="backlog of 10 GiB, cached where memory allows"),
    replace(
        TEN_GIB,
        name="backlog-cold",
        title="backlog of 10 GiB, from the disk",
        kind="pull-cold",
        systems=("shmq", "shmq-direct"),
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
)
