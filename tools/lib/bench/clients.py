"""ClientProcess: the bench's end of a client process, Python or Java; and running several at once."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import peers, stages
from bench.load.job import Job, LoadFailed, Outcome

TOOLS = Path(__file__).parent.parent
READY_LIMIT_S = 60.0
READY_EACH_S = 0.3
"""Beyond that, for each producer or consumer that a job asks for."""
ANSWER_LIMIT_S = 120.0
"""Beyond the job's own time."""


class ClientProcess:
    """One client process. Not shared by threads."""

    def __init__(self, command: Sequence[str], env: dict[str, str], output: Path) -> None:
        """Start it and wait until it is up; what its libraries print goes to `output`."""
        self._output = output
        with output.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**os.environ, **env},
                bufsize=0,
            )
        if (said := self._read(READY_LIMIT_S)) != "up":
            raise LoadFailed(f"unexpected greeting {said[:80]!r}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def prepare(self, job: Job) -> None:
        """Hand it a job and wait until it is ready to begin."""
        self._write(job.line())
        said = self._read(READY_LIMIT_S + job.threads * READY_EACH_S)
        if said != "ready":
            Outcome.parse(said)
            raise LoadFailed(f"unexpected answer {said[:80]!r}")

    def go(self) -> None:
        """Let it begin."""
        self._write("go")

    def outcome(self, seconds: float) -> Outcome:
        """Wait for what a job of so many seconds came to."""
        return Outcome.parse(self._read(seconds + ANSWER_LIMIT_S))

    def close(self) -> None:
        """Close its input: it ends."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise LoadFailed(f"the client ended: {self._last_words()}") from None

    def _read(self, limit_s: float) -> str:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + limit_s
        read = b""
        while not read.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise LoadFailed(f"no answer from the client within {limit_s:.0f} s")
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                raise LoadFailed(f"the client ended: {self._last_words()}")
            read += piece
        return read.decode().strip()

    def _last_words(self) -> str:
        lines = self._output.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"


def python_client(
    driver: str, output: Path, source: Path | None = None, traced: Path | None = None
) -> ClientProcess:
    """A Python client with one driver; `source` is a folder with another shmq package, `traced` one to note
    stages in."""
    paths = [*([str(source)] if source else []), str(TOOLS), *sys.path, str(peers.PYTHON)]
    env = {}
    if traced is not None:
        paths.insert(0, str(stages.HOOK))
        env = stages.environment(traced)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return ClientProcess([sys.executable, "-m", "bench.load", driver], env, output)


def run_together(
    clients: Sequence[tuple[ClientProcess, Job]], started: Callable[[], object] = lambda: None
) -> list[Outcome]:
    """Prepare all in turn, call `started`, let all go, and return each one's outcome."""
    for client, job in clients:
        client.prepare(job)
    started()
    for client, _ in clients:
        client.go()
    return [client.outcome(job.seconds) for client, job in clients]
