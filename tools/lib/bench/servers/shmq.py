"""A shmq broker of its own, from this source tree or from another one (to compare two commits)."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

from bench import processes, stages
from bench.durability import Durability
from bench.servers.server import STOP_LIMIT_S, Missing, Server
from shmq.base.runtime_dir import page_name
from shmq.model.record import encode_blank

SEGMENT_BYTES = 256 << 20
QUEUE_FILE_BYTES = 6_000_000
PULL_COUNT = 1_000
PULL_BYTES = 4 << 20
RARELY_MS = 3_600_000
ORDER_LIMIT_S = 300.0
"""A start may read a log of many gigabytes from the disk; longer it does not take."""

FLUSHING: dict[Durability, dict[str, object]] = {
    Durability.PAGE_CACHE: {
        "flushDiskType": "ASYNC_FLUSH",
        "flushIntervalCommitLog": RARELY_MS,
        "flushCommitLogThoroughInterval": RARELY_MS,
    },
    Durability.TIMED: {"flushDiskType": "ASYNC_FLUSH"},
    Durability.SYNCED: {"flushDiskType": "SYNC_FLUSH"},
}
PULLING = {
    "maxTransferCountOnMessageInMemory": PULL_COUNT,
    "maxTransferBytesOnMessageInMemory": PULL_BYTES,
}
"""Both engines hand out 32 messages a pull by default; readers here ask for 1,000, as peers' readers do."""


class ShmqServer(Server):
    """`settings` are RocketMQ's keys, over those of the class; `source` a folder with another shmq
    package."""

    def __init__(
        self,
        folder: Path,
        durability: Durability,
        settings: dict[str, object] | None = None,
        source: Path | None = None,
    ) -> None:
        """Note the settings."""
        super().__init__(folder, durability)
        self._host: subprocess.Popen[str]
        self._pid = 0
        self.source = source
        self._settings = {
            "brokerName": "bench",
            "brokerWorkers": 2,
            "mappedFileSizeCommitLog": SEGMENT_BYTES,
            "mappedFileSizeConsumeQueue": QUEUE_FILE_BYTES,
            **PULLING,
            **FLUSHING[durability],
            **(settings or {}),
        }
        self.settings = {key: str(value) for key, value in self._settings.items()}

    @property
    def store(self) -> Path:
        """The store's folder."""
        return self.folder / "store"

    def start(self) -> None:
        """Start it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = [*([str(self.source)] if self.source else []), *sys.path]
        env = dict(os.environ)
        if self.traced:
            paths.insert(0, str(stages.HOOK))
            env |= stages.environment(self.stages)
        arguments = [f"store={self.store}", *(f"{key}={value}" for key, value in self._settings.items())]
        with (self.folder / "broker.out").open("ab") as sink:
            self._host = subprocess.Popen(
                [sys.executable, "-m", "bench.servers.shmq_host", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**env, "PYTHONPATH": os.pathsep.join(paths)},
                text=True,
            )
        self._processes.append(self._host)
        self._read_facts()

    def order(self, command: str) -> None:
        """Have the host kill, forget or start (see shmq_host.py); returns when it is done."""
        assert self._host.stdin is not None
        self._host.stdin.write(f"{command}\n")
        self._host.stdin.flush()
        self._read_facts()

    def _read_facts(self) -> None:
        assert self._host.stdout is not None
        # A host that hangs must not stop the run: it says nothing, and its place in the row is lost.
        if not select.select([self._host.stdout], [], [], ORDER_LIMIT_S)[0]:
            raise Missing(f"shmq did nothing for {ORDER_LIMIT_S:.0f} s: {self.last_words()}")
        words = self._host.stdout.readline().split()
        if not words:
            raise Missing(f"shmq did not start: {self.last_words()}")
        self.address = {"namesrv": words[0], "namesrv_tcp": words[1], "socket": words[2]}
        self._pid = int(words[3])

    @property
    def pids(self) -> list[int]:
        """The supervisor; the little host process beside it is the bench's."""
        return [self._pid] if self._processes and self._pid else []

    def stop(self) -> None:
        """Close the host's input: it stops the broker and removes its folder."""
        for host in self._processes:
            assert host.stdin is not None and host.stdout is not None
            host.stdin.close()
            try:
                host.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                for process in processes.tree([host.pid, *self.pids]):
                    process.kill()
                host.wait()
            host.stdout.close()
        self._processes.clear()
        if self.store.is_dir():  # of a broker that was killed and not started again
            self.forget_page()

    def forget_page(self) -> None:
        """Remove what the broker, which is stopped, left in shared memory."""
        for left in Path("/dev/shm").glob(f"*{page_name(self.store).removeprefix('/')}*"):
            left.unlink(missing_ok=True)


class LargeLogServer(ShmqServer):
    """A broker that finds `log_bytes` of log in its store: synthetic segments, each one filler, without disk
    blocks. Number and positions of segments are a large log's, its records and queues are not there."""

    def __init__(
        self,
        folder: Path,
        durability: Durability,
        log_bytes: int,
        source: Path | None = None,
    ) -> None:
        """Note how much log there is to be."""
        super().__init__(folder, durability, None, source)
        self._log_bytes = log_bytes

    def start(self) -> None:
        """Let a broker make a store, put the log into it, and start another one."""
        super().start()
        self.order("kill")
        self.forget_page()
        folder = self.store / "commitlog"
        for start in range(0, self._log_bytes, SEGMENT_BYTES):
            with (folder / f"{start:020d}").open("wb") as segment:
                segment.truncate(SEGMENT_BYTES)
                segment.write(encode_blank(SEGMENT_BYTES))
        self.order("start")
