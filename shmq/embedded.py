"""A private broker for tests and small programs: own processes, own store, own sockets, gone afterwards.

    from shmq.embedded import Broker
    with Broker() as broker:
        producer = Producer("group", namesrv_addr=broker.namesrv_addr)

The broker is the real one, started as a subprocess (`python -m shmq.supervisor.main`), with small files and
free ports. Its folder is removed at the end, also when the start failed; with `store_root` the store is the
caller's and stays. A program that ends without closing it closes it at its exit; one that is killed leaves it
running (`shmq-shutdown broker NAME` ends it).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from shmq.base.clock import monotonic_ms
from shmq.base.errors import Unavailable
from shmq.base.runtime_dir import page_name

START_LIMIT_S = 20.0
SHARED_MEMORY = Path("/dev/shm")
STOP_LIMIT_S = 10.0

SMALL_SETTINGS: dict[str, object] = {
    "brokerName": "broker-a",
    "brokerWorkers": 2,
    "listenPort": 0,
    "namesrvPort": 0,
    "mappedFileSizeCommitLog": 16 << 20,
    "mappedFileSizeConsumeQueue": 20 * 4096,
    "maxIndexNum": 40_000,
    "maxHashSlotNum": 10_000,
    "queueSlots": 16_384,
    "offsetSlots": 16_384,
    "diskMaxUsedSpaceRatio": 95,
    "diskSpaceWarningLevelRatio": 99,
    "cleanFileForciblyEnable": False,
}
"""RocketMQ's keys; what `Broker(**settings)` is given replaces these.

A developer's disk is often rather full: that is no reason to refuse a test's sends, or to delete from a
program's store what is not expired.
"""


class Broker:
    """One private broker. `start` and `stop` may be called again and again on the same store."""

    def __init__(self, store_root: str | Path | None = None, **settings: object) -> None:
        """`settings` are broker settings by RocketMQ's names, such as `brokerWorkers=4`."""
        self._settings = {**SMALL_SETTINGS, **settings}
        self._given_store = Path(store_root) if store_root is not None else None
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._facts: dict[str, str] = {}

    @property
    def broker_name(self) -> str:
        """Return the broker's name."""
        return str(self._settings["brokerName"])

    @property
    def namesrv_addr(self) -> str:
        """Return its name server's address, over the Unix socket."""
        return f"unix:{self._facts['namesrvUnix']}"

    @property
    def namesrv_tcp_addr(self) -> str:
        """Return its name server's TCP address."""
        return self._facts["namesrv"]

    @property
    def unix_socket(self) -> str:
        """Return the path of the broker's Unix front."""
        return self._facts["unix"]

    @property
    def tcp_addr(self) -> str:
        """Return the broker's TCP address, `host:port`."""
        return self._facts["tcp"]

    @property
    def tcp_port(self) -> int:
        """Return the broker's TCP port."""
        return int(self.tcp_addr.rpartition(":")[2])

    @property
    def store_root(self) -> Path:
        """Return the store's folder."""
        return Path(self._facts["store"])

    @property
    def pid(self) -> int:
        """Return the supervisor's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Tell whether the supervisor lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it serves; Unavailable with its own words when it does not."""
        if self.running:
            return self
        atexit.register(self.close)
        if self._folder is None:
            # A short path: socket paths have at most 107 bytes, whatever folder TMPDIR names.
            self._folder = Path(tempfile.mkdtemp(prefix="shmq-", dir="/tmp"))
        try:
            self._spawn(self._folder)
        except BaseException:
            self.close()
            raise
        return self

    def _spawn(self, folder: Path) -> None:
        """Run the supervisor; ports taken by the first start are kept for later ones, so clients find it
        again."""
        settings = {
            "storePathRootDir": self._given_store or folder / "store",
            "runtimeDir": folder / "run",
            "logDir": folder / "logs",
            **self._settings,
        }
        if self._facts:
            settings["listenPort"] = self.tcp_port
            settings["namesrvPort"] = int(self.namesrv_tcp_addr.rpartition(":")[2])
        command = [sys.executable, "-m", "shmq.supervisor.main", *(f"{k}={v}" for k, v in settings.items())]
        output = folder / "broker.out"
        with output.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,
            )
        line = self._ready_line()
        if not line.startswith("shmq-broker ready"):
            said = output.read_text(errors="replace").strip()
            raise Unavailable(f"the embedded broker did not start: {said or line or self._end()}")
        self._facts = dict(word.split("=", 1) for word in line.split() if "=" in word)

    def _ready_line(self) -> str:
        """Read the line that says where it listens; empty when it ends before, or the limit is over."""
        assert self._process is not None and self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        os.set_blocking(pipe, False)
        readable = select.poll()  # select() knows no descriptors above 1023
        readable.register(pipe, select.POLLIN)
        deadline = monotonic_ms() + START_LIMIT_S * 1000
        read = b""
        while not read.endswith(b"\n") and (left_ms := deadline - monotonic_ms()) > 0:
            if not readable.poll(left_ms):
                break
            piece = os.read(pipe, 4096)
            if not piece:
                break
            read += piece
        return read.decode(errors="replace").strip()

    def _end(self) -> str:
        """How it ended that said nothing."""
        assert self._process is not None
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return f"it said nothing for {START_LIMIT_S:.0f} s"
        return f"it ended without a word, with status {status}"

    def stop(self) -> None:
        """Stop it gently, by force after 10 s; the store stays for the next `start`."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        if process.stdout is not None:
            process.stdout.close()
        self._process = None

    def kill(self) -> None:
        """Kill every process of the broker at once, as a power cut of this broker would."""
        if self._process is None:
            return
        if self._process.returncode is None:  # once it was waited for its number may be another group's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_LIMIT_S)

    def close(self) -> None:
        """Stop it and remove its folder."""
        atexit.unregister(self.close)
        self.stop()
        if self._folder is not None:
            self._remove_shared(self._folder / "store")
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @staticmethod
    def _remove_shared(store: Path) -> None:
        """Remove what a killed broker left in /dev/shm for a next start, which will not come."""
        if store.is_dir():
            for path in SHARED_MEMORY.glob(f"*{page_name(store).removeprefix('/')}*"):
                path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop and remove."""
        self.close()
