"""SQLite as a queue: no server, a folder for the database."""

from __future__ import annotations

import sqlite3

from bench.durability import Durability
from bench.servers.server import Server

SYNCHRONOUS = {Durability.PAGE_CACHE: "OFF", Durability.TIMED: "NORMAL", Durability.SYNCED: "FULL"}
"""In WAL mode NORMAL syncs at checkpoints only: the nearest it has to a timed sync; FULL at each commit."""


class SqliteServer(Server):
    """Nothing to run: clients open the file."""

    def start(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        synchronous = SYNCHRONOUS[self.durability]
        self.address = {"path": str(self.folder / "queue.db"), "synchronous": synchronous}
        self.settings = {
            "version": sqlite3.sqlite_version,
            "journal_mode": "WAL",
            "synchronous": synchronous,
        }
