"""NATS JetStream by nats-py: an event loop in a thread of its own, driven from the calling thread.

A topic is a stream with one subject per queue, in files. There is no batch: a batch is publishes whose
acknowledgements are awaited together.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType

from bench.drivers import driver
from bench.drivers.driver import KEY_EVERY, KEYS, TAG, Handler, Settle, UniqueKeys

FETCH = 1_000
FETCH_S = 0.5
PENDING_MAX = 4_000
ACK_LIMIT_S = 30.0
CONNECT_LIMIT_S = 30


class _Loop:
    """An event loop in a thread, with one connection."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.connection = self.run(nats.connect(url, connect_timeout=CONNECT_LIMIT_S))
        self.stream = self.connection.jetstream(publish_async_max_pending=PENDING_MAX, timeout=ACK_LIMIT_S)

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.start(work).result()

    def close(self) -> None:
        self.run(self.connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Sender(driver.Sender):
    """One connection."""

    def __init__(self, url: str, topic: str, queues: int) -> None:
        """Connect."""
        self._loop = _Loop(url)
        self._subjects = [f"{topic}.{queue}" for queue in range(queues)]
        self._unique = UniqueKeys()

    async def _publish(self, body: bytes, number: int) -> None:
        headers = {"tag": TAG, "key": KEYS[number % KEY_EVERY], "id": self._unique.next()}
        await self._loop.stream.publish(self._subjects[number % len(self._subjects)], body, headers=headers)

    async def _publish_all(self, bodies: list[bytes], number: int) -> None:
        await asyncio.gather(*[self._publish(body, number + place) for place, body in enumerate(bodies)])

    def send(self, body: bytes, number: int) -> object:
        """Publish and wait for the acknowledgement."""
        return self._loop.run(self._publish(body, number))

    def send_async(self, body: bytes, number: int) -> Settle:
        """Publish from the loop's thread."""
        return self._loop.start(self._publish(body, number)).result

    def send_batch(self, bodies: list[bytes], number: int) -> Settle:
        """Publish all, await all."""
        return self._loop.start(self._publish_all(bodies, number)).result

    def close(self) -> None:
        """Close connection and loop."""
        self._loop.close()


class Driver(driver.Driver):
    """Address: {"url": ...}."""

    def __init__(self, address: dict[str, str], options: dict[str, Any]) -> None:
        """Note the address."""
        del options
        self._url = address["url"]

    def make_topic(self, topic: str, queues: int) -> None:
        """A stream for all its subjects."""
        with contextlib.closing(_Loop(self._url)) as loop:
            loop.run(loop.stream.add_stream(name=topic, subjects=[f"{topic}.*"], storage=StorageType.FILE))

    def sender(self, topic: str, queues: int) -> Sender:
        """A connection."""
        return Sender(self._url, topic, queues)

    def read_all(self, topic: str) -> Iterator[tuple[int, int]]:
        """Fetch 1,000 at a time through a consumer that acknowledges nothing."""
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE)
        with contextlib.closing(_Loop(self._url)) as loop:
            pulling = loop.run(loop.stream.pull_subscribe(f"{topic}.*", stream=topic, config=config))
            left = loop.run(loop.stream.stream_info(topic)).state.messages
            while left > 0:
                found = loop.run(pulling.fetch(min(FETCH, left), timeout=ACK_LIMIT_S))
                yield len(found), sum(len(message.data) for message in found)
                left -= len(found)

    @contextlib.contextmanager
    def subscribe(self, topic: str, group: str, handler: Handler) -> Iterator[object]:
        """A durable consumer; fetch, hand over, acknowledge each."""
        loop = _Loop(self._url)
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, max_ack_pending=2 * FETCH)
        pulling = loop.run(loop.stream.pull_subscribe(f"{topic}.*", group, stream=topic, config=config))
        stopped = threading.Event()

        async def read() -> None:
            while not stopped.is_set():
                try:
                    found = await pulling.fetch(FETCH, timeout=FETCH_S)
                except TimeoutError:
                    continue
                handler([message.data for message in found])
                for message in found:
                    await message.ack()

        reading = loop.start(read())
        try:
            yield loop
        finally:
            stopped.set()
            reading.result()
            loop.close()
