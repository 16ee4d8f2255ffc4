"""A queue as people make one with sqlite3: a table, an insert per message, a transaction per send or batch.

A subscription polls: there is nothing to wait on.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

from bench.drivers import driver
from bench.drivers.driver import KEY_EVERY, KEYS, TAG, Handler, Settle, UniqueKeys

STREAMED = 100
READ_COUNT = 1_000
POLL_S = 0.001
BUSY_S = 30.0


def _connect(address: dict[str, str]) -> sqlite3.Connection:
    database = sqlite3.connect(address["path"], timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(f"PRAGMA synchronous={address['synchronous']}")
    return database


class Sender(driver.Sender):
    """One connection."""

    def __init__(self, address: dict[str, str], topic: str, queues: int) -> None:
        """Open the database."""
        self._database = _connect(address)
        self._insert = f'INSERT INTO "{topic}" (queue, id, tag, key, body) VALUES (?, ?, ?, ?, ?)'
        self._queues = queues
        self._unique = UniqueKeys()
        self._gathered: list[tuple[Any, ...]] = []

    def _row(self, body: bytes, number: int) -> tuple[Any, ...]:
        return number % self._queues, self._unique.next(), TAG, KEYS[number % KEY_EVERY], body

    def send(self, body: bytes, number: int) -> object:
        """One insert, one transaction."""
        return self._database.execute(self._insert, self._row(body, number))

    def send_async(self, body: bytes, number: int) -> Settle:
        """Gather STREAMED messages for one transaction."""
        self._gathered.append(self._row(body, number))
        if len(self._gathered) >= STREAMED:
            self._flush()
        return self._flush

    def _flush(self) -> None:
        if self._gathered:
            rows, self._gathered = self._gathered, []
            with contextlib.closing(self._database.cursor()) as cursor:
                cursor.execute("BEGIN IMMEDIATE")
                cursor.executemany(self._insert, rows)
                cursor.execute("COMMIT")

    def send_batch(self, bodies: list[bytes], number: int) -> Settle:
        """One transaction."""
        self._gathered = [self._row(body, number + place) for place, body in enumerate(bodies)]
        self._flush()
        return lambda: None

    def close(self) -> None:
        """Close the database."""
        self._database.close()


class Driver(driver.Driver):
    """Address: {"path": ..., "synchronous": ...}."""

    def __init__(self, address: dict[str, str], options: dict[str, Any]) -> None:
        """Note where the file is."""
        del options
        self._address = address

    def make_topic(self, topic: str, queues: int) -> None:
        """A table."""
        columns = "place INTEGER PRIMARY KEY, queue INTEGER, id TEXT, tag TEXT, key TEXT, body BLOB"
        with contextlib.closing(_connect(self._address)) as database:
            database.execute(f'CREATE TABLE IF NOT EXISTS "{topic}" ({columns})')

    def sender(self, topic: str, queues: int) -> Sender:
        """A connection."""
        return Sender(self._address, topic, queues)

    def read_all(self, topic: str) -> Iterator[tuple[int, int]]:
        """1,000 rows a query."""
        with contextlib.closing(_connect(self._address)) as database:
            last = 0
            while rows := _read(database, topic, last):
                yield len(rows), sum(len(body) for _, body in rows)
                last = rows[-1][0]

    @contextlib.contextmanager
    def subscribe(self, topic: str, group: str, handler: Handler) -> Iterator[object]:
        """A thread that polls every millisecond; what was read is noted in a transaction, as its offset."""
        database = _connect(self._address)
        database.execute("CREATE TABLE IF NOT EXISTS offsets (name TEXT PRIMARY KEY, place INTEGER)")
        stopped = threading.Event()

        def read() -> None:
            last = 0
            while not stopped.is_set():
                rows = _read(database, topic, last)
                if not rows:
                    stopped.wait(POLL_S)
                    continue
                handler([body for _, body in rows])
                last = rows[-1][0]
                database.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?)", (group, last))

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield database
        finally:
            stopped.set()
            thread.join()
            database.close()


def _read(database: sqlite3.Connection, topic: str, last: int) -> list[tuple[int, bytes]]:
    query = f'SELECT place, body FROM "{topic}" WHERE place > ? ORDER BY place LIMIT {READ_COUNT}'
    return database.execute(query, (last,)).fetchall()
