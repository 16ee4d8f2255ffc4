"""The kinds of load: how a workload becomes jobs for client processes. LOADS maps a kind to its function."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.clients import ClientProcess, run_together
from bench.load.job import Job, Outcome
from bench.workload import Workload

Started = Callable[[], object]


@dataclass(slots=True)
class Seat:
    """A system's place at one workload: its topic, where its server is, and its client processes by number.

    `filled` remembers how many messages the topic got for the kinds that read a backlog.
    """

    system: str
    topic: str
    address: dict[str, str]
    options: dict[str, Any]
    client: Callable[[int], ClientProcess]
    filled: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

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


def _nothing() -> None:
    return None


def _senders(work: str) -> Callable[[Seat, Workload, float, Started], Outcome]:
    """Producers only: their threads divided among at most as many client processes as there are cores."""

    def run(seat: Seat, workload: Workload, seconds: float, started: Started = _nothing) -> Outcome:
        processes = min(workload.threads, len(os.sched_getaffinity(0)))
        shares = [len(range(number, workload.threads, processes)) for number in range(processes)]
        jobs = []
        for number, share in enumerate(shares):
            rate = workload.rate * share / workload.threads
            jobs.append((seat.client(number), seat.job(work, workload, seconds, threads=share, rate=rate)))
        return _joined(run_together(jobs, started))

    return run


def _latency(seat: Seat, workload: Workload, seconds: float, started: Started = _nothing) -> Outcome:
    """An open-loop sender in one process, a consumer in another; latency from intended send to listener."""
    count = round(workload.rate * seconds)
    seat.filled += 1  # each turn has a topic of its own: what a turn left over is not the next one's
    topic = f"{seat.topic}T{seat.filled}"
    receiver = seat.job("receive", workload, seconds, topic=topic, count=count)
    sender = seat.job("paced", workload, seconds, topic=topic)
    received, sent = run_together([(seat.client(0), receiver), (seat.client(1), sender)], started)
    received.seconds = sent.seconds
    return received


def _backlog(work: str) -> Callable[[Seat, Workload, float, Started], Outcome]:
    """One reader of a topic that was filled before its first turn."""

    def run(seat: Seat, workload: Workload, seconds: float, started: Started = _nothing) -> Outcome:
        if not seat.filled and seat.address:
            seat.filled = workload.count
            fill = seat.job("batch", workload, seconds, count=workload.count, threads=1)
            run_together([(seat.client(0), fill)])
        job = seat.job(work, workload, seconds, count=workload.count, threads=1)
        return _joined(run_together([(seat.client(0), job)], started))

    return run


LOADS: dict[str, Callable[..., Outcome]] = {
    "send": _senders("send"),
    "stream": _senders("stream"),
    "batch": _senders("batch"),
    "paced": _senders("paced"),
    "latency": _latency,
    "pull": _backlog("pull"),
    "consume": _backlog("consume"),
}


def _joined(outcomes: list[Outcome]) -> Outcome:
    total = Outcome()
    for outcome in outcomes:
        total.add(outcome)
    return total
