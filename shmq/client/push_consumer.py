"""PushConsumer: calls a listener with the messages of its share of the subscribed topics' queues.

    def consume(messages, context):
        ...
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    consumer = PushConsumer("my-group", consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET)
    consumer.subscribe("orders", "TagA || TagB")
    consumer.register_message_listener(consume)
    with consumer:
        ...

RocketMQ's DefaultMQPushConsumer in Python's spelling, with a concurrent or an orderly listener. "Push" is a
held pull: the broker answers when something arrives. From a local broker messages are read through the
consumer's own maps (`direct_pull=False` switches that off); nothing else differs. Threads: pull, rebalance,
duties, one reader per broker, listeners as needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shmq.base.errors import ClientFault, InvalidParameter, SystemBusy
from shmq.client.consume_service import ConcurrentListener, ConsumeService
from shmq.client.consume_stats import ConsumeStats
from shmq.client.consumer_base import ConsumerBase
from shmq.client.consumer_config import PushConsumerConfig
from shmq.client.give_back import GiveBack
from shmq.client.links import BrokerLink
from shmq.client.listener_calls import ListenerCalls
from shmq.client.offset_store import ReadMode
from shmq.client.orderly_locks import FIRST_RENEWAL_S, LOCK_INTERVAL_S, OrderlyLocks
from shmq.client.orderly_service import OrderlyListener, OrderlyService
from shmq.client.periodic import Duty
from shmq.client.producer_config import configured
from shmq.client.pull_service import PullService
from shmq.client.pulled_message import PulledMessage
from shmq.client.push_requests import PushRequests
from shmq.client.rebalancer import Owned
from shmq.client.service_state import ServiceState
from shmq.model.consumer_group import ConsumeType, MessageModel
from shmq.model.message_queue import MessageQueue
from shmq.model.names import retry_topic
from shmq.model.subscription import Wanted
from shmq.protocol.command import Command


class PushConsumer(ConsumerBase):
    """One member of a consumer group."""

    CONSUME_TYPE = ConsumeType.CONSUME_PASSIVELY
    PULLS_ITSELF = True

    def __init__(
        self, consumer_group: str, config: PushConsumerConfig | None = None, **settings: Any
    ) -> None:
        """`settings` are fields of PushConsumerConfig, such as `consume_thread_max=4`."""
        self.config = configured(PushConsumerConfig, config, settings)
        super().__init__(consumer_group, self.config)
        self._listener: ConcurrentListener | None = None
        self._orderly_listener: OrderlyListener | None = None
        self._consuming: ConsumeService | OrderlyService
        self._locks: OrderlyLocks | None = None
        self._renewing: Duty | None = None
        self._pulling: PullService
        self._back: GiveBack
        self._requests: PushRequests
        self._cleaning: Duty
        self._stats = ConsumeStats()
        self._taken: list[tuple[MessageQueue, Owned, int]] = []

    # Before and while running

    def subscribe(self, topic: str, expression: Wanted = "*") -> None:
        """Subscribe to a topic; `expression` is `*`, `TagA || TagB` or `MessageSelector.by_sql(...)`. While
        running, takes effect at once."""
        self._subscribe(topic, expression)

    def unsubscribe(self, topic: str) -> None:
        """Read a topic no longer; its queues are released at the next rebalance, which comes at once."""
        self._subscriptions.remove(topic)
        if self._state is ServiceState.RUNNING:
            self._instance.rebalance_now()

    def register_message_listener(self, listener: ConcurrentListener) -> None:
        """Set what is called with messages; before `start`."""
        self._check_listener(listener)
        self._listener, self._orderly_listener = listener, None

    def register_message_listener_orderly(self, listener: OrderlyListener) -> None:
        """Set what is called with each queue's messages in their order; before `start`."""
        self._check_listener(listener)
        self._listener, self._orderly_listener = None, listener

    def _check_listener(self, listener: object) -> None:
        if not callable(listener):
            raise InvalidParameter(f"listener {listener!r} cannot be called with (messages, context)")
        if self._state is not ServiceState.CREATE_JUST:
            raise ClientFault("register the listener before the consumer is started")

    @property
    def listener(self) -> ConcurrentListener:
        """Return what is called with messages; ClientFault before it was set, and for an orderly one."""
        if self._orderly_listener is not None:
            raise ClientFault("this consumer has an orderly listener: it takes messages from its queues only")
        if self._listener is None:
            raise ClientFault("a push consumer needs a listener: register_message_listener before start")
        return self._listener

    def suspend(self) -> None:
        """Pull nothing more and keep the queues; cached messages are still consumed."""
        self._check_running()
        self._pulling.paused = True

    def resume(self) -> None:
        """Pull again, within a second."""
        self._check_running()
        self._pulling.paused = False
        self._instance.rebalance_now()

    @property
    def suspended(self) -> bool:
        """Tell whether `suspend` holds."""
        return self._state is ServiceState.RUNNING and self._pulling.paused

    def update_core_pool_size(self, count: int) -> None:
        """Run the listener on at most `count` threads from now on, 1 to `consume_thread_max`; others are
        ignored, as in RocketMQ."""
        self._check_running()
        if 1 <= count <= self.config.consume_thread_max:
            self._consuming.set_threads(count)

    @property
    def assigned_queues(self) -> list[MessageQueue]:
        """Return the queues this member owns now."""
        return sorted(self._rebalancer.owned) if self._state is ServiceState.RUNNING else []

    def send_message_back(
        self, message: PulledMessage, delay_level: int = 0, last_error: str = "given back by hand"
    ) -> None:
        """Give one message back, to be delivered again later; `last_error` is kept with it."""
        self._check_running()
        self._back.give(message, delay_level, last_error)

    # Life

    def _check_settings(self) -> None:
        self.config.check()
        if self._orderly_listener is None:
            _ = self.listener  # refuses to start without one

    def _begin(self) -> None:
        config = self.config
        if config.message_model is MessageModel.CLUSTERING:
            self._subscriptions.put_if_absent(retry_topic(self.consumer_group), "*")
        self._pulling = PullService(
            self.consumer_group,
            config,
            self._instance,
            self._subscriptions,
            self._offsets,
            found=lambda messages, held, queue: self._consuming.submit(messages, held, queue),
            offset_illegal=self._give_up_queue,
            pulled=self._stats.pulled,
            span_counts=self._orderly_listener is None,
        )
        self._back = GiveBack(
            self.consumer_group,
            config.max_reconsume_times,
            self._instance.calls,
            self._instance.routes,
            config.namespace,
        )
        self._consuming = self._make_service()
        self._requests = PushRequests(self)
        period_s = config.consume_timeout_min * 60.0
        self._cleaning = self._instance.periodic.add(
            "clean expired messages", self._clean_expired, period_s, period_s
        )
        self._pulling.start()

    def _make_service(self) -> ConsumeService | OrderlyService:
        """Make what runs the listener; an orderly one needs locks, unless everybody gets everything."""
        calls = ListenerCalls(self.consumer_group, self.hooks, self._stats, self.config.namespace)
        if self._orderly_listener is None:
            return ConsumeService(
                self.consumer_group,
                self.config,
                self.listener,
                calls,
                self._back,
                self._offsets,
                later=self._pulling.loop.later,
                drained=self._pulling.drained,
            )
        if self.config.message_model is MessageModel.CLUSTERING:
            self._locks = OrderlyLocks(self._instance, self.consumer_group)
            self._renewing = self._instance.periodic.add(
                "renew queue locks", self._locks.renew, FIRST_RENEWAL_S, LOCK_INTERVAL_S
            )
        return OrderlyService(
            self.consumer_group,
            self.config,
            self._orderly_listener,
            calls,
            self._back,
            self._offsets,
            self._locks,
            later=self._pulling.loop.later,
            drained=self._pulling.drained,
        )

    def _pulls(self) -> PullService | None:
        return self._pulling if self._state is ServiceState.RUNNING else None

    def _end(self) -> None:
        self._instance.periodic.remove(self._cleaning)
        if self._renewing is not None:
            self._instance.periodic.remove(self._renewing)
        self._pulling.stop()
        self._consuming.stop(self.config.await_termination_millis_when_shutdown / 1000)
        if isinstance(self._consuming, OrderlyService):
            queues = list(self._rebalancer.owned)
            self._offsets.persist(queues, wait=True)
            self._consuming.release_all(queues)

    def _clean_expired(self) -> None:
        if self._state is ServiceState.RUNNING and isinstance(self._consuming, ConsumeService):
            for queue, held in self._rebalancer.owned.items():
                self._consuming.clean_expired(held, queue)

    # What the rebalancer asks

    def rebalance(self) -> bool:
        """Take and give queues, unless suspended; on the rebalance thread."""
        return True if self.suspended else super().rebalance()

    def first_offset(self, queue: MessageQueue) -> int:
        """Return where to begin; an orderly consumer locks the queue first: only then nobody moves it."""
        if self._locks is not None and not self._locks.acquire(queue):
            raise SystemBusy("another member of the group still holds its lock")
        try:
            return super().first_offset(queue)
        except BaseException:
            if self._locks is not None:  # next time it may be another's to take
                self._locks.release([queue])
            raise

    def queue_taken(self, queue: MessageQueue, held: Owned, offset: int) -> None:
        """Remember it until the brokers know the new version of the subscription (`queues_changed`)."""
        self._taken.append((queue, held, offset))

    def queue_dropped(self, queue: MessageQueue, held: Owned) -> None:
        """Commit and forget it; its pull ends by itself."""
        self._pulling.forget(queue)
        super().queue_dropped(queue, held)
        if isinstance(self._consuming, OrderlyService):
            self._consuming.give_up(queue)

    def queues_changed(self, topic: str, everyones: Sequence[MessageQueue], mine: set[MessageQueue]) -> None:
        """Tell the brokers, then begin to pull what was taken: the other order would be refused."""
        self._subscriptions.renew_version(topic)
        self._instance.heartbeat_all()
        taken, self._taken = self._taken, []
        for queue, held, offset in taken:
            self._pulling.take(queue, held, offset)

    def _give_up_queue(self, queue: MessageQueue, offset: int) -> None:
        """The broker says that our offset is impossible: store its own, and take the queue anew."""
        self._offsets.update(queue, offset, increase_only=False)
        self._offsets.persist([queue], wait=True)
        self._instance.rebalance_now()

    # What brokers ask

    def known_offsets(self, topic: str) -> dict[MessageQueue, int]:
        """Return the offsets of the owned queues of a topic, as far as this member knows them."""
        owned = [queue for queue in self._rebalancer.owned if queue.topic == topic]
        return {queue: self._offsets.read(queue, ReadMode.MEMORY) for queue in owned}

    def running_properties(self) -> dict[str, str]:
        """Return what this member says of itself."""
        return {
            **super().running_properties(),
            "PROP_CONSUMEORDERLY": str(self._orderly_listener is not None).lower(),
            "PROP_THREADPOOL_CORE_SIZE": str(self.config.consume_thread_max),
            "PROP_SHMQ_FLOW_CONTROLS": str(self._pulling.flow_controls),
        }

    def status_table(self) -> dict[str, dict[str, float]]:
        """Return what was pulled and consumed of each topic."""
        return self._stats.status_table()

    def reset_offsets(self, topic: str, offsets: dict[MessageQueue, int]) -> None:
        """Give the queues up and take them again at these offsets; what is in hand is forgotten."""
        owned = self._rebalancer.owned
        wanted = {
            queue: offset for queue, offset in offsets.items() if queue.topic == topic and queue in owned
        }

        def reset() -> None:
            for queue, offset in wanted.items():
                self._give_up_queue(queue, offset)

        for queue in wanted:
            owned[queue].dropped = True
            owned[queue].clear()
        self._pulling.loop.later(0, reset)

    def handle_request(self, link: BrokerLink, command: Command) -> Command | None:
        """Serve a request the broker pushed for this group."""
        return super().handle_request(link, command) or self._requests.handle(command)
