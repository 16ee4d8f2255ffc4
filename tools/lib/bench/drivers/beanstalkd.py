"""beanstalkd by greenstalk, over its Unix socket; a topic is a tube.

greenstalk has no pipelining: a batch is puts one after the other. Reading takes jobs away, so there is no
`read_all`. Tag, key and unique key travel in the job's body, before the message's.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import greenstalk

from bench.drivers import driver
from bench.drivers.driver import KEY_EVERY, KEYS, TAG, Handler, Settle, UniqueKeys

RESERVE_S = 1
SEPARATOR = b"\n"


def _nothing() -> None:
    return None


class Sender(driver.Sender):
    """One connection."""

    def __init__(self, path: str, topic: str) -> None:
        """Connect."""
        self._client = greenstalk.Client(path, encoding=None, use=topic)
        self._unique = UniqueKeys()

    def send(self, body: bytes, number: int) -> object:
        """Put."""
        head = f"{TAG} {KEYS[number % KEY_EVERY]} {self._unique.next()}".encode()
        return self._client.put(head + SEPARATOR + body)

    def send_async(self, body: bytes, number: int) -> Settle:
        """Put: there is no way to send without waiting."""
        self.send(body, number)
        return _nothing

    def send_batch(self, bodies: list[bytes], number: int) -> Settle:
        """Put after put."""
        for place, body in enumerate(bodies):
            self.send(body, number + place)
        return _nothing

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class Driver(driver.Driver):
    """Address: {"socket": path}."""

    def __init__(self, address: dict[str, str], options: dict[str, Any]) -> None:
        """Note the path."""
        del options
        self._path = address["socket"]

    def make_topic(self, topic: str, queues: int) -> None:
        """Tubes make themselves."""

    def sender(self, topic: str, queues: int) -> Sender:
        """A connection."""
        return Sender(self._path, topic)

    def read_all(self, topic: str) -> Iterator[tuple[int, int]]:
        """Its jobs can be read once only."""
        raise NotImplementedError("beanstalkd's jobs are gone when they were read")

    @contextlib.contextmanager
    def subscribe(self, topic: str, group: str, handler: Handler) -> Iterator[object]:
        """Reserve and delete in a thread. All consumers of a tube are one group."""
        client = greenstalk.Client(self._path, encoding=None, watch=topic)
        stopped = threading.Event()

        def read() -> None:
            while not stopped.is_set():
                try:
                    job = client.reserve(timeout=RESERVE_S)
                except greenstalk.TimedOutError:
                    continue
                handler([job.body.partition(SEPARATOR)[2]])
                client.delete(job)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield client
        finally:
            stopped.set()
            thread.join()
            client.close()
