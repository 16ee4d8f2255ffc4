"""A private broker for one run of a tool: own store, own sockets, free ports."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

READY_SECONDS = 20
STOP_SECONDS = 10


class PrivateBroker:
    """A shmq broker on a store of its own, started here; stopped and removed again unless it is kept."""

    def __init__(self, name: str, workers: int, **settings: object) -> None:
        """Start it and wait until it says that it listens."""
        self.folder = Path(tempfile.mkdtemp(prefix="shmq-tool-"))
        namesrv_port, port = _free_ports()
        self.namesrv_addr = f"127.0.0.1:{namesrv_port}"
        self.tcp_addr = f"127.0.0.1:{port}"
        self.runtime_dir = self.folder / "run"
        self.store = self.folder / "store"
        all_settings = {
            "brokerName": name,
            "brokerWorkers": workers,
            "storePathRootDir": self.store,
            "runtimeDir": self.runtime_dir,
            "logDir": self.folder / "logs",
            "listenPort": port,
            "namesrvPort": namesrv_port,
            "mappedFileSizeCommitLog": 64 << 20,
            **settings,
        }
        command = [
            sys.executable,
            "-m",
            "shmq.supervisor.main",
            *(f"{k}={v}" for k, v in all_settings.items()),
        ]
        self.output = self.folder / "broker.out"
        with self.output.open("wb") as sink:
            # A session of its own: Ctrl-C at the quick start must not stop a broker that is to be kept.
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=sink, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.listens = self._wait_until_ready()

    def _wait_until_ready(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline().decode().strip()
        if not line:
            self.stop()
            raise SystemExit(f"the broker did not start:\n{self.output.read_text()}")
        return line

    def stop(self) -> None:
        """Stop the broker and remove its folder."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_ports() -> tuple[int, int]:
    """A port for the name server, and one for the broker whose neighbour two below is free as well."""
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket() as below:
            first.bind(("127.0.0.1", 0))
            second.bind(("127.0.0.1", 0))
            port: int = second.getsockname()[1]
            try:
                below.bind(("127.0.0.1", port - 2))
            except OSError:
                continue
            return first.getsockname()[1], port
