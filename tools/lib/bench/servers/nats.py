"""nats-server with JetStream in files, on the loopback."""

from __future__ import annotations

import subprocess

from bench import peers
from bench.durability import Durability
from bench.servers.server import LOOPBACK, Missing, Server, answers_tcp, free_port

SYNC_INTERVAL = {Durability.PAGE_CACHE: "2m", Durability.TIMED: "1s", Durability.SYNCED: "always"}
"""2m is its default; `always` syncs before each acknowledgement, from 2.10 on."""
ALWAYS_FROM = (2, 10)


class NatsServer(Server):
    """`nats-server`, its store in the folder."""

    def start(self) -> None:
        """Start it."""
        program = peers.program("nats-server")
        if program is None:
            raise Missing(f"no nats-server: {peers.HOW}")
        version = _version(program)
        if self.durability is Durability.SYNCED and version < ALWAYS_FROM:
            raise Missing(f"nats-server {'.'.join(map(str, version))} cannot sync each message; 2.10 can")
        port = free_port()
        interval = SYNC_INTERVAL[self.durability]
        self.settings = {"version": ".".join(map(str, version)), "sync_interval": interval}
        self.folder.mkdir(parents=True, exist_ok=True)
        conf = self.folder / "nats.conf"
        store = f'store_dir: "{self.folder / "store"}", sync_interval: {interval}, max_file_store: 20GB'
        conf.write_text(f'listen: "{LOOPBACK}:{port}"\njetstream {{ {store} }}\nmax_payload: 8MB\n')
        self.spawn([program, "-c", str(conf)])
        self.await_ready(lambda: answers_tcp(port), "nats-server")
        self.address = {"url": f"nats://{LOOPBACK}:{port}"}


def _version(program: str) -> tuple[int, ...]:
    """Such as (2, 12, 1), from `nats-server: v2.12.1`."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in said.strip().rpartition("v")[2].partition("-")[0].split("."))
