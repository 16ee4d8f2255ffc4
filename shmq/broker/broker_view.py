"""What one worker knows of topics, consumer groups and live subscriptions: its copy of the coordinator's
registries.

Filled by the coordinator's snapshot and kept up to date by its TOPIC_CHANGED and GROUP_CHANGED calls
(answered, so an administrator's change holds on every worker when he gets his answer). Used in the worker's
event loop only. Queues are not here: their slots stand in the page's directory, which every process reads
itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shmq.model.consumer_group import MessageModel, SubscriptionGroupConfig
from shmq.model.subscription import SubscriptionData
from shmq.model.topic_config import TopicConfig
from shmq.protocol.bodies.heartbeat import subscription_of
from shmq.protocol.internal import GroupState, Snapshot


@dataclass(slots=True)
class GroupView:
    """One consumer group, decoded: settings, live members and their subscriptions, resets not yet taken."""

    config: SubscriptionGroupConfig
    members: int = 0
    client_ids: list[str] = field(default_factory=list)
    message_model: MessageModel | None = None
    subscriptions: dict[str, SubscriptionData] = field(default_factory=dict)
    resets: dict[str, dict[int, int]] = field(default_factory=dict)

    @classmethod
    def from_state(cls, name: str, state: GroupState) -> GroupView:
        """Decode what the coordinator sent."""
        return cls(
            config=SubscriptionGroupConfig.from_json(state.config, name),
            members=state.members,
            client_ids=state.client_ids,
            message_model=MessageModel(state.message_model) if state.message_model else None,
            subscriptions={t: subscription_of(s) for t, s in state.subscriptions.items()},
            resets={topic: dict(by_queue) for topic, by_queue in state.resets.items()},
        )

    def reset_of(self, topic: str, queue_id: int) -> int | None:
        """Return the offset an operator has set for this queue and no pull has been told of yet."""
        by_queue = self.resets.get(topic)
        return None if by_queue is None else by_queue.get(queue_id)

    def take_reset(self, topic: str, queue_id: int) -> None:
        """Forget a reset that a pull was told of."""
        by_queue = self.resets.get(topic)
        if by_queue is not None:
            by_queue.pop(queue_id, None)
            if not by_queue:
                del self.resets[topic]


class BrokerView:
    """Topics and groups by name. ``topics`` is read on the hot path directly; only this class changes it."""

    def __init__(self) -> None:
        """Start empty: before the first snapshot every name has to be resolved."""
        self.topics: dict[str, TopicConfig] = {}
        self.groups: dict[str, GroupView] = {}
        self.client_expiry_ms = 120_000
        """How long a client may be silent (channelExpiredTimeout); RocketMQ's until the first snapshot."""
        self.settled = False
        """The coordinator this comes from has heard of all members: their ids are complete."""

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Replace everything. While a new coordinator is not settled, live members known here are kept."""
        self.topics = {name: TopicConfig.from_json(config, name) for name, config in snapshot.topics.items()}
        groups = {name: GroupView.from_state(name, state) for name, state in snapshot.groups.items()}
        if not snapshot.settled:
            for name, known in self.groups.items():
                fresh = groups.get(name)
                if fresh is not None and not fresh.members:
                    fresh.members = known.members
                    fresh.message_model = known.message_model
                    fresh.subscriptions = known.subscriptions
        self.groups = groups
        self.settled = snapshot.settled
        self.client_expiry_ms = snapshot.client_expiry_ms

    def topic_changed(self, config: TopicConfig) -> None:
        """Take over a new or changed topic."""
        self.topics[config.topic_name] = config

    def topic_deleted(self, topic: str) -> None:
        """Forget a topic."""
        self.topics.pop(topic, None)

    def group_changed(self, group: str, state: GroupState) -> None:
        """Take over the new state of a group."""
        self.groups[group] = GroupView.from_state(group, state)

    def group_deleted(self, group: str) -> None:
        """Forget a group."""
        self.groups.pop(group, None)
