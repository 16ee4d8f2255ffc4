"""PullConsumer: the application pulls, queue by queue, and owns its offsets.

    with PullConsumer("my-group") as consumer:
        for queue in consumer.fetch_subscribe_message_queues("orders"):
            result = consumer.pull(queue, "*", consumer.min_offset(queue), 32)

RocketMQ's DefaultMQPullConsumer in Python's spelling. A pull runs in the calling thread; from a local broker
it reads through the consumer's own maps where that is granted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shmq.base.errors import BrokerError, InvalidParameter
from shmq.client.consumer_base import ConsumerBase, check_place
from shmq.client.consumer_config import INT_MAX, PullConsumerConfig
from shmq.client.direct_readers import DirectReaders
from shmq.client.future import SendFuture, calling
from shmq.client.give_back import GiveBack
from shmq.client.listener_calls import hide_namespace
from shmq.client.offset_store import ReadMode
from shmq.client.producer_config import configured
from shmq.client.pull import PullRequest, PullResult, PullStatus
from shmq.client.pulled_message import PulledMessage
from shmq.model.message_queue import MessageQueue
from shmq.model.names import with_namespace
from shmq.model.route import MASTER_ID
from shmq.model.subscription import MessageSelector, SubscriptionData, Wanted, build_subscription
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command

MessageQueueListener = Callable[[str, Sequence[MessageQueue], set[MessageQueue]], None]
"""Called with (topic, all queues, my queues) when the group's members or the queues have changed."""


