"""Redis Streams by redis-py with hiredis over a Unix socket; a queue is a stream.

There is no send without waiting in redis-py: `send_async` gathers a pipeline of PIPELINE commands, as a
program would, and is acknowledged with it.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import redis

from bench.drivers import driver
from bench.drivers.driver import KEY_EVERY, KEYS, TAG, Handler, Settle, UniqueKeys

PIPELINE = 100
READ_COUNT = 1_000
BLOCK_MS = 500


class Sender(driver.Sender):
    """One connection."""

    def __init__(self, path: str, topic: str, queues: int) -> None:
        """Connect."""
        self._redis = redis.Redis(unix_socket_path=path)
        self._redis.ping()
        self._streams = [f"{topic}:{queue}" for queue in range(queues)]
        self._unique = UniqueKeys()
        self._pipeline = self._redis.pipeline(transaction=False)
        self._gathered = 0

    def _fields(self, body: bytes, number: int) -> dict[str, Any]:
        return {"body": body, "tag": TAG, "key": KEYS[number % KEY_EVERY], "id": self._unique.next()}

    def send(self, body: bytes, number: int) -> object:
        """XADD."""
        return self._redis.xadd(self._streams[number % len(self._streams)], self._fields(body, number))

    def send_async(self, body: bytes, number: int) -> Settle:
        """XADD into the pipeline, executed when it is full or somebody waits for it."""
        self._pipeline.xadd(self._streams[number % len(self._streams)], self._fields(body, number))
        self._gathered += 1
        if self._gathered >= PIPELINE:
            self._execute()
        return self._execute

    def _execute(self) -> None:
        if self._gathered:
            self._gathered = 0
            self._pipeline.execute()

    def send_batch(self, bodies: list[bytes], number: int) -> Settle:
        """One pipeline; executed at once, as redis-py offers no other way."""
        stream = self._streams[number // len(bodies) % len(self._streams)]
        for place, body in enumerate(bodies):
            self._pipeline.xadd(stream, self._fields(body, number + place))
        self._pipeline.execute()
        return lambda: None

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


class Driver(driver.Driver):
    """Address: {"socket": path}."""

    def __init__(self, address: dict[str, str], options: dict[str, object]) -> None:
        """Note the path."""
        del options
        self._path = address["socket"]
        self._queues = 1
        self._members = itertools.count()

    def make_topic(self, topic: str, queues: int) -> None:
        """Streams make themselves; a subscription reads so many."""
        self._queues = queues

    def sender(self, topic: str, queues: int) -> Sender:
        """A connection."""
        return Sender(self._path, topic, queues)

    def _streams(self, client: redis.Redis, topic: str) -> list[bytes]:
        return sorted(client.scan_iter(match=f"{topic}:*", count=10_000))

    def read_all(self, topic: str) -> Iterator[tuple[int, int]]:
        """XREAD COUNT 1000 of each stream."""
        with contextlib.closing(redis.Redis(unix_socket_path=self._path)) as client:
            for stream in self._streams(client, topic):
                last: Any = b"0"
                while found := client.xread({stream: last}, count=READ_COUNT):
                    entries = found[0][1] if isinstance(found, list) else next(iter(found.values()))[0]
                    yield len(entries), sum(len(fields[b"body"]) for _, fields in entries)
                    last = entries[-1][0]

    @contextlib.contextmanager
    def subscribe(self, topic: str, group: str, handler: Handler) -> Iterator[object]:
        """XREADGROUP COUNT 1000 in a thread, then one XACK for what was read of a stream.

        A group's members share streams, each message going to one of them.
        """
        client = redis.Redis(unix_socket_path=self._path)
        name = f"member{next(self._members)}"
        streams: dict[Any, Any] = {f"{topic}:{queue}": ">" for queue in range(self._queues)}
        for stream in streams:
            with contextlib.suppress(redis.ResponseError):  # another member has made the group
                client.xgroup_create(stream, group, id="0", mkstream=True)
        stopped = threading.Event()

        def read() -> None:
            while not stopped.is_set():
                found = client.xreadgroup(group, name, streams, count=READ_COUNT, block=BLOCK_MS)
                pairs = found if isinstance(found, list) else [(s, e[0]) for s, e in found.items()]
                for stream, entries in pairs:
                    handler([fields[b"body"] for _, fields in entries])
                    client.xack(stream, group, *[entry for entry, _ in entries])

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield client
        finally:
            stopped.set()
            thread.join()
            client.close()
