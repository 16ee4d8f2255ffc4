"""PullConsumer for asyncio: pulls are awaited; each runs on a thread of the consumer's own pool."""

from __future__ import annotations

from typing import Any

from shmq.aio.service import Service
from shmq.aio.threads import Threads
from shmq.client.consumer_config import PullConsumerConfig
from shmq.client.pull import PullResult
from shmq.client.pull_consumer import PullConsumer as BlockingPullConsumer
from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import Wanted

PULLS_MAX = 64
"""Pulls that may be held at the same time."""


class PullConsumer(Service):
    """A consumer that pulls when told to, for one event loop."""

    def __init__(
        self, consumer_group: str, config: PullConsumerConfig | None = None, **settings: Any
    ) -> None:
        """Take the settings of the plain pull consumer."""
        self._consumer = BlockingPullConsumer(consumer_group, config, **settings)
        self._threads = Threads(PULLS_MAX, "shmq-aio-pull")

    async def start(self) -> None:
        """Start."""
        await self._threads.run(self._consumer.start)

    async def shutdown(self) -> None:
        """Commit offsets and leave the group; held pulls end with their time."""
        await self._threads.run(self._consumer.shutdown)
        self._threads.close()

    async def pull(self, queue: MessageQueue, expression: Wanted, offset: int, max_count: int) -> PullResult:
        """Pull; returns at once with one of the four statuses."""
        return await self._threads.run(self._consumer.pull, queue, expression, offset, max_count)

    async def pull_block_if_not_found(
        self, queue: MessageQueue, expression: Wanted, offset: int, max_count: int
    ) -> PullResult:
        """Pull, waiting at the broker while nothing is there (20 s by default)."""
        return await self._threads.run(
            self._consumer.pull_block_if_not_found, queue, expression, offset, max_count
        )

    async def fetch_subscribe_message_queues(self, topic: str) -> list[MessageQueue]:
        """Return all readable queues of a topic."""
        return await self._threads.run(self._consumer.fetch_subscribe_message_queues, topic)

    async def min_offset(self, queue: MessageQueue) -> int:
        """Return the oldest offset that can be read."""
        return await self._threads.run(self._consumer.min_offset, queue)

    async def max_offset(self, queue: MessageQueue) -> int:
        """Return the next offset to be written."""
        return await self._threads.run(self._consumer.max_offset, queue)

    async def search_offset(self, queue: MessageQueue, timestamp_ms: int) -> int:
        """Return the first offset stored at or after a time (ms)."""
        return await self._threads.run(self._consumer.search_offset, queue, timestamp_ms)

    async def fetch_consume_offset(self, queue: MessageQueue, from_store: bool = True) -> int:
        """Return the group's offset, -1 when there is none."""
        return await self._threads.run(self._consumer.fetch_consume_offset, queue, from_store)

    def update_consume_offset(self, queue: MessageQueue, offset: int) -> None:
        """Remember the group's offset; stored every 5 s and at shutdown."""
        self._consumer.update_consume_offset(queue, offset)
