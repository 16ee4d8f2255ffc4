"""TARGETS: the workloads the project promises something about, with its goals. The rest is in matrix.py."""

from __future__ import annotations

from bench.durability import Durability
from bench.goals import Goal
from bench.workload import Workload

SYNCED = (Durability.SYNCED,)
RIVALS = ("redis", "rocketmq")
SENDING = ("shmq", *RIVALS, "rocketmq-python", "shmq-java", "bare")
ENGINES = ("shmq", "rocketmq")
KIB = 1 << 10
STREAM_IN_FLIGHT = 8_192
BACKLOG = 200_000
LOG_GIB_MESSAGES = 2_500_000
"""Messages of 256 B with their properties that make about one GiB of CommitLog."""


def _flush_rows() -> tuple[Workload, ...]:
    return (
        Workload(
            "sync-flush",
            "SYNC_FLUSH: sync send, one producer",
            "send",
            SENDING,
            classes=SYNCED,
            body_bytes=KIB,
            goals=(
                Goal("shmq", "p50", "<=", 1.6, "bare"),
                Goal("shmq", "rate", ">=", 5, "rocketmq"),
            ),
        ),
        Workload(
            "sync-flush-64",
            "SYNC_FLUSH: sync send, 64 producers",
            "send",
            ("shmq", "shmq-async", *RIVALS),
            classes=SYNCED,
            body_bytes=KIB,
            threads=64,
            goals=(
                Goal("shmq", "rate", ">=", 0.6, "shmq-async"),
                Goal("shmq", "rate", ">=", 5, "rocketmq"),
            ),
        ),
        Workload(
            "sync-flush-batch",
            "SYNC_FLUSH: batches of 1,000 x 1 KiB, one producer",
            "batch",
            ("shmq", "redis", "redis-benchmark", "rocketmq"),
            classes=SYNCED,
            body_bytes=KIB,
            goals=(
                Goal("shmq", "rate", ">=", 1, "redis-benchmark"),
                Goal("shmq", "rate", ">=", 5, "rocketmq"),
            ),
        ),
        Workload(
            "sync-flush-roll",
            "SYNC_FLUSH: 64 KiB bodies, a new log segment every second or so",
            "paced",
            ("shmq-small-segments",),
            "p99",
            classes=SYNCED,
            body_bytes=64 * KIB,
            rate=250,
            goals=(Goal("shmq-small-segments", "p99", "<=", 10_000, unit=" us"),),
        ),
    )


