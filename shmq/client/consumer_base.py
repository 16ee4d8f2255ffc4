"""ConsumerBase: what push and pull consumers share: life, subscriptions, offsets, rebalance, first
offsets."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shmq.base import log
from shmq.base.clock import now_ms
from shmq.base.errors import BrokerError, InvalidParameter, ShmqError
from shmq.client.consume_hooks import ConsumeHooks, ConsumeMessageHook
from shmq.client.consumer_config import ConsumerConfig, check_consumer_group
from shmq.client.errors import ClientStateError
from shmq.client.instance import ClientInstance
from shmq.client.links import BrokerLink
from shmq.client.offset_store import NO_OFFSET, LocalOffsetStore, OffsetStore, ReadMode, RemoteOffsetStore
from shmq.client.pull_service import PullService
from shmq.client.rebalancer import Owned, Rebalancer
from shmq.client.running_info import encode_running_info, thread_stacks
from shmq.client.service import Service
from shmq.client.service_state import ServiceState
from shmq.client.subscriptions import Subscriptions
from shmq.model.consumer_group import ConsumeFromWhere, ConsumeType, MessageModel
from shmq.model.message_queue import MessageQueue
from shmq.model.names import is_retry_topic, with_namespace
from shmq.model.subscription import SubscriptionData, Wanted
from shmq.protocol.bodies.heartbeat import ConsumerData
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.client import GetConsumerRunningInfoHeader

if TYPE_CHECKING:
    from shmq.client.trace import Tracer

_LOG = log.get(__name__)

OFFSET_MAX = (1 << 63) - 1


def check_place(queue: object, offset: object) -> None:
    """Refuse what is no queue or no offset of one; InvalidParameter."""
    if not isinstance(queue, MessageQueue):
        raise InvalidParameter(f"{queue!r} is no MessageQueue")
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset <= OFFSET_MAX:
        raise InvalidParameter(f"offset {offset!r} of {queue} is outside 0..{OFFSET_MAX}")


class ConsumerBase(Service):
    """A consumer of one group. Subclasses say how they pull."""

    CONSUME_TYPE = ConsumeType.CONSUME_ACTIVELY
    PULLS_ITSELF = False

    def __init__(self, group: str, config: ConsumerConfig) -> None:
        """Start nothing yet."""
        self.consumer_group = with_namespace(config.namespace, group)
        self._config = config
        self._state = ServiceState.CREATE_JUST
        self._state_lock = threading.Lock()
        self._started_ms = 0
        self.hooks = ConsumeHooks()
        self._tracer: Tracer | None = None
        self._subscriptions = Subscriptions(config.namespace)
        self._instance: ClientInstance
        self._offsets: OffsetStore
        self._rebalancer: Rebalancer

    # Life

    @property
    def state(self) -> ServiceState:
        """Return where in its life this consumer is."""
        return self._state

    @property
    def client_id(self) -> str:
        """Return the id the group's members know this one by."""
        return self._instance.client_id

    def start(self) -> None:
        """Check everything, join the client instance and the group, begin to balance."""
        with self._state_lock:
            if self._state is not ServiceState.CREATE_JUST:
                raise ClientStateError(
                    f"this consumer is {self._state.value}: a consumer is started once; make a new one"
                )
            self._state = ServiceState.START_FAILED
            check_consumer_group(self.consumer_group)
            self._check_settings()
            broadcasting = self._config.message_model is MessageModel.BROADCASTING
            self._instance = ClientInstance.acquire(
                self._config, self._config.client_id(fixed_name=broadcasting)
            )
            try:
                self._offsets = self._make_offset_store()
                self._offsets.load()
                self._rebalancer = Rebalancer(
                    self._instance,
                    self.consumer_group,
                    self._config,
                    self._subscriptions,
                    self,
                    pulls_itself=self.PULLS_ITSELF,
                )
                self._instance.routes.refresh_all(sorted(self._subscriptions.topics))
                asked: set[str] = set()
                for subscription in self._subscriptions.all:
                    self._check_with_brokers(subscription, asked)
                self._tracer = self._start_trace()
                self._join()
            except BaseException:
                self._instance.release()
                raise
            self._state = ServiceState.RUNNING
            self._started_ms = now_ms()
        self._instance.heartbeat_all()
        self._instance.rebalance_now()

    def _start_trace(self) -> Tracer | None:
        """Have calls of listeners traced, when that is wanted."""
        if not self._config.enable_msg_trace:
            return None
        from shmq.client.trace import ConsumeTrace, Tracer

        tracer = Tracer(self._config, self.consumer_group, "CONSUME")
        tracer.start()
        self.hooks.seeing.append(ConsumeTrace(tracer))
        return tracer

    def _join(self) -> None:
        """Enter the group in this instance, then start what pulls; the group's first heartbeat comes after
        both."""
        self._instance.add_consumer(self.consumer_group, self)
        try:
            self._begin()
        except BaseException:
            self._instance.remove_consumer(self.consumer_group)
            raise

    def _check_with_brokers(self, subscription: SubscriptionData, asked: set[str]) -> None:
        """Let the topic's brokers judge what only they can; each hears of a plain tag expression once.

        BrokerError when the group's other members consume in another mode, when the expression does not
        compile, or when that broker does not filter by properties.
        """
        try:
            self._ask_brokers(subscription, asked)
        except BrokerError as refusal:
            if not subscription.is_by_tags or refusal.code != ResponseCode.REQUEST_CODE_NOT_SUPPORTED:
                raise
        except ShmqError as failure:  # nobody there now: a consumer may start before its broker
            if not subscription.is_by_tags:
                raise
            log.event(_LOG, logging.INFO, "subscription_not_checked", reason=failure)

    def _subscribe(self, topic: str, expression: Wanted) -> None:
        """Subscribe; while running, brokers are asked first: what they refuse is in no heartbeat."""
        subscription = self._subscriptions.build(topic, expression)
        running = self._state is ServiceState.RUNNING
        if running:
            self._instance.routes.refresh_all([subscription.topic])
            self._check_with_brokers(subscription, set())
        self._subscriptions.put(subscription)
        if running:
            self._instance.heartbeat_all()
            self._instance.rebalance_now()

    def _ask_brokers(self, subscription: SubscriptionData, asked: set[str]) -> None:
        instance = self._instance
        queues = instance.routes.subscribe_queues(subscription.topic)
        names = {queue.broker_name for queue in queues}
        if not names and not subscription.is_by_tags:  # nobody has the topic yet; any broker can read
            names = {link.broker_name for link in instance.routes.links}
        for broker_name in sorted(names):
            if not subscription.is_by_tags or broker_name not in asked:
                asked.add(broker_name)
                instance.calls.check_subscription(
                    instance.routes.link(broker_name),
                    instance.client_id,
                    self.consumer_group,
                    subscription,
                    self._config.message_model,
                )

    def _check_settings(self) -> None:
        """Refuse settings that cannot work. Subclasses."""

    def _begin(self) -> None:
        """Start what pulls. Subclasses."""

    def _end(self) -> None:
        """Stop what pulls and what consumes. Subclasses."""

    def _make_offset_store(self) -> OffsetStore:
        group, calls = self.consumer_group, self._instance.calls
        if self._config.offset_store is not None:
            return self._config.offset_store
        if self._config.message_model is MessageModel.BROADCASTING:
            return LocalOffsetStore(self._instance.client_id, group)
        return RemoteOffsetStore(
            lambda queue: calls.consumer_offset(group, queue),
            lambda queue, offset, count, oneway, only_forward: calls.commit_offset(
                group, queue, offset, count, oneway=oneway, only_forward=only_forward
            ),
            lambda: (pulling := self._pulls()) is not None and pulling.is_resting,
        )

    def shutdown(self) -> None:
        """Stop consuming, commit offsets, leave the group. Again is harmless."""
        with self._state_lock:
            if self._state is not ServiceState.RUNNING:
                return
            self._state = ServiceState.SHUTDOWN_ALREADY
        self._end()
        self._offsets.persist(list(self._rebalancer.owned), wait=True)
        self._instance.remove_consumer(self.consumer_group)
        self._instance.release()
        if self._tracer is not None:
            self._tracer.close()
        for held in self._rebalancer.owned.values():
            held.dropped = True

    def after_fork(self) -> None:
        """In a forked child: be stopped; the queues are the parent's. Called by the instance."""
        self._state_lock = threading.Lock()
        self._state = ServiceState.SHUTDOWN_ALREADY

    def _check_running(self) -> None:
        if self._state is not ServiceState.RUNNING:
            raise ClientStateError(
                f"this consumer is {self._state.value}, not RUNNING: start it (or use a with block); a "
                "forked child "
                "makes a consumer of its own"
            )

    def register_consume_message_hook(self, hook: ConsumeMessageHook) -> None:
        """Have a hook see every call of the listener (of a lite pull consumer: all that was polled)."""
        self.hooks.seeing.append(hook)

    # What the instance asks

    def heartbeat_data(self) -> ConsumerData:
        """Return what brokers are told about this consumer."""
        return ConsumerData(
            self.consumer_group,
            self.CONSUME_TYPE,
            self._config.message_model,
            self._config.consume_from_where,
            self._subscriptions.all,
        )

    def subscribed_topics(self) -> set[str]:
        """Return the topics this consumer reads."""
        return self._subscriptions.topics

    def resting_topics(self) -> set[str]:
        """Return the topics whose changes brokers tell of: a queue is waited for at each of their brokers."""
        pulling = self._pulls()
        if pulling is None or not pulling.is_resting:
            return set()
        waited = {(queue.topic, queue.broker_name) for queue in self._rebalancer.owned}
        return {
            topic
            for topic in self._subscriptions.topics
            if (brokers := self._instance.routes.readable_at(topic))
            and all((topic, broker) in waited for broker in brokers)
        }

    def waited_s(self, link: BrokerLink) -> float:
        """Return when the wait under way at a broker was sent, minus infinity without one."""
        pulling = self._pulls()
        return -math.inf if pulling is None else pulling.waited_s(link)

    def _pulls(self) -> PullService | None:
        """Return what pulls by itself, while this consumer runs. Subclasses that have it."""
        return None

    def rebalance(self) -> bool:
        """Take and give queues; on the rebalance thread."""
        if self._state is not ServiceState.RUNNING:
            return True
        return self._rebalancer.run()

    def persist_offsets(self) -> None:
        """Commit the offsets of the owned queues."""
        self._offsets.persist(list(self._rebalancer.owned))

    def broker_is_back(self) -> None:
        """Have offsets committed again that may not have arrived."""
        if isinstance(self._offsets, RemoteOffsetStore):
            self._offsets.tell_again()

    def handle_request(self, link: BrokerLink, command: Command) -> Command | None:
        """Serve a request the broker pushed: what this member is doing (307)."""
        if command.code != RequestCode.GET_CONSUMER_RUNNING_INFO:
            return None
        header = command.read_header(GetConsumerRunningInfoHeader)
        if header.consumer_group != self.consumer_group:
            return None
        info = self.running_info(with_stacks=header.jstack_enable)
        return command.response(ResponseCode.SUCCESS, None, None, info)

    def running_properties(self) -> dict[str, str]:
        """Return what this member says of itself."""
        return {
            "PROP_CLIENT_VERSION": "V5_3_3",
            "PROP_CONSUMEORDERLY": "false",
            "PROP_CONSUMER_START_TIMESTAMP": str(self._started_ms),
            "PROP_CONSUME_TYPE": self.CONSUME_TYPE.value,
            "PROP_NAMESERVER_ADDR": ";".join(map(str, self._instance.name_servers.addresses)),
        }

    def status_table(self) -> dict[str, dict[str, float]]:
        """Return what was pulled and consumed of each topic, where that is counted."""
        return {}

    def running_info(self, *, with_stacks: bool = False) -> bytes:
        """Return what operators are shown of this member (body of 307), with its threads' stacks if asked."""
        owned = self._rebalancer.owned
        offsets = {queue: max(0, self._offsets.read(queue, ReadMode.MEMORY)) for queue in owned}
        return encode_running_info(
            self.running_properties(),
            self._subscriptions.all,
            owned,
            offsets,
            self.status_table(),
            thread_stacks() if with_stacks else None,
        )

    # What the rebalancer asks

    def queue_dropped(self, queue: MessageQueue, held: Owned) -> None:
        """Commit the offset of a queue that is given away, and forget it."""
        self._offsets.persist([queue], wait=True)
        self._offsets.remove(queue)

    def queue_taken(self, queue: MessageQueue, held: Owned, offset: int) -> None:
        """Begin with a queue. Subclasses."""

    def queues_changed(self, topic: str, everyones: Sequence[MessageQueue], mine: set[MessageQueue]) -> None:
        """The share of a topic has changed. Subclasses."""

    def first_offset(self, queue: MessageQueue) -> int:
        """Return where to begin: the stored offset, else by consume-from-where."""
        stored = self._offsets.read(queue, ReadMode.STORE)
        if stored != NO_OFFSET:
            return stored
        calls, retry = self._instance.calls, is_retry_topic(queue.topic)
        match self._config.consume_from_where:
            case ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET:
                return 0 if retry else calls.max_offset(queue)
            case ConsumeFromWhere.CONSUME_FROM_TIMESTAMP if not retry:
                return calls.search_offset(queue, self._config.consume_timestamp_ms())
            case ConsumeFromWhere.CONSUME_FROM_TIMESTAMP:
                return calls.max_offset(queue)
            case _:
                return 0

    # Queries

    def fetch_subscribe_message_queues(self, topic: str) -> list[MessageQueue]:
        """Return all readable queues of a topic."""
        self._check_running()
        return self._instance.routes.subscribe_queues(with_namespace(self._config.namespace, topic))

    def fetch_message_queues(self, topic: str) -> list[MessageQueue]:
        """Return all readable queues of a topic: the lite pull consumer's name for it in RocketMQ."""
        return self.fetch_subscribe_message_queues(topic)

    def max_offset(self, queue: MessageQueue) -> int:
        """Return the next offset to be written."""
        self._check_running()
        return self._instance.calls.max_offset(queue)

    def min_offset(self, queue: MessageQueue) -> int:
        """Return the oldest offset that can be read."""
        self._check_running()
        return self._instance.calls.min_offset(queue)

    def search_offset(self, queue: MessageQueue, timestamp_ms: int) -> int:
        """Return the first offset stored at or after a time (ms)."""
        self._check_running()
        return self._instance.calls.search_offset(queue, timestamp_ms)

    def earliest_msg_store_time(self, queue: MessageQueue) -> int:
        """Return when the queue's oldest message was stored (ms), -1 for an empty queue."""
        self._check_running()
        return self._instance.calls.earliest_store_time(queue)
