"""The kinds of load: how a workload becomes jobs for client processes. LOADS maps a kind to its function."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.clients import ClientProcess, run_together
from bench.load.job import Job, Outcome
from bench.servers.server import Server
from bench.servers.shmq import ShmqServer
from bench.workload import Workload

Started = Callable[[], object]
"""Called when a turn's load begins, and where clearing up is work, too, again when it ends."""
FILL_RATE_LEAST = 10_000
"""A system that fills a topic more slowly, in messages a second, is taken for stuck."""
TOUCH_LIMIT_S = 120.0
CROWD_SETTLE_S = 5.0
"""A thousand clients are idle only after their first heartbeats, a second after their start."""


@dataclass(slots=True)
class Seat:
    """A system's place at one workload: its topic, where its server is, and its client processes by number.

    `filled` remembers how many messages the topic got for the kinds that read a backlog. `server` is the
    server's end, for the kinds that must do something to it.
    """

    system: str
    topic: str
    address: dict[str, str]
    options: dict[str, Any]
    client: Callable[[int], ClientProcess]
    server: Server | None = None
    filled: int = 0

    def job(self, work: str, workload: Workload, seconds: float, **changes: Any) -> Job:
        """A job with the workload's sizes."""
        facts: dict[str, Any] = {
            "work": work,
            "topic": self.topic,
            "address": self.address,
            "options": self.options,
            "seconds": seconds,
            "body_bytes": workload.body_bytes,
            "queues": workload.queues,
            "threads": workload.threads,
            "batch": workload.batch,
            "in_flight": workload.in_flight,
            "rate": workload.rate,
            "count": 0,
        }
        return Job(**{**facts, **changes})


def fill(seat: Seat, workload: Workload, count: int, topic: str | None = None) -> None:
    """Write so many messages in batches, to the seat's topic or another."""
    limit_s = 1.0 + count / FILL_RATE_LEAST
    facts: dict[str, Any] = {
        "count": count,
        "batch": min(count, workload.batch),
        "threads": 1,
        "in_flight": 2,
    }
    job = seat.job("batch", workload, limit_s, topic=topic or seat.topic, **facts)
    run_together([(seat.client(0), job)])


def _nothing() -> None:
    return None


def _touch(seat: Seat, workload: Workload) -> None:
    """Send one message to each queue: the first one makes its files, once."""
    if workload.queues > 1 and seat.address and not seat.filled:
        seat.filled = workload.queues
        facts: dict[str, Any] = {"count": workload.queues, "batch": 1, "threads": 1, "in_flight": 2}
        run_together([(seat.client(0), seat.job("batch", workload, TOUCH_LIMIT_S, **facts))])


def _senders(work: str) -> Callable[[Seat, Workload, float, Started], Outcome]:
    """Producers only: their threads divided among at most as many client processes as there are cores."""

    def run(seat: Seat, workload: Workload, seconds: float, started: Started = _nothing) -> Outcome:
        _touch(seat, workload)
        processes = min(workload.threads, len(os.sched_getaffinity(0)))
        shares = [len(range(number, workload.threads, processes)) for number in range(processes)]
        jobs = []
        for number, share in enumerate(shares):
            rate = workload.rate * share / workload.threads
            job = seat.job(work, workload, seconds, threads=share, rate=rate, count=workload.count)
            jobs.append((seat.client(number), job))
        return _joined(run_together(jobs, started))

    return run


def _latency(seat: Seat, workload: Workload, seconds: float, started: Started = _nothing) -> Outcome:
    """An open-loop sender in one process, a consumer in another; latency from intended send to listener.

    Without a server there is nothing to consume: the bare limit is a round trip at the same pace.
    """
    if not seat.address:
        return _senders("paced")(seat, workload, seconds, started)
    count = round(workload.rate * seconds)
    seat.filled += 1  # each turn has a topic of its own: what a turn left over is not the next one's
    topic = f"{seat.topic}T{seat.filled}"
    receiver = seat.job("receive", workload, seconds, topic=topic, count=count)
    sender = seat.job("paced", workload, seconds, topic=topic)
    received, sent = run_together([(seat.client(0), receiver), (seat.client(1), sender)], started)
    received.seconds = sent.seconds
    return received


