"""ClientInstance: what all producers and consumers of one client id in a process share.

Name servers, routes, links, the periodic duties (route refresh, heartbeats, offsets), the rebalance thread.
RocketMQ's timing: routes first after 10 ms then every 30 s, heartbeats first after 1 s then every 30 s,
offsets first after 10 s then every 5 s, rebalance every 20 s (1 s while something is not yet balanced); less
often while consumers rest (`rest.py`). A broker is told of this client on each new duplex connection before
that is used.

`_lock` guards the members. Instances are shared through `acquire`/`release` (counted). A forked child keeps
its producers, with a new client id and connections of its own; consumers stay the parent's.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import ClassVar

from shmq.base import log
from shmq.base.errors import ShmqError
from shmq.client.broker_calls import BrokerCalls
from shmq.client.config import ClientConfig
from shmq.client.duplex import DuplexChannel
from shmq.client.errors import ClientStateError
from shmq.client.links import BrokerLink
from shmq.client.members import ConsumerMember, ProducerMember
from shmq.client.name_servers import NameServers
from shmq.client.periodic import Duty, Periodic
from shmq.client.request_reply import PendingReplies
from shmq.client.rest import Rest
from shmq.client.routes import Routes
from shmq.model.message_ext import MessageExt
from shmq.model.names import CLIENT_INNER_PRODUCER_GROUP
from shmq.model.properties import PRODUCER_GROUP
from shmq.model.route import MASTER_ID
from shmq.protocol.bodies.heartbeat import HeartbeatData, encode_heartbeat
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.client import ConsumerGroupHeader

REBALANCE_PERIOD_S = 20.0
REBALANCE_SOON_S = 1.0
REQUESTS_LOOK_MS = 1_000
"""How often requests are looked through for those whose time is over."""

_LOG = log.get(__name__)


class ClientInstance:
    """The shared half of the clients of one client id."""

    _registry: ClassVar[dict[str, ClientInstance]] = {}
    _registry_lock: ClassVar[threading.Lock] = threading.Lock()
    _all: ClassVar[weakref.WeakSet[ClientInstance]] = weakref.WeakSet()

    def __init__(self, config: ClientConfig, client_id: str) -> None:
        """Start nothing yet; use `acquire`."""
        self.config = config
        self.client_id = client_id
        self.name_servers = NameServers(config)
        self.routes = Routes(self.name_servers.topic_route, self._make_link)
        self.calls = BrokerCalls(self.routes, config)
        self._lock = threading.Lock()
        self._users = 0
        self._producers: dict[str, ProducerMember] = {}
        self._consumers: dict[str, ConsumerMember] = {}
        self._begin()
        self._all.add(self)

    def _begin(self) -> None:
        """Set up the threads' objects: at first, and again in a forked child."""
        config = self.config
        self._stopped = False
        self._rebalance_bell = threading.Event()
        self._rebalancer: threading.Thread | None = None
        self._rest = Rest(self.routes, self.consumers, self._published, self.rebalance_now)
        self.replies = PendingReplies(self._look_for_replies)
        self.periodic = Periodic("shmq-duties")
        self._routes_duty = self._add_duty(
            "refresh routes", self._refresh_routes, 0.01, config.poll_name_server_interval_ms
        )
        self._heartbeat_duty = self._add_duty(
            "heartbeat", self._beat, 1.0, config.heartbeat_broker_interval_ms
        )
        self._asking = self._add_duty("ask while resting", self._ask_while_resting, math.inf, 0)
        self._expiring = self._add_duty("expire requests", self._expire_requests, 3.0, REQUESTS_LOOK_MS)
        persist_ms = config.persist_consumer_offset_interval_ms
        self._add_duty("persist offsets", self._persist_offsets, min(10.0, persist_ms / 1000), persist_ms)

    def _add_duty(self, name: str, run: Callable[[], object], first_s: float, period_ms: int) -> Duty:
        return self.periodic.add(name, run, first_s, period_ms / 1000)

    @classmethod
    def acquire(cls, config: ClientConfig, client_id: str) -> ClientInstance:
        """Return the running instance of that client id, making it when there is none."""
        with cls._registry_lock:
            instance = cls._registry.get(client_id)
            if instance is None:
                instance = cls._registry[client_id] = cls(config, client_id)
            instance._users += 1
        instance.periodic.start()
        return instance

    def release(self) -> None:
        """Give the instance back; the last user stops it."""
        with self._registry_lock:
            self._users -= 1
            if self._users > 0:
                return
            self._registry.pop(self.client_id, None)
        self._stop()

    def _stop(self) -> None:
        self._stopped = True
        self._rebalance_bell.set()
        self.periodic.stop()
        if self._rebalancer is not None and self._rebalancer is not threading.current_thread():
            self._rebalancer.join(3.0)
        for link in self.routes.links:
            if link.has_duplex:
                self._unregister(link, producer=CLIENT_INNER_PRODUCER_GROUP)
        self.routes.close()
        self.name_servers.close()

    # Members

    def add_producer(self, group: str, producer: ProducerMember) -> None:
        """Register a producer; ClientStateError when the group has one in this instance."""
        with self._lock:
            if group in self._producers:
                raise ClientStateError(
                    f"producer group {group!r} was already created in this client instance "
                    f"({self.client_id}): use "
                    "that producer, or another group or instance_name"
                )
            self._producers[group] = producer

    def add_consumer(self, group: str, consumer: ConsumerMember) -> None:
        """Register a consumer; ClientStateError when the group has one in this instance."""
        with self._lock:
            if group in self._consumers:
                raise ClientStateError(
                    f"consumer group {group!r} was already created in this client instance "
                    f"({self.client_id}): use "
                    "another instance_name for a second member"
                )
            self._consumers[group] = consumer
        if self._rebalancer is None:
            self._rebalancer = threading.Thread(
                target=self._rebalance_loop, name="shmq-rebalance", daemon=True
            )
            self._rebalancer.start()

    def remove_producer(self, group: str) -> None:
        """Unregister a producer here and at the brokers that know it."""
        with self._lock:
            self._producers.pop(group, None)
        for link in self.routes.links:
            if link.has_duplex:
                self._unregister(link, producer=group)

    def remove_consumer(self, group: str) -> None:
        """Unregister a consumer here and at the brokers that know it; they tell the other members."""
        with self._lock:
            self._consumers.pop(group, None)
        for link in self.routes.links:
            if link.has_duplex:
                self._unregister(link, consumer=group)

    def _unregister(self, link: BrokerLink, *, producer: str = "", consumer: str = "") -> None:
        """Leave a group; a broker that is gone needs no farewell."""
        with contextlib.suppress(ShmqError):
            self.calls.unregister(link, self.client_id, producer=producer, consumer=consumer)

    def consumers(self) -> list[ConsumerMember]:
        """Return the consumers now."""
        with self._lock:
            return list(self._consumers.values())

    # Heartbeats and connections

    def _make_link(
        self, broker_name: str, broker_id: int, address: str, unix_socket: str | None
    ) -> BrokerLink:
        return BrokerLink(
            broker_name,
            broker_id,
            address,
            unix_socket,
            self.config,
            on_request=self._handle_request,
            on_connected=self._announce,
            on_lost=self._connection_lost,
        )

    def _announce(self, link: BrokerLink, channel: DuplexChannel) -> None:
        """Tell the broker behind a new connection who we are, before anybody uses it; then balance."""
        self._heartbeat(link, channel)
        if self._consumers:
            for consumer in self.consumers():
                consumer.broker_is_back()
            self.rebalance_now()

    def _connection_lost(self, link: BrokerLink) -> None:
        """Have the heartbeat duty connect again soon, while consumers wait for that broker."""
        self._rest.forget(link)
        if self._consumers and not self._stopped:
            self._heartbeat_duty.due = min(self._heartbeat_duty.due, time.monotonic() + 1.0)
            self.periodic.wake()

    def _heartbeat(self, link: BrokerLink, channel: DuplexChannel) -> None:
        heartbeat = encode_heartbeat(self._heartbeat_data())
        response = channel.call(
            Command.request(RequestCode.HEART_BEAT, None, heartbeat),
            self.config.mq_client_api_timeout_ms / 1000,
        )
        if response.code == ResponseCode.SUCCESS:
            self._rest.told(link, heartbeat)
        else:
            log.event(_LOG, logging.WARNING, "heartbeat_refused", broker=link, code=response.code)

    def _heartbeat_data(self) -> HeartbeatData:
        with self._lock:
            producers = [*self._producers, CLIENT_INNER_PRODUCER_GROUP]
            consumers = list(self._consumers.values())
        return HeartbeatData(self.client_id, producers, [consumer.heartbeat_data() for consumer in consumers])

    def announce(self) -> None:
        """Have every known broker know this client: whoever has not heard of it gets a heartbeat now."""
        for link in self.routes.links:
            with contextlib.suppress(ShmqError):  # one that is away is told when it is back
                link.duplex()

    def _beat(self) -> None:
        """Beat where nothing else says that this client lives."""
        heartbeat, stood_still = encode_heartbeat(self._heartbeat_data()), not self._rest.look()
        self.heartbeat_all(lambda link: stood_still or not self._rest.may_skip_beat(link, heartbeat))

    def heartbeat_all(self, wanted: Callable[[BrokerLink], bool] = lambda link: True) -> None:
        """Beat to the masters, and with any consumer to the slaves too; a broker that is away is logged.

        A broker that knows this client hears only from it when it is `wanted`.
        """
        again = False
        for link in self.routes.links:
            if link.broker_id != MASTER_ID and not self._consumers:
                continue
            try:
                # Who finds a connection that another thread has just made does not know what that one said.
                channel, announced = link.announced_duplex()
                if not announced and wanted(link):
                    self._heartbeat(link, channel)
            except ShmqError as error:
                again = True
                log.event(_LOG, logging.WARNING, "heartbeat_failed", broker=link, reason=error)
        if again and self._consumers:
            self._heartbeat_duty.due = time.monotonic() + REBALANCE_SOON_S

    def heartbeat_soon(self) -> None:
        """Have the brokers told what they do not know yet. Any thread."""
        self._heartbeat_duty.due = 0.0
        self.periodic.wake()

    def _handle_request(self, link: BrokerLink, command: Command) -> None:
        """Take what a broker pushes. Runs on the link's reader thread: nothing here may wait for that
        broker."""
        if command.code == RequestCode.PUSH_REPLY_MESSAGE_TO_CLIENT:
            link.answer(self.replies.arrived(command))
            return
        if command.code == RequestCode.CHECK_TRANSACTION_STATE:
            self._check_transaction(link, command)
        elif command.code == RequestCode.NOTIFY_CONSUMER_IDS_CHANGED:
            command.read_header(ConsumerGroupHeader)
            self.rebalance_now()
        elif command.code == RequestCode.CONSUME_MESSAGE_DIRECTLY:
            # Runs a listener, which may take its time and may talk to that broker itself.
            threading.Thread(
                target=self._serve_request, args=(link, command), name="shmq-consume-directly", daemon=True
            ).start()
        else:
            self._serve_request(link, command)

    def _check_transaction(self, link: BrokerLink, command: Command) -> None:
        """Let the producer of the half message's group answer, in a thread of its own."""
        message = MessageExt(command.body_bytes(), link.broker_name)
        group = message.properties.get(PRODUCER_GROUP, "")
        with self._lock:
            producer = self._producers.get(group)
        if producer is None:
            log.event(_LOG, logging.WARNING, "check_without_producer", group=group, broker=link)
        else:
            producer.check_transaction(link, command, message)

    def _serve_request(self, link: BrokerLink, command: Command) -> None:
        """Let the consumer whose business it is answer."""
        for consumer in self.consumers():
            answer = consumer.handle_request(link, command)
            if answer is not None:
                if not command.is_oneway:
                    link.answer(answer)
                return
        if not command.is_oneway:
            remark = f"request type {command.code} is not supported by this client"
            link.answer(command.response(ResponseCode.REQUEST_CODE_NOT_SUPPORTED, remark))

    # Duties

    def topics(self) -> set[str]:
        """Return every topic some member sends to or reads."""
        found = self._published()
        for consumer in self.consumers():
            found |= consumer.subscribed_topics()
        return found

    def _expire_requests(self) -> None:
        """Fail requests whose time is over; while there are none, this wakes nobody."""
        self.replies.expire()
        self._expiring.due = math.inf
        if len(self.replies):  # looked at behind that: one that came before it is seen here
            self._look_for_replies()

    def _look_for_replies(self) -> None:
        """A request waits for its reply: look in a second whether its time is over."""
        soon = time.monotonic() + REQUESTS_LOOK_MS / 1000
        if self._expiring.due > soon:
            self._expiring.due = soon
            self.periodic.wake()

    def _published(self) -> set[str]:
        """Return every topic some producer sends to."""
        with self._lock:
            producers = [*self._producers.values()]
        return {topic for producer in producers for topic in producer.publish_topics()}

    def _refresh_routes(self) -> None:
        self.routes.refresh_all(sorted(self.topics()), self._rest.told_topics())

    def wait_ended(self, changed: Sequence[str] | None) -> None:
        """A consumer's wait for messages has ended without any: see `Rest.wait_ended`. On a connection's
        reader thread."""
        self._asking.due = min(self._asking.due, self._rest.wait_ended(changed))
        self.periodic.wake()

    def _ask_while_resting(self) -> None:
        self._asking.due = math.inf  # stored first: what is wanted meanwhile counts
        self._asking.due = min(self._asking.due, self._rest.ask())

    def _persist_offsets(self) -> None:
        for consumer in self.consumers():
            consumer.persist_offsets()

    def rebalance_now(self) -> None:
        """Have the rebalance thread run at once."""
        self._rebalance_bell.set()

    def _rebalance_loop(self) -> None:
        """Balance every 20 s, after 1 s when something was not ready, or when told to; while all consumers
        rest, mostly when told to."""
        wait_s = REBALANCE_PERIOD_S
        while not self._stopped:
            is_told = self._rebalance_bell.wait(wait_s)
            self._rebalance_bell.clear()
            if not is_told and wait_s == REBALANCE_PERIOD_S and self._rest.may_skip_balance():
                continue
            wait_s = REBALANCE_PERIOD_S
            self._rest.balanced()
            for consumer in self.consumers():
                try:
                    balanced = not self._stopped and consumer.rebalance()
                except Exception as error:  # the edge of this thread: the other consumers must go on
                    log.event(_LOG, logging.WARNING, "rebalance_failed", reason=error)
                    balanced = False
                if not balanced:
                    wait_s = REBALANCE_SOON_S

    # Fork and exit

    def _after_fork(self) -> None:
        """In a forked child: a new id, no connection or thread of the parent; only producers live on."""
        self._lock = threading.Lock()
        for consumer in self._consumers.values():
            consumer.after_fork()
        self._consumers = {}
        self.client_id = self.config.client_id()
        self.name_servers.forget_after_fork()
        self.routes.forget_after_fork()
        self._begin()
        for producer in self._producers.values():
            producer.after_fork()

    @classmethod
    def _all_after_fork(cls) -> None:
        cls._registry_lock = threading.Lock()
        cls._registry.clear()
        for instance in [instance for instance in cls._all if not instance._stopped]:
            instance._after_fork()
            if instance._producers:
                cls._registry[instance.client_id] = instance

    @classmethod
    def _at_exit(cls) -> None:
        """Let what is under way finish: a program that just ends must not lose async sends or offsets."""
        for instance in list(cls._registry.values()):
            with instance._lock:
                members: list[ProducerMember | ConsumerMember] = [*instance._producers.values()]
                members += instance._consumers.values()
            for member in members:
                try:
                    member.shutdown()
                except Exception:
                    _LOG.exception("shutting a client down at exit failed")


os.register_at_fork(after_in_child=ClientInstance._all_after_fork)
atexit.register(ClientInstance._at_exit)
