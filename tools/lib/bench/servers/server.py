"""Server: something that runs beside the clients, set up for one durability class."""

from __future__ import annotations

import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import peers
from bench.durability import Durability

START_LIMIT_S = 60.0
STOP_LIMIT_S = 20.0
LOOPBACK = "127.0.0.1"


class Missing(Exception):
    """A peer is not installed, or cannot do what was asked; the text is for the report."""


class Server(ABC):
    """One server with a folder for its files.

    address   where clients find it, as their driver wants it; filled in by `start`
    settings  what it was started with that matters for the figures, for the report
    """

    keeps_warm = False
    """Whether it stays up from row to row: a JVM that was just started is not at its speed."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        """Note where files go, and the class; `start` does the rest."""
        self.folder = folder
        self.durability = durability
        self.address: dict[str, str] = {}
        self.settings: dict[str, str] = {}
        self.traced = False
        """Set before `start`: its processes note their stages in `stages`. Only shmq's can."""
        self._processes: list[subprocess.Popen[Any]] = []

    @abstractmethod
    def start(self) -> None:
        """Start it on an empty store and return when it serves; Missing if it cannot."""

    @property
    def stages(self) -> Path:
        """Where a traced server's processes note their stages."""
        return self.folder / "stages"

    @property
    def pids(self) -> list[int]:
        """Its top processes; their children count, too."""
        return [process.pid for process in self._processes if process.poll() is None]

    def stop(self) -> None:
        """Stop it, by force after a while. Again is harmless."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def spawn(self, command: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start one of its processes; what it prints goes to a file in the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{Path(command[0]).name}.out").open("ab") as sink:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=peers.environment() | (env or {}),
            )
        self._processes.append(process)
        return process

    def await_ready(self, is_ready: Callable[[], bool], what: str) -> None:
        """Look until it serves; Missing with its last words when one of its processes ends before."""
        deadline = time.monotonic() + START_LIMIT_S
        while not is_ready():
            ended = [process for process in self._processes if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise Missing(f"{what} did not start: {self.last_words()}")
            time.sleep(0.01)

    def last_words(self) -> str:
        """The last line that each of its processes printed."""
        said = [path.read_text(errors="replace").strip() for path in sorted(self.folder.glob("*.out"))]
        return " | ".join(text.splitlines()[-1] for text in said if text) or "it said nothing"


def free_port() -> int:
    """A loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def answers_tcp(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def answers_unix(path: Path) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
