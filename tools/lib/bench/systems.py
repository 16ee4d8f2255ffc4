"""The systems: a server, the client library that drives it, and what the two are called together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import peers
from bench.durability import MEASURED, Durability
from bench.servers import rocketmq
from bench.servers.beanstalkd import BeanstalkdServer
from bench.servers.nats import NatsServer
from bench.servers.redis import RedisServer
from bench.servers.server import Server
from bench.servers.shmq import LargeLogServer, ShmqServer
from bench.servers.sqlite import SqliteServer

LARGE_LOG_BYTES = 100 << 30
ServerMaker = Callable[[Path, Durability, Path | None], Server]
"""Takes the folder for its files, the class, and the other source tree, if any."""


@dataclass(frozen=True, slots=True)
class System:
    """One competitor.

    server       key into SERVERS; systems with equal keys share one server. None: there is none
    driver       module of bench.drivers, or "java" for Apache RocketMQ's own Java client
    options      handed to the driver
    kinds        kinds of workload it takes part in; None: all
    classes      durability classes it has
    lacking      why it cannot run here, or None
    source       folder with another shmq package, for server and client
    traced       whether server and clients note their stages (see stages.py)
    """

    name: str
    title: str
    server: str | None
    driver: str
    options: dict[str, Any] = field(default_factory=dict)
    kinds: frozenset[str] | None = None
    classes: tuple[Durability, ...] = MEASURED
    lacking: Callable[[], str | None] = lambda: None
    source: Path | None = None
    traced: bool = False


def _needs_module(module: str) -> Callable[[], str | None]:
    return lambda: None if peers.python_module(module) else f"no Python module {module}: {peers.HOW}"


def _shmq(**settings: object) -> ServerMaker:
    return lambda folder, kind, source: ShmqServer(folder, kind, settings, source)


def _shmq_timed(folder: Path, kind: Durability, source: Path | None) -> Server:
    """For the one ratio that is asked for between classes: what a synced acknowledgement costs."""
    del kind
    return ShmqServer(folder, Durability.TIMED, None, source)


def _shmq_large(folder: Path, kind: Durability, source: Path | None) -> Server:
    return LargeLogServer(folder, kind, LARGE_LOG_BYTES, source)


def _peer(server_class: type[Server]) -> ServerMaker:
    return lambda folder, kind, source: server_class(folder, kind)


SERVERS: dict[str, ServerMaker] = {
    "shmq": _shmq(),
    "shmq-asleep": _shmq(busyPollMicros=0),
    "shmq-1-worker": _shmq(brokerWorkers=1),
    "shmq-async": _shmq_timed,
    "shmq-small-segments": _shmq(mappedFileSizeCommitLog=16 << 20),
    "shmq-100-gib": _shmq_large,
    "redis": _peer(RedisServer),
    "rocketmq": _peer(rocketmq.RocketmqServer),
    "nats": _peer(NatsServer),
    "beanstalkd": _peer(BeanstalkdServer),
    "sqlite": _peer(SqliteServer),
}
JAVA = "java"
"""The driver that is no Python module: RocketMQ's own client."""
PRODUCING = frozenset({"send", "stream", "batch", "paced"})
READING = frozenset({"pull", "consume"})
BARE = PRODUCING | {"pull", "latency"}
SERVER_ONLY = frozenset({"memory", "start", "idle"})
ANY = PRODUCING | READING | SERVER_ONLY | {"latency"}
"""What a peer without RocketMQ's model can be asked for."""

_ALL = (
    System("shmq", "shmq, its Python client, Unix socket", "shmq", "shmq"),
    System(
        "shmq-asleep",
        "the same, nobody spins or polls for an answer",
        "shmq-asleep",
        "shmq",
        {"asleep": True},
    ),
    System(
        "shmq-direct",
        "the same, reading through maps of the store",
        "shmq",
        "shmq",
        {"direct": True},
        READING,
    ),
    System("shmq-1-worker", "the same with one worker process", "shmq-1-worker", "shmq"),
    System("shmq-async", "the same under ASYNC_FLUSH, whatever the class", "shmq-async", "shmq"),
    System("shmq-small-segments", "the same with log segments of 16 MiB", "shmq-small-segments", "shmq"),
    System("shmq-100-gib", "the same behind 100 GiB of synthetic log", "shmq-100-gib", "shmq"),
    System("shmq-java", "shmq's TCP front, RocketMQ's Java client", "shmq", JAVA, lacking=rocketmq.lacking),
    System("rocketmq", "Apache RocketMQ, its Java client", "rocketmq", JAVA, lacking=rocketmq.lacking),
    System(
        "rocketmq-python",
        "Apache RocketMQ, shmq's Python client",
        "rocketmq",
        "shmq",
        lacking=rocketmq.lacking,
    ),
    System("redis", "Redis Streams, redis-py, Unix socket", "redis", "redis", lacking=_needs_module("redis")),
    System(
        "redis-benchmark",
        "Redis Streams, its own C load generator",
        "redis",
        "redis_benchmark",
        kinds=frozenset({"batch"}),
        lacking=lambda: None if peers.program("redis-benchmark") else f"no redis-benchmark: {peers.HOW}",
    ),
    System("nats", "NATS JetStream, nats-py", "nats", "nats", kinds=ANY, lacking=_needs_module("nats")),
    System(
        "beanstalkd",
        "beanstalkd, greenstalk, Unix socket",
        "beanstalkd",
        "beanstalkd",
        kinds=PRODUCING | SERVER_ONLY | {"latency"},
        lacking=_needs_module("greenstalk"),
    ),
    System(
        "sqlite",
        "SQLite in WAL mode, sqlite3, no server",
        "sqlite",
        "sqlite",
        kinds=ANY - {"memory", "start", "idle"},
    ),
    System(
        "bare",
        "this machine's limits (see drivers/bare.py)",
        None,
        "bare",
        kinds=PRODUCING | {"pull", "latency"},
    ),
)
PEERS = ("nats", "beanstalkd", "sqlite")
"""Systems that take part only when asked for by --peer."""
SYSTEMS = {system.name: system for system in _ALL}
