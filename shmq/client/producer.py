"""Producer: sends messages; synchronously, asynchronously, oneway, in batches, to chosen queues.

    with Producer("my-group") as producer:
        producer.send(Message("orders", b"hello", tags="TagA"))

RocketMQ's DefaultMQProducer in Python's spelling. Any thread may send; a forked child goes on sending over
connections of its own. Threads are made only when needed: a sync send runs wholly in the calling thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shmq.base.errors import ClientFault
from shmq.client.accumulator import RECORD_OVERHEAD
from shmq.client.async_send import AsyncSend
from shmq.client.batch import SPLIT_BYTES, check_batch
from shmq.client.errors import RemotingTimeout
from shmq.client.future import SendFuture, calling
from shmq.client.outgoing import Outgoing, ask_for, check_all_sendable, check_sendable, placed
from shmq.client.outgoing_batch import OutgoingBatch
from shmq.client.payload import BatchPayload, Payload, SinglePayload
from shmq.client.producer_queries import ProducerQueries
from shmq.client.queue_selection import MessageQueueSelector
from shmq.client.request_reply import no_reply
from shmq.client.send_result import Durability, SendResult
from shmq.client.split_send import SentPiece, split_send
from shmq.model.message import Message
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue


class Producer(ProducerQueries):
    """One producer of a group."""

    def send(
        self,
        message: Message | Sequence[Message],
        *,
        queue: MessageQueue | None = None,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
        timeout_ms: int | None = None,
        wait_for: Durability | None = None,
    ) -> SendResult:
        """Send one message, or a list as one batch, and wait for the broker's answer.

        `wait_for` asks for more (or less) than the broker's mode promises, such as `Durability.FLUSHED`; it
        is noted in the message, as RocketMQ's WAIT is. A broker that could not give it says so in
        `send_status`, and `durability` names what was reached.

        With `queue`, or `selector` and its `argument`, there is exactly one attempt. Errors: MessageIllegal
        and InvalidParameter for what may not be sent, BrokerError for a refusal, ClientError when all
        attempts failed; `code` tells why.
        """
        message = placed(message, self.config.namespace)
        ask_for(message, wait_for)
        payload = self._payload(message)
        target = self._target(payload, queue, selector, argument)
        return self._path.send(payload, self._timeout_ms(timeout_ms), target)

    def request(
        self,
        message: Message,
        *,
        queue: MessageQueue | None = None,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
        timeout_ms: int | None = None,
    ) -> MessageExt:
        """Send a request and wait for the reply of whoever consumes it; RequestTimeout (10006) without one.

        The time covers both ways. Errors of the send as in `send`.
        """
        limit_ms = self._timeout_ms(timeout_ms)
        reply = self.request_async(
            message, queue=queue, selector=selector, argument=argument, timeout_ms=limit_ms
        )
        try:
            return reply.result(limit_ms / 1000)
        except RemotingTimeout:
            self._instance.replies.give_up(message, no_reply(message.topic))
            return reply.result(0)

    def request_async(
        self,
        message: Message,
        on_reply: Callable[[MessageExt], object] | None = None,
        on_exception: Callable[[BaseException], object] | None = None,
        *,
        queue: MessageQueue | None = None,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
        timeout_ms: int | None = None,
    ) -> SendFuture[MessageExt]:
        """Send a request and return the future of its reply.

        `on_reply` is called with a reply only, never for the broker's acknowledgement; a future without reply
        fails within a second after its time.
        """
        limit_ms = self._timeout_ms(timeout_ms)
        message = placed(message, self.config.namespace)
        self._use(message.topic)
        self._path.publish_info(message.topic)
        instance = self._instance
        instance.announce()
        reply = instance.replies.expect(message, instance.client_id, limit_ms)
        if on_reply is not None or on_exception is not None:
            reply.add_done_callback(calling(on_reply, on_exception))
        self.send_async(
            message,
            on_exception=lambda error: instance.replies.give_up(message, error),
            queue=queue,
            selector=selector,
            argument=argument,
            timeout_ms=limit_ms,
        )
        return reply

    def send_oneway(
        self,
        message: Message,
        *,
        queue: MessageQueue | None = None,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
    ) -> None:
        """Send one message without an answer: quick, and a loss is not noticed."""
        message = placed(message, self.config.namespace)
        outgoing = Outgoing(message, self.config)
        self._use(message.topic)
        if selector is not None:
            queue = self._path.select(message, selector, argument)
        self._path.send_oneway(outgoing, queue)

    def send_async(
        self,
        message: Message | Sequence[Message],
        on_success: Callable[[SendResult], object] | None = None,
        on_exception: Callable[[BaseException], object] | None = None,
        *,
        queue: MessageQueue | None = None,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
        timeout_ms: int | None = None,
        wait_for: Durability | None = None,
    ) -> AsyncSend:
        """Hand a message (or a list as one batch) over and return its future. `wait_for` as in `send`.

        Exactly one of the callbacks is called, by a client thread, which must not be kept long. Waits for
        room when too much is under way, up to the timeout; then the future fails with TooMuchRequest.
        """
        config = self.config
        if config.namespace:
            message = placed(message, config.namespace)
        if wait_for is not None:
            ask_for(message, wait_for)
        limit_ms = config.send_msg_timeout_ms if timeout_ms is None else timeout_ms
        deadline = time.monotonic() + limit_ms / 1000
        retries = config.retry_times_when_send_async_failed
        if isinstance(message, Message):
            check_sendable(message, config.max_message_size)
            self._use(message.topic)
            if selector is not None:
                queue = self._path.select(message, selector, argument)
            size = len(message.body) + RECORD_OVERHEAD
            send = AsyncSend(message, deadline, retries, queue is not None, size)
            if on_success is not None or on_exception is not None:
                send.add_done_callback(calling(on_success, on_exception))
            self._asynchronous.one(send, queue)
            return send
        payload = self._payload(message)
        target = self._target(payload, queue, selector, argument)
        size = sum([len(member.body) for member in message]) + RECORD_OVERHEAD * len(message)
        send = AsyncSend(message[0], deadline, retries, target is not None, size)
        if on_success is not None or on_exception is not None:
            send.add_done_callback(calling(on_success, on_exception))
        self._asynchronous.batch(send, payload, target)
        return send

    def send_split(
        self,
        messages: Iterable[Message],
        *,
        selector: MessageQueueSelector | None = None,
        argument: Any = None,
        timeout_ms: int | None = None,
        wait_for: Durability | None = None,
    ) -> list[SentPiece]:
        """Send any list, of several topics and any length, as batches: one or more per queue.

        Each topic goes to one queue, chosen as for a single send, unless `selector` chooses for every
        message. Returns what became of each batch, errors included; nothing is raised but for the list
        itself. Order is kept in each queue: behind a batch that failed nothing more of its queue is sent.
        """
        chosen: dict[str, MessageQueue] = {}

        def queue_of(message: Message) -> MessageQueue:
            message = placed(message, self.config.namespace)
            self._use(message.topic)
            if selector is not None:
                return self._path.select(message, selector, argument)
            found = chosen.get(message.topic)
            if found is None:
                found = chosen[message.topic] = self._path.next_queue(message.topic)
            return found

        def send(piece: Message | Sequence[Message], queue: MessageQueue) -> AsyncSend:
            return self.send_async(piece, queue=queue, timeout_ms=timeout_ms, wait_for=wait_for)

        return split_send(messages, queue_of, send, min(self.config.max_message_size, SPLIT_BYTES))

    def _payload(self, message: Message | Sequence[Message]) -> Payload:
        """Check and prepare what is to be sent."""
        if isinstance(message, Message):
            outgoing = Outgoing(message, self.config)
            self._use(message.topic)
            return SinglePayload(outgoing, self._path.commands)
        check_batch(message)
        check_all_sendable(message, self.config.max_message_size)
        self._use(message[0].topic)
        return BatchPayload(OutgoingBatch(message, self.config, may_compress=False), self._path.commands)

    def _target(
        self,
        payload: Payload,
        queue: MessageQueue | None,
        selector: MessageQueueSelector | None,
        argument: Any,
    ) -> MessageQueue | None:
        if queue is not None and queue.topic != payload.topic:
            raise ClientFault(f"the queue belongs to topic {queue.topic!r}, the message to {payload.topic!r}")
        if selector is not None:
            return self._path.select(payload.message, selector, argument)
        return queue