def _shared(seat: Seat, workload: Workload, seconds: float, started: Started = _nothing) -> Outcome:
    """`threads` consumers of one group, queues shared out among them, take what a producer sends in batches.

    `count` messages, as fast as they come, timed from the first delivery to the last.
    """
    seat.filled += 1
    topic = f"{seat.topic}T{seat.filled}"
    members = seat.job("share", workload, seconds, topic=topic, count=workload.count)
    sender = seat.job("batch", workload, seconds, topic=topic, count=workload.count, threads=1)
    received, _ = run_together([(seat.client(0), members), (seat.client(1), sender)], started)
    return received


def _beside_routes(seat: Seat, workload: Workload, seconds: float, started: Started = _nothing) -> Outcome:
    """Sync sends while `count` threads of another process ask the name server for routes without a pause."""
    asking = seat.job("routes", workload, seconds, threads=workload.count)
    sending = seat.job("send", workload, seconds)
    sent, _ = run_together([(seat.client(0), sending), (seat.client(1), asking)], started)
    return sent


def _backlog(work: str) -> Callable[[Seat, Workload, float, Started], Outcome]:
    """One reader of a topic that was filled before its first turn."""

    def run(seat: Seat, workload: Workload, seconds: float, started: Started = _nothing) -> Outcome:
        if not seat.filled and seat.address:
            seat.filled = workload.count
            fill(seat, workload, workload.count)
        job = seat.job(work, workload, seconds, count=workload.count)
        return _joined(run_together([(seat.client(0), job)], started))

    return run


def _stored(seat: Seat, workload: Workload, seconds: float, started: Started = _nothing) -> Outcome:
    """Sync sends to a broker whose store already holds `count` messages of other topics."""
    if not seat.filled and workload.count:
        seat.filled = workload.count
        fill(seat, workload, workload.count, topic=f"{seat.topic}Stored")
    return _senders("send")(seat, workload, seconds, started)


def _cold(seat: Seat, workload: Workload, seconds: float, started: Started = _nothing) -> Outcome:
    """A reader of a backlog none of which is in memory: the broker is stopped, what is cached of its files
    dropped, and it is started again before each turn."""
    assert isinstance(seat.server, ShmqServer)
    if not seat.filled:
        seat.filled = workload.count
        fill(seat, workload, workload.count)
    seat.server.order("cool")
    seat.address = seat.server.address
    return _backlog("pull")(seat, workload, seconds, started)


def _crowd(seat: Seat, workload: Workload, seconds: float, started: Started = _nothing) -> Outcome:
    """One sync sender while `count` other producers are connected and idle."""
    crowd = seat.client(1)
    crowd.prepare(seat.job("connect", workload, 0.0, threads=workload.count))
    try:
        time.sleep(CROWD_SETTLE_S)
        outcome = _joined(run_together([(seat.client(0), seat.job("send", workload, seconds))], started))
        started()  # what a crowd's leaving costs does not belong to the turn
        return outcome
    finally:
        crowd.go()
        crowd.outcome(0.0)


LOADS: dict[str, Callable[..., Outcome]] = {
    "send": _senders("send"),
    "stream": _senders("stream"),
    "batch": _senders("batch"),
    "paced": _senders("paced"),
    "latency": _latency,
    "shared": _shared,
    "send-beside-routes": _beside_routes,
    "pull": _backlog("pull"),
    "consume": _backlog("consume"),
    "send-stored": _stored,
    "pull-cold": _cold,
    "crowd": _crowd,
}


def _joined(outcomes: list[Outcome]) -> Outcome:
    total = Outcome()
    for outcome in outcomes:
        total.add(outcome)
    return total
