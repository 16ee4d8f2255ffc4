"""A Redis server with an append-only file, on a Unix socket."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from bench import peers
from bench.durability import Durability
from bench.servers.server import Missing, Server, answers_unix

FSYNC = {Durability.PAGE_CACHE: "no", Durability.TIMED: "everysec", Durability.SYNCED: "always"}
MEMORY_PART = 0.5
"""Of the machine's memory. Beyond it Redis refuses, and the row says so."""


class RedisServer(Server):
    """`redis-server`, its data in the folder."""

    def start(self) -> None:
        """Start it."""
        program = peers.program("redis-server")
        if program is None:
            raise Missing(f"no redis-server: {peers.HOW}")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "redis.sock"
        self.settings = {
            "appendonly": "yes",
            "appendfsync": FSYNC[self.durability],
            "auto-aof-rewrite-percentage": "0",
            "maxmemory": str(int(psutil.virtual_memory().total * MEMORY_PART)),
            "stream-node-max-entries": "100",
        }
        options = [word for key, value in self.settings.items() for word in (f"--{key}", value)]
        where = ["--port", "0", "--unixsocket", os.fspath(path), "--dir", os.fspath(Path(self.folder))]
        self.spawn([program, *where, "--save", "", *options])
        self.await_ready(lambda: answers_unix(path), "redis-server")
        self.address = {"socket": str(path)}
