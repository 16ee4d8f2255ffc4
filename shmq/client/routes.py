"""Routes: where the queues of each topic are, and the links to their brokers.

Looked up at first use, then refreshed every 30 s by the client's timer, so producers and consumers notice new
queues and brokers. A topic nobody knows yet borrows the route of TBW102: the broker makes it when the first
message arrives. One lock guards the tables; lookups by name servers happen outside it. Any thread.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from shmq.base import log
from shmq.base.errors import ShmqError
from shmq.client.errors import BROKER_NOT_EXIST, NOT_FOUND_TOPIC, ClientError
from shmq.client.links import BrokerLink
from shmq.client.queue_selection import RoundRobin
from shmq.model.message_queue import MessageQueue
from shmq.model.names import AUTO_CREATE_TOPIC
from shmq.model.route import MASTER_ID, TopicRoute

_LOG = log.get(__name__)


@dataclass(slots=True)
class PublishInfo:
    """What a producer needs of a topic: its writable queues and each thread's turn."""

    queues: tuple[MessageQueue, ...]
    ordered: bool = False
    borrowed: bool = False
    """The topic does not exist yet; the route is that of the default topic."""
    turn: RoundRobin = field(default_factory=RoundRobin)

    def of_broker(self, broker_name: str) -> PublishInfo:
        """Return the same of one broker's queues alone."""
        return replace(self, queues=tuple(q for q in self.queues if q.broker_name == broker_name))


class Routes:
    """The routes and broker links of one client instance."""

    def __init__(
        self,
        fetch: Callable[[str], TopicRoute | None],
        make_link: Callable[[str, int, str, str | None], BrokerLink],
    ) -> None:
        """`fetch` asks a name server; `make_link` takes broker name, id, TCP address and Unix socket path."""
        self._fetch = fetch
        self._make_link = make_link
        self._lock = threading.Lock()
        self._routes: dict[str, TopicRoute] = {}
        self._publish: dict[str, PublishInfo] = {}
        self._links: dict[tuple[str, int], BrokerLink] = {}
        self._asked_s: dict[str, float] = {}
        """When each topic's route was last asked for, monotonic."""

    def publish_info(
        self, topic: str, default_topic: str = AUTO_CREATE_TOPIC, queue_nums: int = 4
    ) -> PublishInfo:
        """Return the topic's writable queues; ClientError 10005 when it is unknown and may not be made."""
        info = self._publish.get(topic)
        if info is not None and info.queues:
            return info
        route = self.refresh(topic)
        borrowed = route is None
        if route is None:
            route = self._borrow(default_topic, queue_nums)
        if route is None:
            raise ClientError(
                NOT_FOUND_TOPIC,
                f"no name server knows a route of topic {topic!r}, and the broker does not create topics by "
                "itself "
                f"(no route of {default_topic!r} either): create it with shmq-admin updateTopic, or start a "
                "broker",
            )
        queues = tuple(route.write_queues(topic))
        if not queues:
            raise ClientError(
                NOT_FOUND_TOPIC,
                f"topic {topic!r} has no writable queue now: its brokers are down or read-only",
            )
        info = PublishInfo(queues, bool(route.order_topic_conf), borrowed)
        with self._lock:
            kept = self._publish.get(topic)
            if kept is None or kept.borrowed or kept.queues != queues:
                self._publish[topic] = info
            return self._publish[topic]

    def _borrow(self, default_topic: str, queue_nums: int) -> TopicRoute | None:
        """Return the default topic's route with at most `queue_nums` queues per broker."""
        route = self._fetch(default_topic)
        if route is None:
            return None
        for data in route.queue_datas:
            data.write_queue_nums = data.read_queue_nums = min(queue_nums, data.read_queue_nums)
        self._keep_links(route)
        return route

    def subscribe_queues(self, topic: str) -> list[MessageQueue]:
        """Return the topic's readable queues, sorted; empty while the topic is unknown."""
        route = self._routes.get(topic) or self.refresh(topic)
        return sorted(route.read_queues(topic)) if route is not None else []

    def route(self, topic: str) -> TopicRoute | None:
        """Return the route as last seen."""
        return self._routes.get(topic)

    def readable_at(self, topic: str) -> set[str]:
        """Return the names of the brokers with readable queues, as last seen."""
        route = self._routes.get(topic)
        return set() if route is None else {queue.broker_name for queue in route.read_queues(topic)}

    def refresh(self, topic: str) -> TopicRoute | None:
        """Ask a name server now; None when the topic is unknown there."""
        route = self._fetch(topic)
        self._asked_s[topic] = time.monotonic()
        if route is None:
            return None
        with self._lock:
            self._routes[topic] = route
            info = self._publish.get(topic)
            if info is not None:
                queues = tuple(route.write_queues(topic))
                if queues != info.queues or info.borrowed:
                    self._publish[topic] = PublishInfo(queues, bool(route.order_topic_conf))
        self._keep_links(route)
        return route

    def age_s(self, topic: str) -> float:
        """Return how long ago a topic's route was asked for; infinity when it never was."""
        return time.monotonic() - self._asked_s.get(topic, -math.inf)

    def refresh_all(self, topics: Sequence[str] = (), known: AbstractSet[str] = frozenset()) -> None:
        """Ask for every topic in use and those named, but for those whose routes are `known` to be good."""
        self.refresh_each({*self._routes, *self._publish, *topics} - known)

    def refresh_each(self, topics: Iterable[str]) -> None:
        """Ask for these topics; a failure is logged and leaves the old route."""
        for topic in topics:
            try:
                self.refresh(topic)
            except ShmqError as error:
                _LOG.warning("the route of topic %s could not be refreshed: %s", topic, error)

    def _keep_links(self, route: TopicRoute) -> None:
        """Make a link to each broker address of a route; a link whose address changed is closed."""
        stale: list[BrokerLink] = []
        with self._lock:
            for data in route.broker_datas:
                for broker_id, address in data.broker_addrs.items():
                    key = (data.broker_name, broker_id)
                    unix = data.unix_socket if broker_id == MASTER_ID else None
                    link = self._links.get(key)
                    if link is not None and (link.tcp_address, link.unix_socket) == (address, unix):
                        continue
                    if link is not None:
                        stale.append(link)
                    self._links[key] = self._make_link(data.broker_name, broker_id, address, unix)
        for link in stale:
            link.close()

    def link(self, broker_name: str, broker_id: int = MASTER_ID) -> BrokerLink:
        """Return the link to a broker; ClientError 10003 when no route names it."""
        link = self._links.get((broker_name, broker_id))
        if link is None:
            raise ClientError(
                BROKER_NOT_EXIST, f"no route names a broker {broker_name!r} with id {broker_id}"
            )
        return link

    def reading_link(self, broker_name: str, suggested_id: int) -> BrokerLink:
        """Return the link for reading: the suggested broker id, else the next higher one, else any of that
        name."""
        ids = sorted(broker_id for name, broker_id in list(self._links) if name == broker_name)
        for broker_id in (*(found for found in ids if found >= suggested_id), *ids):
            return self._links[broker_name, broker_id]
        raise ClientError(BROKER_NOT_EXIST, f"no route names a broker {broker_name!r}")

    @property
    def links(self) -> list[BrokerLink]:
        """Return all links."""
        return list(self._links.values())

    def forget_after_fork(self) -> None:
        """In a forked child: keep the routes, leave the parent's connections alone."""
        self._lock = threading.Lock()
        for link in self._links.values():
            link.forget_after_fork()

    def close(self) -> None:
        """Close every link."""
        for link in self.links:
            link.close()
