"""Redis's own load generator, written in C: what its server takes in when no Python is in the way.

The same bytes as the Python driver's messages, as many unanswered commands as the batch loop has messages.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Generator

from bench import peers
from bench.drivers import redis
from bench.drivers.driver import KEYS, TAG, UniqueKeys, body_of
from bench.load.job import Job, LoadFailed, Outcome

CLIENTS = 50
FIRST_GUESS = 20_000
"""Commands of the untimed run that tells how many will fill the time."""


class Driver(redis.Driver):
    """Address: {"socket": path}."""

    def own_loop(self, job: Job) -> Generator[None, None, Outcome]:
        """Run the program for about the job's time."""
        rate = FIRST_GUESS / self._run(job, FIRST_GUESS)
        count = max(FIRST_GUESS, round(rate * job.seconds))
        yield
        return Outcome(count, count * job.body_bytes, self._run(job, count))

    def _run(self, job: Job, count: int) -> float:
        """Seconds that so many commands take."""
        program = peers.program("redis-benchmark")
        assert program is not None
        pipeline = max(1, job.batch * job.in_flight // CLIENTS)
        # An argument ends at a zero byte: the body is as long, of letters.
        body = body_of(job.body_bytes).hex()[: job.body_bytes]
        fields = ["body", body, "tag", TAG, "key", KEYS[0], "id", UniqueKeys().next()]
        load = ["-q", "-c", str(CLIENTS), "-P", str(pipeline), "-n", str(count)]
        command = [program, "-s", self._path, *load, "XADD", f"{job.topic}:0", "*", *fields]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=peers.environment(), check=False)
        if done.returncode:
            raise LoadFailed(f"redis-benchmark: {done.stderr.strip() or done.stdout.strip()}")
        return time.perf_counter() - started
