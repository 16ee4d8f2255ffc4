"""LitePullConsumer for asyncio: `await consumer.poll()`, or `async for message in consumer`."""

from __future__ import annotations

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
"""One may wait for messages while another stores offsets."""


class LitePullConsumer(Service):
    """One consumer that is polled, for one event loop."""

    def __init__(
        self, consumer_group: str, config: LitePullConsumerConfig | None = None, **settings: Any
    ) -> None:
        """Take the settings of the plain lite pull consumer."""
        self._consumer = BlockingLitePullConsumer(consumer_group, config, **settings)
        self._threads = Threads(THREADS, "shmq-aio-lite")

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
        """Start."""
        await self._threads.run(self._consumer.start)

    async def shutdown(self) -> None:
        """Commit positions and leave the group; a poll that waits returns, a loop ends."""
        await self._threads.run(self._consumer.shutdown)
        self._threads.close()

    async def poll(self, timeout_ms: int | None = None) -> list[PulledMessage]:
        """Return one fetched batch, or an empty list when none comes within the timeout."""
        return await self._threads.run(self._consumer.poll, timeout_ms)

    async def __aiter__(self) -> AsyncIterator[PulledMessage]:
        """Yield messages until `shutdown`; each counts as consumed when the next one is asked for."""
        loop = self._consumer.message_loop()
        try:
            while self._consumer.state is ServiceState.RUNNING:
                # What has been fetched already needs no thread.
                message = loop.next(0) or await self._threads.run(loop.next, LOOK_S)
                if message is not None:
                    yield message
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