class PullConsumer(ConsumerBase):
    """A consumer that pulls when told to."""

    def __init__(
        self, consumer_group: str, config: PullConsumerConfig | None = None, **settings: Any
    ) -> None:
        """`settings` are fields of PullConsumerConfig, such as `direct_pull=False`."""
        self.config = configured(PullConsumerConfig, config, settings)
        super().__init__(consumer_group, self.config)
        self._listeners: dict[str, MessageQueueListener] = {}
        self._suggested: dict[MessageQueue, int] = {}
        self._expressions: dict[tuple[str, str | MessageSelector], SubscriptionData] = {}
        self._readers: DirectReaders

    def _check_settings(self) -> None:
        self.config.check()

    def _begin(self) -> None:
        self._readers = DirectReaders(self.consumer_group, self.config, self._instance.periodic)

    def _end(self) -> None:
        self._readers.close()
        self._offsets.persist(list(self._suggested), wait=True)

    # Pulling

    def pull(
        self,
        queue: MessageQueue,
        expression: Wanted,
        offset: int,
        max_count: int,
        timeout_ms: int | None = None,
    ) -> PullResult:
        """Pull up to `max_count` messages from `offset` on; returns at once with one of the four statuses."""
        limit_ms = timeout_ms if timeout_ms is not None else self.config.consumer_pull_timeout_ms
        return self._pull(queue, expression, offset, max_count, 0, limit_ms)

    def pull_block_if_not_found(
        self, queue: MessageQueue, expression: Wanted, offset: int, max_count: int
    ) -> PullResult:
        """Pull like `pull`, but let the broker hold the pull while nothing is there (20 s by default)."""
        config = self.config
        return self._pull(
            queue,
            expression,
            offset,
            max_count,
            config.broker_suspend_max_time_ms,
            config.consumer_timeout_when_suspend_ms,
        )

    def pull_async(
        self,
        queue: MessageQueue,
        expression: Wanted,
        offset: int,
        max_count: int,
        on_success: Callable[[PullResult], object] | None = None,
        on_exception: Callable[[BaseException], object] | None = None,
        *,
        block_if_not_found: bool = False,
    ) -> SendFuture[PullResult]:
        """Ask the broker for a pull and return its future; with `block_if_not_found` it may be held there.

        Exactly one of the callbacks is called, by a client thread, which must not be kept long.
        """
        self._check_pull(queue, offset, max_count)
        self._announce(queue.topic)
        config = self.config
        link = self._instance.routes.reading_link(queue.broker_name, self._suggested.get(queue, MASTER_ID))
        request = PullRequest(
            self.consumer_group,
            queue,
            offset,
            max_count,
            self._subscription(queue.topic, expression),
            post_subscription=True,
            suspend_ms=config.broker_suspend_max_time_ms if block_if_not_found else 0,
            max_bytes=config.pull_batch_size_in_bytes,
        )
        future: SendFuture[PullResult] = SendFuture()
        if on_success is not None or on_exception is not None:
            future.add_done_callback(calling(on_success, on_exception))

        def answered(response: Command | None, error: Exception | None) -> None:
            try:
                if response is None:
                    raise error or BrokerError(ResponseCode.SYSTEM_ERROR, "no answer")
                result = request.result(response)
                if config.namespace:
                    hide_namespace(result.messages, config.namespace)
            except Exception as failure:  # whoever waits must hear of an undecodable answer, too
                future.set_exception(failure)
                return
            self._suggested[queue] = result.suggested_broker_id
            future.set_result(result)

        timeouts = (config.consumer_pull_timeout_ms, config.consumer_timeout_when_suspend_ms)
        link.send_async(request.command(), timeouts[block_if_not_found] / 1000, answered)
        return future

    def _check_pull(self, queue: MessageQueue, offset: int, max_count: int) -> None:
        self._check_running()
        check_place(queue, offset)
        if not isinstance(max_count, int) or not 1 <= max_count <= INT_MAX:
            raise InvalidParameter(f"max_count is {max_count!r}; allowed is 1..{INT_MAX}")

    def _pull(
        self,
        queue: MessageQueue,
        expression: Wanted,
        offset: int,
        max_count: int,
        suspend_ms: int,
        limit_ms: int,
    ) -> PullResult:
        self._check_pull(queue, offset, max_count)
        result = self._pull_whole(queue, expression, offset, max_count, suspend_ms, limit_ms)
        if self.config.namespace:
            hide_namespace(result.messages, self.config.namespace)
        return result

    def _pull_whole(
        self,
        queue: MessageQueue,
        expression: Wanted,
        offset: int,
        max_count: int,
        suspend_ms: int,
        limit_ms: int,
    ) -> PullResult:
        """Pull directly where that is granted and brings something, else by socket."""
        self._announce(queue.topic)
        subscription = self._subscription(queue.topic, expression)
        link = self._instance.routes.reading_link(queue.broker_name, self._suggested.get(queue, MASTER_ID))
        reader = self._readers.of(link)
        max_bytes = self.config.pull_batch_size_in_bytes
        if reader is not None:
            direct = reader.pull(queue, offset, max_count, max_bytes, subscription)
            if direct is not None and (suspend_ms == 0 or direct.status is not PullStatus.NO_NEW_MSG):
                self._suggested.setdefault(queue, MASTER_ID)
                self._offsets.count_read(queue, len(direct.messages), direct.record_bytes)
                return direct
        request = PullRequest(
            self.consumer_group,
            queue,
            offset,
            max_count,
            subscription,
            post_subscription=True,
            suspend_ms=suspend_ms,
            max_bytes=max_bytes,
        )
        epoch = reader.policy_epoch() if reader is not None else None
        try:
            result = request.pull(link, limit_ms / 1000)
        except BaseException:
            if reader is not None:
                reader.note_socket_pull(queue, None, accepted=False)
            raise
        if reader is not None:
            refused = result.status is PullStatus.OFFSET_ILLEGAL or result.is_filtered_there
            reader.note_socket_pull(queue, epoch, accepted=not refused)
        self._suggested[queue] = result.suggested_broker_id
        return result

    def _announce(self, topic: str) -> None:
        """Name a topic in the heartbeats from its first pull on, so that operators see who reads it.

        BrokerError when the group's other members consume in another mode.
        """
        if self._subscriptions.get(topic) is None:
            self._subscribe(topic, "*")

    def _subscription(self, topic: str, expression: Wanted) -> SubscriptionData:
        """Return the parsed expression; the same few come all the time."""
        key = (topic, expression or "*")
        held = self._expressions.get(key)
        if held is None:
            held = self._expressions[key] = build_subscription(topic, expression)
        return held

    # Offsets: the application's own, kept at the broker when it wants

    def fetch_consume_offset(self, queue: MessageQueue, from_store: bool = True) -> int:
        """Return the group's offset, -1 when there is none; from memory first unless `from_store`."""
        self._check_running()
        return self._offsets.read(queue, ReadMode.STORE if from_store else ReadMode.MEMORY_THEN_STORE)

    def update_consume_offset(self, queue: MessageQueue, offset: int) -> None:
        """Remember the group's offset; stored every 5 s and at shutdown."""
        self._check_running()
        check_place(queue, offset)
        self._suggested.setdefault(queue, MASTER_ID)
        self._offsets.update(queue, offset, increase_only=False)

    def persist_offsets(self) -> None:
        """Commit the offsets of every queue this consumer has pulled or updated."""
        self._offsets.persist(list(self._suggested))

    def send_message_back(
        self, message: PulledMessage, delay_level: int = 0, last_error: str = "given back by hand"
    ) -> None:
        """Give one message back, to be delivered to the group again later; `last_error` is kept with it."""
        self._check_running()
        limit, instance = self.config.max_reconsume_times, self._instance
        group, namespace = self.consumer_group, self.config.namespace
        back = GiveBack(group, limit, instance.calls, instance.routes, namespace)
        back.give(message, delay_level, last_error)

    # Sharing queues with other members

    def fetch_message_queues_in_balance(self, topic: str) -> set[MessageQueue]:
        """Return this member's share of a topic's queues, as of the last rebalance."""
        self._check_running()
        topic = with_namespace(self.config.namespace, topic)
        return {queue for queue in self._rebalancer.owned if queue.topic == topic}

    def register_message_queue_listener(self, topic: str, listener: MessageQueueListener) -> None:
        """Have a function called when this member's share of a topic changes; joins the topic's balance."""
        if not callable(listener):
            raise InvalidParameter(
                f"listener {listener!r} cannot be called with (topic, all queues, own queues)"
            )
        self._listeners[with_namespace(self.config.namespace, topic)] = listener
        self._subscriptions.put_if_absent(topic, "*")

    def queue_dropped(self, queue: MessageQueue, held: Any) -> None:
        """Commit the offset of a queue that went to another member."""
        super().queue_dropped(queue, held)
        self._suggested.pop(queue, None)

    def first_offset(self, queue: MessageQueue) -> int:
        """Return nothing of use: the application knows where it begins."""
        return 0

    def queues_changed(self, topic: str, everyones: Sequence[MessageQueue], mine: set[MessageQueue]) -> None:
        """Tell the topic's listener."""
        listener = self._listeners.get(topic)
        if listener is not None:
            listener(topic, everyones, mine)
