"""PushConsumer for asyncio: the listener is a coroutine function that runs in the event loop.

Each call takes one of the consumer's listener threads, which only waits: so `consume_thread_max` bounds the
calls under way, and retries, order, commits and hooks are those of the plain consumer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from shmq.aio.service import Service
from shmq.client.consume_service import ConsumeConcurrentlyContext, ConsumeConcurrentlyStatus
from shmq.client.consumer_config import PushConsumerConfig
from shmq.client.orderly_service import ConsumeOrderlyContext, ConsumeOrderlyStatus
from shmq.client.push_consumer import PushConsumer as BlockingPushConsumer
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import Wanted

C = TypeVar("C")
R = TypeVar("R")

AsyncListener = Callable[
    [list[MessageExt], ConsumeConcurrentlyContext], Awaitable[ConsumeConcurrentlyStatus | None]
]
"""Consumes messages of one queue; `consume_thread_max` calls of it run at once."""

AsyncOrderlyListener = Callable[
    [list[MessageExt], ConsumeOrderlyContext], Awaitable[ConsumeOrderlyStatus | None]
]
"""Consumes messages of one queue in their order; never called twice at once for one queue."""


class PushConsumer(Service):
    """One member of a consumer group, for one event loop."""

    def __init__(
        self, consumer_group: str, config: PushConsumerConfig | None = None, **settings: Any
    ) -> None:
        """Take the settings of the plain push consumer."""
        self._consumer = BlockingPushConsumer(consumer_group, config, **settings)
        self._loop: asyncio.AbstractEventLoop | None = None

    def register_message_listener(self, listener: AsyncListener) -> None:
        """Set the coroutine function that is called with messages; before `start`."""

        def consume(
            messages: list[MessageExt], context: ConsumeConcurrentlyContext
        ) -> ConsumeConcurrentlyStatus | None:
            return self._in_loop(listener, messages, context)

        self._consumer.register_message_listener(consume)

    def register_message_listener_orderly(self, listener: AsyncOrderlyListener) -> None:
        """Set the coroutine function that is called with each queue's messages in their order; before
        `start`."""

        def consume(
            messages: list[MessageExt], context: ConsumeOrderlyContext
        ) -> ConsumeOrderlyStatus | None:
            return self._in_loop(listener, messages, context)

        self._consumer.register_message_listener_orderly(consume)

    def _in_loop(
        self, listener: Callable[[list[MessageExt], C], Awaitable[R]], messages: list[MessageExt], context: C
    ) -> R:
        """Run a listener in the loop and wait for it, on one of the consumer's listener threads."""
        assert self._loop is not None, "a started consumer has its loop"

        async def consume() -> R:
            return await listener(messages, context)

        call = asyncio.run_coroutine_threadsafe(consume(), self._loop)
        try:
            return call.result(self._consumer.config.consume_timeout_min * 60)
        except TimeoutError:
            call.cancel()
            raise

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

    def suspend(self) -> None:
        """Pull nothing more and keep the queues; cached messages are still consumed."""
        self._consumer.suspend()

    def resume(self) -> None:
        """Pull again, within a second."""
        self._consumer.resume()

    @property
    def assigned_queues(self) -> list[MessageQueue]:
        """Return the queues this member owns now."""
        return self._consumer.assigned_queues
