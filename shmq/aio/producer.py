"""Producer for asyncio: awaited sends that batch themselves like `send_async` of the plain producer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from shmq.aio.bridge import Bridge
from shmq.aio.service import Service
from shmq.client.async_send import AsyncSend
from shmq.client.producer import Producer as BlockingProducer
from shmq.client.producer_config import ProducerConfig
from shmq.client.queue_selection import MessageQueueSelector
from shmq.client.request_reply import no_reply
from shmq.client.send_result import Durability, SendResult
from shmq.model.message import Message
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue


class Producer(Service):
    """One producer of a group, for one event loop."""

    def __init__(self, producer_group: str, config: ProducerConfig | None = None, **settings: Any) -> None:
        """Take the settings of the plain producer."""
        self._producer = BlockingProducer(producer_group, config, **settings)
        self._bridge: Bridge | None = None

    async def start(self) -> None:
        """Start in the running loop."""
        await asyncio.to_thread(self._producer.start)
        self._bridge = Bridge("shmq-aio-producer")

    async def shutdown(self) -> None:
        """Wait for what is under way and leave the group."""
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            done = asyncio.get_running_loop().create_future()
            bridge.submit(lambda: bridge.settle(done, None, None))
            await done  # sends submitted before are handed over now
            bridge.close()
        await asyncio.to_thread(self._producer.shutdown)

    async def send(
        self,
        message: Message | Sequence[Message],
        *,
        queue: MessageQueue | None = None,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
        timeout_ms: int | None = None,
        wait_for: Durability | None = None,
    ) -> SendResult:
        """Send one message, or a list as one batch. Sends awaited together travel together.

        `wait_for` asks for more than the broker's mode promises, such as `Durability.FLUSHED`.
        """
        bridge = self._running()
        future: asyncio.Future[SendResult] = asyncio.get_running_loop().create_future()

        def settle(sent: AsyncSend) -> None:
            error = sent.exception()
            bridge.settle(future, None if error is not None else sent.result(), error)

        def call() -> None:
            try:
                sent = self._producer.send_async(
                    message,
                    queue=queue,
                    selector=selector,
                    argument=argument,
                    timeout_ms=timeout_ms,
                    wait_for=wait_for,
                )
            except Exception as error:
                bridge.settle(future, None, error)
            else:
                sent.add_done_callback(settle)  # type: ignore[arg-type]  # it is the future's own class

        bridge.submit(call)
        return await future

    async def send_oneway(self, message: Message, *, queue: MessageQueue | None = None) -> None:
        """Send one message without an answer; returns when it was handed to the connection."""
        bridge = self._running()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def call() -> None:
            try:
                self._producer.send_oneway(message, queue=queue)
            except Exception as error:
                bridge.settle(future, None, error)
            else:
                bridge.settle(future, None, None)

        bridge.submit(call)
        await future

    async def request(
        self,
        message: Message,
        *,
        queue: MessageQueue | None = None,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
        timeout_ms: int | None = None,
    ) -> MessageExt:
        """Send a request and wait for the reply of its consumer; RequestTimeout (10006) without one."""
        bridge = self._running()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[MessageExt] = loop.create_future()
        limit_ms = self._producer.config.send_msg_timeout_ms if timeout_ms is None else timeout_ms

        def call() -> None:
            try:
                self._producer.request_async(
                    message,
                    lambda reply: bridge.settle(future, reply, None),
                    lambda error: bridge.settle(future, None, error),
                    queue=queue,
                    selector=selector,
                    argument=argument,
                    timeout_ms=limit_ms,
                )
            except Exception as error:
                bridge.settle(future, None, error)

        bridge.submit(call)
        # The plain producer looks for late requests once a second only.
        late = loop.call_later(limit_ms / 1000, bridge.settle, future, None, no_reply(message.topic))
        try:
            return await future
        finally:
            late.cancel()

    async def recall_message(self, topic: str, recall_handle: str, timeout_ms: int | None = None) -> str:
        """Take a message back that still waits for its moment; as the plain producer's."""
        return await asyncio.to_thread(self._producer.recall_message, topic, recall_handle, timeout_ms)

    async def reschedule_message(
        self, topic: str, recall_handle: str, deliver_at: datetime, timeout_ms: int | None = None
    ) -> str:
        """Put a message off that still waits, later or earlier; as the plain producer's."""
        move = self._producer.reschedule_message
        return await asyncio.to_thread(move, topic, recall_handle, deliver_at, timeout_ms)

    async def fetch_publish_message_queues(self, topic: str) -> list[MessageQueue]:
        """Return the queues of a topic that may be sent to."""
        return await asyncio.to_thread(self._producer.fetch_publish_message_queues, topic)

    def _running(self) -> Bridge:
        self._producer.check_running()
        assert self._bridge is not None, "a running producer has its bridge"
        return self._bridge
