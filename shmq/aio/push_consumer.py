"""PushConsumer for asyncio: the listener is a coroutine function that runs in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from shmq.client.consume_service import ConsumeConcurrentlyContext, ConsumeConcurrentlyStatus
from shmq.client.consumer_config import PushConsumerConfig
from shmq.client.push_consumer import PushConsumer as BlockingPushConsumer
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import Wanted

AsyncListener = Callable[
    [list[MessageExt], ConsumeConcurrentlyContext], Awaitable[ConsumeConcurrentlyStatus | None]
]
"""Consumes messages of one queue; `consume_thread_max` calls of it run at once."""


class PushConsumer:
    """One member of a consumer group, for one event loop."""

    def __init__(
        self, consumer_group: str, config: PushConsumerConfig | None = None, **settings: Any
    ) -> None:
        """Take the settings of the plain push consumer."""
        self._consumer = BlockingPushConsumer(consumer_group, config, **settings)
        self._listener: AsyncListener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def register_message_listener(self, listener: AsyncListener) -> None:
        """Set the coroutine function that is called with messages; before `start`."""
        self._listener = listener
        self._consumer.register_message_listener(self._call)

    def _call(
        self, messages: list[MessageExt], context: ConsumeConcurrentlyContext
    ) -> ConsumeConcurrentlyStatus | None:
        """Run the listener in the loop and wait for it, on one of the consumer's listener threads."""
        assert self._listener is not None and self._loop is not None

        async def consume() -> ConsumeConcurrentlyStatus | None:
            assert self._listener is not None
            return await self._listener(messages, context)

        limit_s = self._consumer.config.consume_timeout_min * 60
        return asyncio.run_coroutine_threadsafe(consume(), self._loop).result(limit_s)

    async def subscribe(self, topic: str, expression: Wanted = "*") -> None:
        """Subscribe to a topic; while running, takes effect at once."""
        await asyncio.to_thread(self._consumer.subscribe, topic, expression)

    async def unsubscribe(self, topic: str) -> None:
        """Read a topic no longer."""
        await asyncio.to_thread(self._consumer.unsubscribe, topic)

    async def start(self) -> None:
        """Start in the running loop."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._consumer.start)

    async def shutdown(self) -> None:
        """Stop consuming, commit offsets, leave the group."""
        await asyncio.to_thread(self._consumer.shutdown)

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down."""
        await self.shutdown()

    @property
    def assigned_queues(self) -> list[MessageQueue]:
        """Return the queues this member owns now."""
        return self._consumer.assigned_queues
