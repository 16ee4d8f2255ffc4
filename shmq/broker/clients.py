"""Which clients are connected and live: connections, producers by group, consumers by group.

A client is known by its connection `ClientKey` (worker slot, connection id) and by the client id of its
heartbeats; one connection may carry several groups. A connection that closes is forgotten at once, one
without heartbeat for `channelExpiredTimeout` by the next `expire`; all times are monotonic, so that setting
the clock throws nobody out. Every change returns the groups whose
members must be told (push 40). Lives in the coordinator's loop, no locks; a new coordinator fills it from
the workers' replays. Rules: Apache RocketMQ 5.3, ConsumerManager.java, ConsumerGroupInfo.java,
ProducerManager.java.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from shmq.broker.client_key import Client, ClientKey
from shmq.broker.consumer_members import ConsumerMembers, Consumption
from shmq.model.subscription import SubscriptionData


@dataclass(slots=True)
class _Connection:
    """One client connection: the text of its peer, and its memberships as (is consumer, group)."""

    peer: str
    groups: set[tuple[bool, str]] = field(default_factory=set)


@dataclass(slots=True)
class Member:
    """A client in a group, with the monotonic time of its last heartbeat for it, ms."""

    client: Client
    beat_ms: int


class ClientTable:
    """All live clients of this broker, whichever worker they are connected to."""

    def __init__(self) -> None:
        """Start without clients."""
        self._connections: dict[ClientKey, _Connection] = {}
        self._consumers: dict[str, ConsumerMembers] = {}
        self._producers: dict[str, dict[ClientKey, Member]] = {}
        self._oldest_ms = 0
        """No heartbeat is older than this."""

    # -- connections --

    def opened(self, key: ClientKey, peer: str) -> None:
        """A worker accepted a connection (or tells of it again)."""
        self._connections.setdefault(key, _Connection(peer)).peer = peer

    def closed(self, key: ClientKey) -> set[str]:
        """A connection ended: its client leaves every group; returns the consumer groups that changed."""
        changed = set()
        connection = self._connections.pop(key, None)
        for is_consumer, group in connection.groups if connection is not None else ():
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

    def peer_of(self, key: ClientKey) -> str:
        """The peer's text, empty when the connection is unknown."""
        connection = self._connections.get(key)
        return connection.peer if connection is not None else ""

    def groups_of(self, key: ClientKey) -> list[tuple[bool, str]]:
        """A connection's memberships as (is consumer, group), ordered."""
        connection = self._connections.get(key)
        return sorted(connection.groups) if connection is not None else []

    def consumer_memberships(self, key: ClientKey) -> list[tuple[str, str]]:
        """A connection's memberships as (consumer group, client id)."""
        found = []
        for is_consumer, group in self.groups_of(key):
            members = self._consumers.get(group) if is_consumer else None
            member = members.member(key) if members is not None else None
            if member is not None:
                found.append((group, member.client_id))
        return found

    @property
    def connection_count(self) -> int:
        """Open connections of all workers."""
        return len(self._connections)

    # -- heartbeats --

    def beat_producer(self, client: Client, group: str, now_ms: int) -> None:
        """A heartbeat names a producer group."""
        self._join(client, False, group)
        self._producers.setdefault(group, {})[client.key] = Member(client, now_ms)

    def beat_consumer(
        self,
        client: Client,
        group: str,
        consumption: Consumption,
        subscriptions: Iterable[SubscriptionData],
        now_ms: int,
    ) -> bool:
        """A heartbeat names a consumer group; True when its members or subscribed topics changed.

        InvalidParameter, and no member, when it would consume in another mode than the group does.
        """
        members = self._consumers.get(group)
        if members is not None:
            members.check_model(client.client_id, consumption.message_model)
        self._join(client, True, group)
        if members is None:
            members = self._consumers[group] = ConsumerMembers(consumption)
        return members.beat(client, consumption, subscriptions, now_ms)

    def beat_again(self, key: ClientKey, now_ms: int) -> None:
        """A connection's client lives, and has said nothing new."""
        connection = self._connections.get(key)
        for is_consumer, group in connection.groups if connection is not None else ():
            if is_consumer:
                self._consumers[group].beat_again(key, now_ms)
            elif (member := self._producers[group].get(key)) is not None:
                member.beat_ms = now_ms

    def leave_producer(self, key: ClientKey, group: str) -> None:
        """A client unregistered from a producer group."""
        self._forget(key, False, group)
        self._remove_producer(group, key)

    def leave_consumer(self, key: ClientKey, group: str) -> bool:
        """A client unregistered from a consumer group; True when it was a member."""
        self._forget(key, True, group)
        return self._remove_consumer(group, key)

    def expire(self, now_ms: int, silent_ms: int) -> set[str]:
        """Drop memberships without heartbeat for `silent_ms`; returns the consumer groups that changed."""
        changed: set[str] = set()
        if self._oldest_ms >= now_ms - silent_ms:
            return changed
        for group in list(self._consumers):
            for key in self._consumers[group].silent(now_ms - silent_ms):
                self.leave_consumer(key, group)
                changed.add(group)
        for group in list(self._producers):
            silent = [k for k, m in self._producers[group].items() if m.beat_ms < now_ms - silent_ms]
            for key in silent:
                self.leave_producer(key, group)
        producers = (m.beat_ms for members in self._producers.values() for m in members.values())
        consumers = (members.oldest_ms for members in self._consumers.values())
        self._oldest_ms = min(itertools.chain(producers, consumers), default=now_ms)
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

    def producer_of(self, client_id: str) -> Client | None:
        """A live producer by its client id, whatever its group; of two, the one that beat last."""
        found = [
            member
            for members in self._producers.values()
            for member in members.values()
            if member.client.client_id == client_id
        ]
        return max(found, key=lambda member: member.beat_ms).client if found else None

    def producer(self, group: str, key: ClientKey) -> Client | None:
        """The producer of that connection in a group."""
        member = self._producers.get(group, {}).get(key)
        return member.client if member is not None else None

    def groups_subscribed_to(self, topic: str) -> list[str]:
        """Groups whose live members subscribe to a topic."""
        return [group for group, members in sorted(self._consumers.items()) if topic in members.subscriptions]

    # -- inside --

    def _join(self, client: Client, is_consumer: bool, group: str) -> None:
        self._connections.setdefault(client.key, _Connection(client.peer)).groups.add((is_consumer, group))

    def _forget(self, key: ClientKey, is_consumer: bool, group: str) -> None:
        connection = self._connections.get(key)
        if connection is not None:
            connection.groups.discard((is_consumer, group))

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
