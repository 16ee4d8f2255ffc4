"""The live members of one consumer group: who they are, what they subscribe to, how they consume.

The subscriptions of a group are those of its latest heartbeats: a higher version replaces, a topic missing
from a heartbeat is dropped (Apache RocketMQ 5.3, ConsumerGroupInfo.java). Members that differ overwrite
each other; that mistake is common, so it is logged once per change. One difference is refused: a group cannot
share its queues and give every member all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from shmq.base import log
from shmq.base.errors import InvalidParameter
from shmq.broker.client_key import Client, ClientKey
from shmq.model.consumer_group import ConsumeFromWhere, ConsumeType, MessageModel
from shmq.model.subscription import SubscriptionData

NAMED_MAX = 3
"""Members that a refusal names."""

_logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Consumption:
    """How the members of a group consume; the latest heartbeat decides for all."""

    consume_type: ConsumeType = ConsumeType.CONSUME_PASSIVELY
    message_model: MessageModel = MessageModel.CLUSTERING
    consume_from_where: ConsumeFromWhere = ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET


@dataclass(frozen=True, slots=True)
class _Said:
    """What one member's last heartbeat said: its way of consuming, and the expression of each topic."""

    consumption: Consumption
    expressions: dict[str, str]


class ConsumerMembers:
    """Members, subscriptions and way of consuming of one group that has members."""

    def __init__(self, consumption: Consumption) -> None:
        """Start with no member; the first heartbeat follows at once."""
        self.consumption = consumption
        self.subscriptions: dict[str, SubscriptionData] = {}
        self._members: dict[ClientKey, Client] = {}
        self._beats_ms: dict[ClientKey, int] = {}
        self._said: dict[ClientKey, _Said] = {}
        self._differences = ""

    @property
    def clients(self) -> list[Client]:
        """The members, in order of their joining."""
        return list(self._members.values())

    @property
    def client_ids(self) -> list[str]:
        """The members' ids, each once."""
        return list(dict.fromkeys(client.client_id for client in self._members.values()))

    @property
    def told_of_changes(self) -> bool:
        """Whether members share queues, so that each must hear of the others (40)."""
        return self.consumption.message_model is not MessageModel.BROADCASTING

    def member(self, key: ClientKey) -> Client | None:
        """The member on that connection."""
        return self._members.get(key)

    def find(self, client_id: str) -> Client | None:
        """The member of that client id; of several connections the latest, as an older one may be dead."""
        found = (client for client in reversed(self._members.values()) if client.client_id == client_id)
        return next(found, None)

    def check_model(self, client_id: str, wanted: MessageModel) -> None:
        """Refuse a client that would consume in another mode than the others do; InvalidParameter."""
        others = sorted({other for other in self.client_ids if other != client_id})
        if others and wanted is not self.consumption.message_model:
            raise InvalidParameter(
                f"the group consumes by {self.consumption.message_model.value} (members: "
                f"{', '.join(others[:NAMED_MAX])}), client {client_id} wants {wanted.value}: all members of "
                "a group consume in one mode; stop the others first, or use another group"
            )

    def beat(
        self, client: Client, consumption: Consumption, wanted: Iterable[SubscriptionData], now_ms: int
    ) -> bool:
        """Take over a heartbeat; True when the members or the subscribed topics are others than before."""
        before = self._members.get(client.key)
        joined = before is None or before.client_id != client.client_id
        self._members[client.key] = client
        self._beats_ms[client.key] = now_ms
        self.consumption = consumption
        subscriptions = {data.topic: data for data in wanted}
        said = _Said(consumption, {topic: data.sub_string for topic, data in subscriptions.items()})
        if self._said.get(client.key) != said:
            self._said[client.key] = said
            self._report()
        return self._subscribe(subscriptions) or joined

    def beat_again(self, key: ClientKey, now_ms: int) -> None:
        """A member lives, and has said nothing new."""
        if key in self._members:
            self._beats_ms[key] = now_ms

    def _report(self) -> None:
        """Log in what the members differ, when that has changed."""
        found = "; ".join(self.differences())
        if found and found != self._differences:
            log.event(_logger, logging.WARNING, "members_differ", clients=self.client_ids, how=found)
        self._differences = found

    def differences(self) -> list[str]:
        """Say in what the members differ: topics, expressions, pushed or pulled. Empty when they agree."""
        said = list(self._said.values())
        found = [
            f"{what}: {', '.join(sorted(ways))}"
            for what, ways in (
                ("consumeType", {one.consumption.consume_type.value for one in said}),
                ("consumeFromWhere", {one.consumption.consume_from_where.value for one in said}),
            )
            if len(ways) > 1
        ]
        for topic in sorted({topic for one in said for topic in one.expressions}):
            ways = {one.expressions.get(topic, "not subscribed") for one in said}
            if len(ways) > 1:
                found.append(f"topic {topic}: {', '.join(sorted(ways))}")
        return found

    def _subscribe(self, wanted: dict[str, SubscriptionData]) -> bool:
        changed = wanted.keys() != self.subscriptions.keys()
        for topic, data in wanted.items():
            known = self.subscriptions.get(topic)
            if known is None or data.sub_version > known.sub_version:
                self.subscriptions[topic] = data
        for topic in self.subscriptions.keys() - wanted.keys():
            del self.subscriptions[topic]
        return changed

    def remove(self, key: ClientKey) -> bool:
        """Drop a member; False when it was none."""
        self._beats_ms.pop(key, None)
        self._said.pop(key, None)
        return self._members.pop(key, None) is not None

    @property
    def oldest_ms(self) -> int:
        """The oldest of the members' last heartbeats."""
        return min(self._beats_ms.values())

    def silent(self, since_ms: int) -> list[ClientKey]:
        """The members whose last heartbeat is older than `since_ms`."""
        return [key for key, beat_ms in self._beats_ms.items() if beat_ms < since_ms]
