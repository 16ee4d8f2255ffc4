"""AsyncSender: the asynchronous half of a producer: room, batching, retries, settling.

`one` and `batch` run in the calling thread; answers settle on reader threads; retries run on the send path's
retry threads. A message joins a batch when its broker is a local shmq (or `auto_batch` says so), unless it
needs a broker rule of its own, hooks want to see each attempt, or the producer is idempotent: a batch that is
sent again is another batch, and its sequence would be another one's.
"""

from __future__ import annotations

from shmq.base.errors import ClientFault
from shmq.client.accumulator import Accumulator
from shmq.client.async_send import AsyncSend
from shmq.client.in_flight import InFlight
from shmq.client.outgoing import Outgoing, travels_alone
from shmq.client.payload import Payload, SinglePayload
from shmq.client.producer_config import ProducerConfig
from shmq.client.send_hooks import SendHooks
from shmq.client.send_path import SendPath
from shmq.client.send_result import SendResult
from shmq.model.message_queue import MessageQueue
from shmq.model.sequence import PRODUCER_WINDOW

COUNT_MAX = 16_384
"""Unanswered async sends of one producer, without backpressure mode."""


class AsyncSender:
    """The async sends of one producer."""

    def __init__(self, config: ProducerConfig, path: SendPath, hooks: SendHooks) -> None:
        """Start with nothing under way."""
        self._config = config
        self._path = path
        self._hooks = hooks
        if config.enable_backpressure_for_async_mode:
            count, size = config.back_pressure_for_async_send_num, config.back_pressure_for_async_send_size
        else:
            count, size = COUNT_MAX, config.total_batch_max_bytes
        if config.enable_idempotence:  # a broker knows a producer's last PRODUCER_WINDOW sends
            count = min(count, PRODUCER_WINDOW // 2)
        self._room = InFlight(max(10, count), max(1 << 20, size))
        self._accumulator = Accumulator(
            config, path.commands, self._room, path.link, again=self._again, alone=self._alone
        )

    def close(self, limit_s: float) -> None:
        """Send what waits and wait for the answers."""
        self._accumulator.close()
        self._room.wait_empty(limit_s)

    def one(self, send: AsyncSend, queue: MessageQueue | None) -> None:
        """Send one checked message; to `queue` when the caller named it."""
        try:
            target = queue if queue is not None else self._path.next_queue(send.message.topic)
            self._room.enter(send.size, send.deadline)
        except Exception as error:  # no route, no room: whoever holds the future must hear of it
            send.set_exception(error)
            return
        config, message = self._config, send.message
        single = config.auto_batch is False or config.enable_idempotence
        if single or self._hooks or (not message.is_plain and travels_alone(message)):
            self._alone(send, target)
        elif self._accumulator.has_lane(target) or config.auto_batch or self._path.is_local(target):
            self._accumulator.add(send, target)
        else:
            self._alone(send, target)

    def batch(self, send: AsyncSend, payload: Payload, queue: MessageQueue | None) -> None:
        """Send a list as one batch."""
        try:
            self._room.enter(send.size, send.deadline)
        except Exception as error:
            send.set_exception(error)
            return
        self._dispatch(send, payload, queue)

    def _alone(self, send: AsyncSend, queue: MessageQueue) -> None:
        """Send one message by a request of its own, first to `queue`."""
        try:
            payload = SinglePayload(Outgoing(send.message, self._config), self._path.commands)
        except Exception as error:
            self._settle(send, None, error)
            return
        self._dispatch(send, payload, queue if send.fixed else None, queue)

    def _again(self, send: AsyncSend, failed: MessageQueue) -> None:
        """Retry a message whose batch broke: on another broker's queue, unless the caller named the queue."""
        send.attempts -= 1
        self._path.later(lambda: self._choose_again(send, failed))

    def _choose_again(self, send: AsyncSend, failed: MessageQueue) -> None:
        try:
            queue = failed if send.fixed else self._path.next_queue(failed.topic, failed.broker_name)
        except Exception as error:
            self._settle(send, None, error)
        else:
            self._accumulator.add(send, queue)

    def _dispatch(
        self,
        send: AsyncSend,
        payload: Payload,
        queue: MessageQueue | None,
        first: MessageQueue | None = None,
    ) -> None:
        """Send a payload; its answer settles the future."""
        try:
            self._path.send_async(
                payload,
                send.deadline,
                queue,
                lambda result, error: self._settle(send, result, error),
                send.attempts + 1,
                first,
            )
        except Exception as error:
            self._settle(send, None, error)

    def _settle(self, send: AsyncSend, result: SendResult | None, error: Exception | None) -> None:
        self._room.leave(1, send.size)
        if result is not None:
            send.set_result(result)
        else:
            send.set_exception(error or ClientFault("the send ended without a result"))
