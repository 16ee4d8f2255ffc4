"""The load loops. Each prepares itself, then waits for the start signal, then runs until the clock or a
count.

A loop is a generator: what stands before its one `yield` is preparation and not measured. It returns an
Outcome.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

from bench.drivers.driver import Driver, Sender, Settle, body_of
from bench.load.job import Job, LoadFailed, Outcome
from bench.load.pacing import intended_times, paced
from histogram import Histogram

CLOCK_EVERY = 64
"""The stream loop looks at the clock once in so many messages."""
QUIET_S = 10.0
"""A receiver that has waited so long beyond its time gives up."""
WARM_LIMIT_S = 30.0
SHARE_LIMIT_S = 60.0
STAMP_BYTES = 8
NO_STAMP = bytes(STAMP_BYTES)

Loop = Generator[None, None, Outcome]


@contextmanager
def _senders(driver: Driver, job: Job) -> Iterator[list[Sender]]:
    """One sender for each thread of the job, warm: the first send makes routes and connections."""
    driver.make_topic(job.topic, job.queues)
    senders = [driver.sender(job.topic, job.queues) for _ in range(job.threads)]
    try:
        yield senders
    finally:
        for sender in senders:
            sender.close()


def _each(senders: list[Sender], run: Callable[[Sender, int], Outcome]) -> Outcome:
    """Run every sender in a thread of its own (one: in this thread) and join what they did."""
    if len(senders) == 1:
        return run(senders[0], 0)
    with ThreadPoolExecutor(len(senders)) as pool:
        outcomes = list(pool.map(run, senders, range(len(senders))))
    total = Outcome()
    for outcome in outcomes:
        total.add(outcome)
    return total


def send(driver: Driver, job: Job) -> Loop:
    """Closed loop: one message after the other, each acknowledged. Latency is the time of the call."""
    body = body_of(job.body_bytes)
    with _senders(driver, job) as senders:
        for number, sender in enumerate(senders):
            sender.send(body, number)
        yield

        def run(sender: Sender, first: int) -> Outcome:
            clock, call, times = time.perf_counter_ns, sender.send, []
            started = before = clock()
            end = started + int(job.seconds * 1e9)
            number = first
            while before < end:
                call(body, number)
                now = clock()
                times.append(now - before)
                before = now
                number += 1
            return _outcome(job, len(times), before - started, times)

        return _each(senders, run)


def stream(driver: Driver, job: Job) -> Loop:
    """Single messages without waiting, at most `in_flight` of them unanswered."""
    body = body_of(job.body_bytes)
    with _senders(driver, job) as senders:
        for number, sender in enumerate(senders):
            sender.send(body, number)
        yield

        def run(sender: Sender, first: int) -> Outcome:
            waiting: deque[Settle] = deque()
            started = time.perf_counter_ns()
            end = started + int(job.seconds * 1e9)
            sent = 0
            while sent % CLOCK_EVERY or time.perf_counter_ns() < end:
                waiting.append(sender.send_async(body, first + sent))
                sent += 1
                if len(waiting) >= job.in_flight:
                    waiting.popleft()()
            while waiting:
                waiting.popleft()()
            return _outcome(job, sent, time.perf_counter_ns() - started, [])

        return _each(senders, run)


def batch(driver: Driver, job: Job) -> Loop:
    """Lists of messages, at most `in_flight` of them unanswered. Latency is hand-over to acknowledgement.

    The messages are made inside the loop, as a program makes them. Ends at `count` messages if that is given.
    """
    bodies = [body_of(job.body_bytes)] * job.batch
    with _senders(driver, job) as senders:
        yield

        def run(sender: Sender, first: int) -> Outcome:
            waiting: deque[tuple[int, Settle]] = deque()
            times: list[int] = []

            def settle() -> None:
                before, done = waiting.popleft()
                done()
                times.append(time.perf_counter_ns() - before)

            started = time.perf_counter_ns()
            end = started + int(job.seconds * 1e9)
            sent = 0
            while sent < job.count if job.count else time.perf_counter_ns() < end:
                waiting.append((time.perf_counter_ns(), sender.send_batch(bodies, first * job.batch + sent)))
                sent += job.batch
                if len(waiting) >= job.in_flight:
                    settle()
            while waiting:
                settle()
            return _outcome(job, sent, time.perf_counter_ns() - started, times)

        return _each(senders, run)


def send_paced(driver: Driver, job: Job) -> Loop:
    """Open loop at a fixed rate; latency from the intended time to the acknowledgement.

    Bodies begin with the intended time (CLOCK_MONOTONIC, the host's), for a receiver to take the age from.
    """
    filler = body_of(job.body_bytes)[STAMP_BYTES:]
    with _senders(driver, job) as senders:
        yield
        begin = time.monotonic_ns()
        each = job.rate / job.threads

        def run(sender: Sender, first: int) -> Outcome:
            numbers = itertools.count(first)
            times = intended_times(begin + round(first * 1e9 / job.rate), each, job.seconds)
            started = time.perf_counter_ns()
            latencies = paced(
                lambda moment: sender.send(moment.to_bytes(STAMP_BYTES, "big") + filler, next(numbers)), times
            )
            return _outcome(job, len(latencies), time.perf_counter_ns() - started, latencies)

        return _each(senders, run)


class _Arrivals:
    """What a subscription brought: ages of stamped bodies, or only counts."""

    def __init__(self, wanted: int, *, stamped: bool) -> None:
        self.complete = threading.Event()
        self.count = self.body_bytes = 0
        self.first_ns = self.last_ns = 0
        self.ages: list[int] = []
        self._wanted = wanted
        self._stamped = stamped
        self._lock = threading.Lock()

    def take(self, bodies: list[bytes]) -> None:
        """Count bodies; called by the library's threads."""
        now = time.monotonic_ns()
        with self._lock:
            self.first_ns = self.first_ns or now
            self.last_ns = now
            self.count += len(bodies)
            self.body_bytes += sum(map(len, bodies))
            if self._stamped:
                self.ages += [now - int.from_bytes(body[:STAMP_BYTES], "big") for body in bodies]
            if self.count >= self._wanted:
                self.complete.set()


def receive(driver: Driver, job: Job) -> Loop:
    """The other end of the paced loop: an idle consumer that is woken. Latency is each message's age on
    arrival, from its intended time, less a delay that was asked for.

    A first message with the stamp 0, not counted, shows that the subscription is up: joining a group is not
    waking up. It may come more than once.
    """
    driver.make_topic(job.topic, job.queues)
    arrivals = _Arrivals(job.count, stamped=True)
    warm = threading.Event()

    def take(bodies: list[bytes]) -> None:
        stamped = [body for body in bodies if body[:STAMP_BYTES] != NO_STAMP]
        if len(stamped) < len(bodies):
            warm.set()
        if stamped:
            arrivals.take(stamped)

    with driver.subscribe(job.topic, f"{job.topic}Receiver", take):
        with closing(driver.sender(job.topic, job.queues)) as sender:
            sender.send(NO_STAMP + body_of(job.body_bytes)[STAMP_BYTES:], 0)
        if not warm.wait(WARM_LIMIT_S):
            raise LoadFailed("the first message did not arrive")
        yield
        if not arrivals.complete.wait(job.seconds + QUIET_S):
            raise LoadFailed(f"{arrivals.count} of {job.count} messages arrived")
    delay_ns = int(float(job.options.get("delay_s", 0)) * 1e9)
    ages = [age - delay_ns for age in arrivals.ages]
    return Outcome(arrivals.count, arrivals.body_bytes, job.seconds, _histogram(ages))


def consume(driver: Driver, job: Job) -> Loop:
    """`threads` new groups read a backlog of `count` messages through subscriptions, acknowledging them.

    Timed from the first delivery: joining a group is not consuming.
    """
    wanted = job.count * job.threads
    arrivals = _Arrivals(wanted, stamped=False)
    yield
    with ExitStack() as stack:
        for number in range(job.threads):
            group = f"BenchGroup{time.time_ns()}n{number}"
            stack.enter_context(driver.subscribe(job.topic, group, arrivals.take))
        if not arrivals.complete.wait(job.seconds + QUIET_S) and arrivals.count < 2:
            raise LoadFailed(f"{arrivals.count} of {wanted} messages arrived")
    seconds = (arrivals.last_ns - arrivals.first_ns) / 1e9
    return Outcome(arrivals.count, arrivals.body_bytes, max(seconds, 1e-9))


def share(driver: Driver, job: Job) -> Loop:
    """`threads` consumers of one new group share a topic's queues, and wait for `count` messages."""
    driver.make_topic(job.topic, job.queues)
    arrivals = _Arrivals(job.count, stamped=False)
    with ExitStack() as stack:
        members = [
            stack.enter_context(driver.subscribe(job.topic, f"{job.topic}Group", arrivals.take))
            for _ in range(job.threads)
        ]
        driver.await_shares(members, job.topic, job.queues)
        yield
        if not arrivals.complete.wait(job.seconds + SHARE_LIMIT_S):
            raise LoadFailed(f"{arrivals.count} of {job.count} messages arrived")
    seconds = (arrivals.last_ns - arrivals.first_ns) / 1e9
    return Outcome(arrivals.count, arrivals.body_bytes, max(seconds, 1e-9))


def pull(driver: Driver, job: Job) -> Loop:
    """Read a topic from its beginning, again and again until the time is over."""
    for _ in driver.read_all(job.topic):
        break  # the grant, or the connection, is not part of the rate
    yield
    messages = body_bytes = 0
    started = time.perf_counter_ns()
    end = started + int(job.seconds * 1e9)
    while time.perf_counter_ns() < end:
        before = messages
        for count, size in driver.read_all(job.topic):
            messages += count
            body_bytes += size
            if time.perf_counter_ns() >= end:
                break
        if messages == before:
            raise LoadFailed(f"topic {job.topic} is empty")
    return Outcome(messages, body_bytes, (time.perf_counter_ns() - started) / 1e9)


def connect(driver: Driver, job: Job) -> Loop:
    """So many producers, each with a connection that was used once, idle until told to go; then they
    leave."""
    body = body_of(job.body_bytes)
    with _senders(driver, job) as senders:
        for number, sender in enumerate(senders):
            sender.send(body, number)
        yield
    return Outcome()


def hold(driver: Driver, job: Job) -> Loop:
    """So many idle consumers of the topic, waiting for messages until told to go; then they leave."""
    driver.make_topic(job.topic, job.queues)
    with ExitStack() as stack:
        for number in range(job.threads):
            stack.enter_context(driver.subscribe(job.topic, f"BenchIdle{number}", lambda bodies: None))
        yield
    return Outcome()


LOOPS: dict[str, Callable[[Driver, Job], Loop]] = {
    "send": send,
    "stream": stream,
    "batch": batch,
    "paced": send_paced,
    "receive": receive,
    "consume": consume,
    "pull": pull,
    "hold": hold,
    "share": share,
    "connect": connect,
}


def _histogram(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record_all(values)
    return histogram


def _outcome(job: Job, messages: int, nanoseconds: int, times: list[int]) -> Outcome:
    return Outcome(messages, messages * job.body_bytes, nanoseconds / 1e9, _histogram(times))
