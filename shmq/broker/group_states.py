"""What workers must know of a group, put together from the registry, the live members and pending resets."""

from __future__ import annotations

from shmq.broker.clients import ClientTable
from shmq.broker.groups import GroupRegistry
from shmq.broker.live_settings import LiveSettings
from shmq.broker.offset_resets import OffsetResets
from shmq.broker.topics import TopicRegistry
from shmq.protocol.bodies.heartbeat import subscription_json
from shmq.protocol.internal import GroupState, Snapshot


class GroupStates:
    """Makes `GroupState`s and `Snapshot`s; holds nothing itself. Coordinator's loop only."""

    def __init__(
        self,
        topics: TopicRegistry,
        groups: GroupRegistry,
        clients: ClientTable,
        resets: OffsetResets,
        settings: LiveSettings,
    ) -> None:
        """Name the sources."""
        self._topics = topics
        self._groups = groups
        self._clients = clients
        self._resets = resets
        self._settings = settings

    def state(self, group: str) -> GroupState | None:
        """The group as workers see it; None when it does not exist."""
        config = self._groups.get(group)
        if config is None:
            return None
        state = GroupState(config.to_json(), resets=self._resets.of_group(group))
        members = self._clients.consumer_group(group)
        if members is not None:
            state.members = len(members.clients)
            state.client_ids = members.client_ids
            state.message_model = members.consumption.message_model.value
            state.subscriptions = {
                topic: subscription_json(data) for topic, data in members.subscriptions.items()
            }
        return state

    def snapshot(self, settled: bool) -> Snapshot:
        """Everything a worker starts from."""
        groups = {config.group_name: self.state(config.group_name) for config in self._groups}
        return Snapshot(
            topics={config.topic_name: config.to_json() for config in self._topics},
            groups={name: state for name, state in groups.items() if state is not None},
            settled=settled,
            client_expiry_ms=self._settings.now.channel_expired_timeout,
        )