TARGETS: tuple[Workload, ...] = (
    Workload(
        "sync",
        "sync send, one producer",
        "send",
        ("shmq", "shmq-asleep", *SENDING[1:]),
        goals=(
            Goal("shmq-asleep", "p50", "<=", 1.4, "bare"),
            Goal("shmq-asleep", "rate", ">=", 1.5, "redis"),
            Goal("shmq", "p50", "<=", 0.6, "bare"),
            Goal("shmq", "rate", ">=", 3, "redis"),
            Goal("shmq", "rate", ">=", 8, "rocketmq"),
            Goal("shmq-java", "rate", ">=", 1, "rocketmq"),
        ),
    ),
    Workload(
        "async",
        "async send, one producer (Redis: pipelines of 100)",
        "stream",
        SENDING,
        in_flight=STREAM_IN_FLIGHT,
        goals=(
            Goal("shmq", "rate", ">=", 3, "redis"),
            Goal("shmq", "rate", ">=", 5, "rocketmq"),
            Goal("shmq-java", "rate", ">=", 1, "rocketmq"),
        ),
    ),
    Workload(
        "batch",
        "batches of 1,000, two in flight (Redis: pipelines of 1,000)",
        "batch",
        SENDING,
        goals=(
            Goal("shmq", "rate", ">=", 1_000_000, unit="/s"),
            Goal("shmq", "rate", ">=", 6, "redis"),
            Goal("shmq", "rate", ">=", 3, "rocketmq"),
            Goal("shmq-java", "rate", ">=", 1, "rocketmq"),
        ),
    ),
    Workload(
        "pull",
        "reading a topic, 1,000 a call",
        "pull",
        ("shmq", "shmq-direct", *RIVALS, "shmq-java", "bare"),
        count=BACKLOG,
        goals=(
            Goal("shmq", "rate", ">=", 1, "redis"),
            Goal("shmq-direct", "rate", ">=", 1.5, "redis"),
        ),
    ),
    Workload(
        "consume",
        "a new group's backlog through a subscription, acknowledged",
        "consume",
        ("shmq-direct", *RIVALS, "shmq-java"),
        count=BACKLOG,
        goals=(
            Goal("shmq-direct", "rate", ">=", 4, "rocketmq"),
            Goal("shmq-java", "rate", ">=", 1, "rocketmq"),
        ),
    ),
    Workload(
        "latency",
        "end to end, idle consumer woken, open loop of 200 a second",
        "latency",
        ("shmq", *RIVALS, "bare"),
        "p50",
        rate=200,
        goals=(Goal("shmq", "p50", "<=", 2.5, "bare"), Goal("shmq", "p99", "<", 1_000, unit=" us")),
    ),
    Workload(
        "many-clients",
        "sync send, 16 producers",
        "send",
        ("shmq", "shmq-1-worker", *RIVALS),
        threads=16,
        goals=(Goal("shmq", "rate", ">=", 1, "shmq-1-worker"),),
    ),
    Workload(
        "large",
        "1 GiB in batches of 16 x 64 KiB, two in flight",
        "batch",
        ("shmq", *RIVALS),
        "bytes_s",
        body_bytes=64 * KIB,
        batch=16,
        count=16 * KIB,
        goals=(Goal("shmq", "bytes_s", ">=", 1.5e9, unit=" B/s"),),
    ),
    Workload(
        "start",
        "start on an empty store to first acknowledged send",
        "start",
        ("shmq", *RIVALS),
        "seconds",
        goals=(Goal("shmq", "seconds", "<", 1, unit=" s"), Goal("shmq", "seconds", "<=", 0.5, "rocketmq")),
    ),
    Workload(
        "memory",
        "resident memory after 1,000 messages, store files not counted",
        "memory",
        ("shmq", *RIVALS),
        "memory",
        goals=(
            Goal("shmq", "memory", "<", 150, unit=" MiB"),
            Goal("shmq", "memory", "<=", 0.1, "rocketmq"),
        ),
    ),
    Workload(
        "idle",
        "wake-ups and processor time while nothing happens",
        "idle",
        ("shmq", *RIVALS),
        "wakeups",
        goals=(Goal("shmq", "wakeups", "<=", 2, unit="/s"),),
    ),
    Workload(
        "restart-kill",
        "restart with a log of 1 GiB after kill -9 of all",
        "after-kill",
        ("shmq",),
        "seconds",
        count=LOG_GIB_MESSAGES,
        goals=(Goal("shmq", "seconds", "<", 2, unit=" s"),),
    ),
    Workload(
        "restart-power",
        "restart with a log of 1 GiB after a power cut (shared page and cached store gone)",
        "after-power-cut",
        ("shmq",),
        "seconds",
        count=LOG_GIB_MESSAGES,
        goals=(Goal("shmq", "seconds", "<", 10, unit=" s"),),
    ),
    Workload(
        "worker-death",
        "longest wait of a sender around a worker's death, 500 a second",
        "worker-death",
        ("shmq",),
        "p99",
        rate=500,
        options={"retried": True},
        goals=(Goal("shmq", "p99", "<=", 50_000, unit=" us"),),
    ),
    Workload(
        "stages",
        "where a sync send's time goes, one producer, nobody spins; and the model for more cores",
        "stages",
        ("shmq-asleep",),
        "micros",
        extra={"load": "send"},
    ),
    Workload(
        "stages-batch",
        "where a message of a batch of 1,000 has its time; and the model for more cores",
        "stages",
        ("shmq-asleep",),
        "micros",
        extra={"load": "batch"},
    ),
    *_flush_rows(),
)
