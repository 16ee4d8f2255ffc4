"""Which clients are connected and live: connections, producers by group, consumers by group.

A client is known by its connection `ClientKey` (worker slot, connection id) and by the client id of its
heartbeats; one connection may carry several groups. A connection that closes is forgotten at once, one
without heartbeat for `channelExpiredTimeout` by the next `expire`. Every change returns the groups whose
members must be told (push 40). Lives in the coordinator's loop, no locks; a new coordinator fills it from
the workers' replays. Rules: Apache RocketMQ 5.3, ConsumerManager.java, ConsumerGroupInfo.java,
ProducerManager.java.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shmq.broker.client_key import Client, ClientKey
from shmq.broker.consumer_members import ConsumerMembers, Consumption
from shmq.model.subscription import SubscriptionData


@dataclass(slots=True)
class Member:
    """A client in a group, with the wall time of its last heartbeat for it."""

    client: Client
    beat_ms: int


class ClientTable:
    """All live clients of this broker, whichever worker they are connected to."""

    def __init__(self) -> None:
        """Start without clients."""
        self._connections: dict[ClientKey, set[tuple[bool, str]]] = {}
        self._consumers: dict[str, ConsumerMembers] = {}
        self._producers: dict[str, dict[ClientKey, Member]] = {}

    # -- connections --

    def opened(self, key: ClientKey) -> None:
        """A worker accepted a connection."""
        self._connections.setdefault(key, set())

    def closed(self, key: ClientKey) -> set[str]:
        """A connection ended: its client leaves every group; returns the consumer groups that changed."""
        changed = set()
        for is_consumer, group in self._connections.pop(key, set()):
            if not is_consumer:
                self._remove_producer(group, key)
            elif self._remove_consumer(group, key):
                changed.add(group)
        return changed

    def worker_lost(self, slot: int) -> set[str]:
        """A worker died: all its connections ended."""
        gone = [key for key in self._connections if key.slot == slot]
        return set().union(*(self.closed(key) for key in gone)) if gone else set()

    def connected(self, key: ClientKey) -> bool:
        """Tell whether the connection is still open as far as its worker has said."""
        return key in self._connections

    @property
    def connection_count(self) -> int:
        """Open connections of all workers."""
        return len(self._connections)

    # -- heartbeats --

    def beat_producer(self, client: Client, group: str, now_ms: int) -> None:
        """A heartbeat names a producer group."""
        self._connections.setdefault(client.key, set()).add((False, group))
        self._producers.setdefault(group, {})[client.key] = Member(client, now_ms)

    def beat_consumer(
        self,
        client: Client,
        group: str,
        consumption: Consumption,
        subscriptions: Iterable[SubscriptionData],
        now_ms: int,
    ) -> bool:
        """A heartbeat names a consumer group; True when its members or subscribed topics changed."""
        self._connections.setdefault(client.key, set()).add((True, group))
        members = self._consumers.get(group)
        if members is None:
            members = self._consumers[group] = ConsumerMembers(consumption)
        return members.beat(client, consumption, subscriptions, now_ms)

    def leave_producer(self, key: ClientKey, group: str) -> None:
        """A client unregistered from a producer group."""
        self._connections.get(key, set()).discard((False, group))
        self._remove_producer(group, key)

    def leave_consumer(self, key: ClientKey, group: str) -> bool:
        """A client unregistered from a consumer group; True when it was a member."""
        self._connections.get(key, set()).discard((True, group))
        return self._remove_consumer(group, key)

    def expire(self, now_ms: int, silent_ms: int) -> set[str]:
        """Drop memberships without heartbeat for `silent_ms`; returns the consumer groups that changed."""
        changed = set()
        for group in list(self._consumers):
            for key in self._consumers[group].silent(now_ms - silent_ms):
                self.leave_consumer(key, group)
                changed.add(group)
        for group in list(self._producers):
            silent = [k for k, m in self._producers[group].items() if m.beat_ms < now_ms - silent_ms]
            for key in silent:
                self.leave_producer(key, group)
        return changed

    def drop_consumer_group(self, group: str) -> None:
        """Forget the members of a deleted group; their next heartbeat brings them back if it may."""
        for key in [client.key for client in self.members(group)]:
            self.leave_consumer(key, group)

    # -- questions --

    def consumer_group(self, group: str) -> ConsumerMembers | None:
        """The live members of a consumer group; None without any."""
        return self._consumers.get(group)

    def members(self, group: str) -> list[Client]:
        """The live clients of a consumer group."""
        members = self._consumers.get(group)
        return members.clients if members is not None else []

    def consumer_groups(self) -> list[str]:
        """Names of all groups with live consumers."""
        return sorted(self._consumers)

    def producer_groups(self) -> dict[str, list[Member]]:
        """Live producers by group."""
        return {group: list(members.values()) for group, members in sorted(self._producers.items())}

    def groups_subscribed_to(self, topic: str) -> list[str]:
        """Groups whose live members subscribe to a topic."""
        return [group for group, members in sorted(self._consumers.items()) if topic in members.subscriptions]

    # -- inside --

    def _remove_producer(self, group: str, key: ClientKey) -> None:
        members = self._producers.get(group)
        if members is not None:
            members.pop(key, None)
            if not members:
                del self._producers[group]

    def _remove_consumer(self, group: str, key: ClientKey) -> bool:
        members = self._consumers.get(group)
        if members is None or not members.remove(key):
            return False
        if not members.clients:
            del self._consumers[group]
        return True
