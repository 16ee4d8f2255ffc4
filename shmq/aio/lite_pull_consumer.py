"""LitePullConsumer for asyncio: `await consumer.poll()`, or `async for message in consumer`.

Waiting takes nothing: messages are taken on the event loop, at once, when there are some. So whoever is
cancelled while waiting (a timeout, say) has lost none, and consumed none.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from shmq.aio.service import Service
from shmq.aio.threads import Threads
from shmq.client.consumer_config import LitePullConsumerConfig
from shmq.client.lite_pull_consumer import LitePullConsumer as BlockingLitePullConsumer
from shmq.client.message_loop import LOOK_S
from shmq.client.pulled_message import PulledMessage
from shmq.client.service_state import ServiceState
from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import Wanted

THREADS = 2
"""For calls that ask a broker."""


class LitePullConsumer(Service):
    """One consumer that is polled, for one event loop."""

    def __init__(
        self, consumer_group: str, config: LitePullConsumerConfig | None = None, **settings: Any
    ) -> None:
        """Take the settings of the plain lite pull consumer."""
        self._consumer = BlockingLitePullConsumer(consumer_group, config, **settings)
        self._threads = Threads(THREADS, "shmq-aio-lite")
        self._loop: asyncio.AbstractEventLoop
        self._news = asyncio.Event()
        self._waiters = 0

    async def subscribe(self, topic: str, expression: Wanted = "*") -> None:
        """Share a topic's queues with the group's members. Not together with `assign`."""
        await self._threads.run(self._consumer.subscribe, topic, expression)

    async def assign(self, queues: Iterable[MessageQueue], expression: Wanted = "*") -> None:
        """Read exactly these queues, whatever other members do. Not together with `subscribe`."""
        await self._threads.run(self._consumer.assign, queues, expression)

    @property
    def assignment(self) -> set[MessageQueue]:
        """Return the queues that are read now."""
        return self._consumer.assignment

    async def start(self) -> None:
        """Start in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._consumer.on_news = self._on_news
        await self._threads.run(self._consumer.start)

    async def shutdown(self) -> None:
        """Commit positions and leave the group; a poll that waits returns, a loop ends."""
        await self._threads.run(self._consumer.shutdown)
        self._threads.close()

    async def poll(self, timeout_ms: int | None = None) -> list[PulledMessage]:
        """Return one fetched batch, or an empty list when none comes within the timeout."""
        limit_ms = timeout_ms if timeout_ms is not None else self._consumer.config.poll_timeout_ms
        ends_s = time.monotonic() + limit_ms / 1000
        messages = self._consumer.poll(min(0, limit_ms))
        while not messages and (left_s := ends_s - time.monotonic()) > 0:
            await self._wait_for_news(left_s)
            if self._consumer.state is not ServiceState.RUNNING:
                break
            messages = self._consumer.poll(0)
        return messages

    async def _wait_for_news(self, limit_s: float) -> None:
        """Return when there may be something to poll, when the consumer has ended, or after `limit_s`."""
        self._waiters += 1  # before looking: what is fetched after the look rings
        try:
            self._news.clear()
            if not self._consumer.has_fetched and self._consumer.state is ServiceState.RUNNING:
                with contextlib.suppress(TimeoutError):
                    # Not wait_for: before Python 3.12 it forgets a cancellation that comes with the news.
                    async with asyncio.timeout(limit_s):
                        await self._news.wait()
        finally:
            self._waiters -= 1

    def _on_news(self) -> None:
        """Wake who waits; any thread."""
        if self._waiters:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._news.set)

    async def __aiter__(self) -> AsyncIterator[PulledMessage]:
        """Yield messages until `shutdown`; each counts as consumed when the next one is asked for."""
        loop = self._consumer.message_loop()
        try:
            while self._consumer.state is ServiceState.RUNNING:
                message = loop.next(0)
                if message is not None:
                    yield message
                else:
                    await self._wait_for_news(LOOK_S)
        finally:
            loop.close()

    async def commit(
        self, offsets: Mapping[MessageQueue, int] | None = None, *, persist: bool = False
    ) -> None:
        """Store the consumed positions, or the given offsets; at the broker within 5 s, or now with
        `persist`."""
        await self._threads.run(self._consumer.commit, offsets, persist=persist)

    async def committed(self, queue: MessageQueue) -> int:
        """Return the group's stored offset, -1 when there is none."""
        return await self._threads.run(self._consumer.committed, queue)

    async def seek(self, queue: MessageQueue, offset: int) -> None:
        """Go on at `offset`, which must lie within the queue; what was fetched of it is dropped."""
        await self._threads.run(self._consumer.seek, queue, offset)

    async def seek_to_begin(self, queue: MessageQueue) -> None:
        """Go on at the oldest message."""
        await self._threads.run(self._consumer.seek_to_begin, queue)

    async def seek_to_end(self, queue: MessageQueue) -> None:
        """Go on with what comes next."""
        await self._threads.run(self._consumer.seek_to_end, queue)

    async def seek_to_timestamp(self, queue: MessageQueue, timestamp_ms: int) -> None:
        """Go on at the first message stored at or after a time (ms)."""
        await self._threads.run(self._consumer.seek_to_timestamp, queue, timestamp_ms)

    async def offset_for_timestamp(self, queue: MessageQueue, timestamp_ms: int) -> int:
        """Return the first offset stored at or after a time (ms)."""
        return await self._threads.run(self._consumer.offset_for_timestamp, queue, timestamp_ms)

    def pause(self, queues: Iterable[MessageQueue]) -> None:
        """Fetch nothing more of these queues."""
        self._consumer.pause(queues)

    def resume(self, queues: Iterable[MessageQueue]) -> None:
        """Fetch these queues again, within a second."""
        self._consumer.resume(queues)

    async def fetch_subscribe_message_queues(self, topic: str) -> list[MessageQueue]:
        """Return all readable queues of a topic."""
        return await self._threads.run(self._consumer.fetch_subscribe_message_queues, topic)
