"""Who serves what: topics, broker groups and clusters, as registered (RocketMQ's RouteInfoManager).

    topics    topic       -> broker name -> QueueData
    groups    broker name -> BrokerGroup (cluster, broker id -> address)
    clusters  cluster     -> broker names

Pure data with the queries clients ask; `registrations.py` decides what comes in and when it goes. Lives in
the name server's loop thread; no locks. `version` rises with every change, so that encoded answers can be
kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from shmq.model.route import MASTER_ID, BrokerData, QueueData, TopicRoute
from shmq.model.topic_config import PERM_READ_WRITE, PERM_WRITE, SYS_FLAG_UNIT, SYS_FLAG_UNIT_SUB, TopicConfig


@dataclass
class BrokerGroup:
    """The brokers of one name: a master (id 0) and its slaves."""

    cluster: str
    broker_name: str
    addresses: dict[int, str] = field(default_factory=dict)
    enable_acting_master: bool = False
    zone_name: str | None = None
    unix_socket: str | None = None

    def as_broker_data(self) -> BrokerData:
        """The group as a route shows it."""
        return BrokerData(
            cluster=self.cluster,
            broker_name=self.broker_name,
            broker_addrs=dict(sorted(self.addresses.items())),
            enable_acting_master=self.enable_acting_master,
            zone_name=self.zone_name,
            unix_socket=self.unix_socket,
        )


class RouteTable:
    """The tables and their queries."""

    def __init__(self) -> None:
        self.topics: dict[str, dict[str, QueueData]] = {}
        self.groups: dict[str, BrokerGroup] = {}
        self.clusters: dict[str, set[str]] = {}
        self.version = 0

    # -- changes -------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Note that something changed: kept answers are stale."""
        self.version += 1

    def group(self, cluster: str, broker_name: str) -> BrokerGroup:
        """The broker group of that name, made when it is new; a broker that changed its cluster moves."""
        known = self.groups.get(broker_name)
        if known is None:
            known = self.groups[broker_name] = BrokerGroup(cluster, broker_name)
            self.touch()
        elif known.cluster != cluster:
            self._leave_cluster(known)
            known.cluster = cluster
            self.touch()
        self.clusters.setdefault(cluster, set()).add(broker_name)
        return known

    def put_topic(self, broker_name: str, config: TopicConfig) -> None:
        """Take over one topic of one broker."""
        self.put_queues(
            config.topic_name,
            QueueData(
                broker_name=broker_name,
                read_queue_nums=config.read_queue_nums,
                write_queue_nums=config.write_queue_nums,
                perm=config.perm,
                topic_sys_flag=config.topic_sys_flag,
            ),
        )

    def put_queues(self, topic: str, queues: QueueData) -> None:
        """Take over the queues one broker has of a topic."""
        brokers = self.topics.setdefault(topic, {})
        if brokers.get(queues.broker_name) != queues:
            brokers[queues.broker_name] = queues
            self.touch()

    def remove_topic(self, topic: str, cluster: str | None = None) -> None:
        """Forget a topic, or only the part of it that brokers of `cluster` serve."""
        brokers = self.topics.get(topic)
        if brokers is None:
            return
        for broker_name in list(brokers):
            if cluster is None or broker_name in self.clusters.get(cluster, ()):
                del brokers[broker_name]
        if not brokers:
            del self.topics[topic]
        self.touch()

    def remove_broker_topics(self, broker_name: str, topics: Iterable[str]) -> None:
        """Forget that this broker serves these topics."""
        for topic in topics:
            brokers = self.topics.get(topic, {})
            if brokers.pop(broker_name, None) is not None:
                self.touch()
            if not brokers:
                self.topics.pop(topic, None)

    def remove_address(self, broker_name: str, broker_id: int) -> None:
        """Forget one broker; with its last one the group goes, and every topic only it served.

        When a master leaves and slaves stay, topics keep their queues: clients see no id 0 and do not send.
        """
        group = self.groups.get(broker_name)
        if group is None or group.addresses.pop(broker_id, None) is None:
            return
        if broker_id == MASTER_ID:
            group.unix_socket = None
        self.touch()
        if not group.addresses:
            del self.groups[broker_name]
            self._leave_cluster(group)
            self.remove_broker_topics(broker_name, self.topics_of_broker(broker_name))

    def _leave_cluster(self, group: BrokerGroup) -> None:
        names = self.clusters.get(group.cluster, set())
        names.discard(group.broker_name)
        if not names:
            self.clusters.pop(group.cluster, None)

    def set_write_permission(self, broker_name: str, allowed: bool) -> int:
        """Take the write permission from every topic of a broker, or give it back; returns how many topics.

        Giving back sets 6 whatever was there before, as RocketMQ does. The next registration with changed
        topics overrules both.
        """
        changed = 0
        for brokers in self.topics.values():
            queues = brokers.get(broker_name)
            if queues is not None:
                perm = PERM_READ_WRITE if allowed else queues.perm & ~PERM_WRITE
                brokers[broker_name] = replace(queues, perm=perm)
                changed += 1
        self.touch()
        return changed

    # -- queries -------------------------------------------------------------------------------------------

    def route(self, topic: str) -> TopicRoute | None:
        """The route of a topic; None without a broker that serves it."""
        brokers = self.topics.get(topic)
        if not brokers:
            return None
        known = [name for name in sorted(brokers) if name in self.groups]
        if not known:
            return None
        return TopicRoute(
            queue_datas=[brokers[name] for name in sorted(brokers)],
            broker_datas=[self.groups[name].as_broker_data() for name in known],
        )

    def all_topics(self) -> list[str]:
        """Every topic name, sorted."""
        return sorted(self.topics)

    def topics_of_broker(self, broker_name: str) -> list[str]:
        """The topics one broker group serves."""
        return [topic for topic, brokers in self.topics.items() if broker_name in brokers]

    def topics_of_cluster(self, cluster: str) -> list[str]:
        """The topics that brokers of a cluster serve, sorted."""
        members = self.clusters.get(cluster, set())
        return sorted(topic for topic, brokers in self.topics.items() if not members.isdisjoint(brokers))

    def unit_topics(self, unit: bool | None, unit_sub: bool | None) -> list[str]:
        """The topics whose unit flags are as asked; None: either."""
        return sorted(
            topic
            for topic, brokers in self.topics.items()
            if _flags_match(next(iter(brokers.values())).topic_sys_flag, unit, unit_sub)
        )

    def any_address(self) -> str | None:
        """The address of one broker, whichever."""
        for group in self.groups.values():
            for address in group.addresses.values():
                return address
        return None


def _flags_match(flags: int, unit: bool | None, unit_sub: bool | None) -> bool:
    wanted = ((unit, SYS_FLAG_UNIT), (unit_sub, SYS_FLAG_UNIT_SUB))
    return all(want is None or bool(flags & bit) is want for want, bit in wanted)
