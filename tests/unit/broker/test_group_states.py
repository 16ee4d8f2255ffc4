"""What workers are told of groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from shmq.broker.client_key import Client, ClientKey
from shmq.broker.clients import ClientTable
from shmq.broker.config_file import ConfigFile
from shmq.broker.consumer_members import Consumption
from shmq.broker.group_states import GroupStates
from shmq.broker.groups import GroupRegistry
from shmq.broker.live_settings import LiveSettings
from shmq.broker.offset_resets import OffsetResets
from shmq.broker.topics import TopicRegistry
from shmq.model.settings import BrokerSettings
from shmq.model.subscription import build_subscription
from shmq.protocol.bodies.heartbeat import subscription_of
from shmq.protocol.internal import GroupState, Snapshot
from tests.unit.broker.test_topics import Slots


@pytest.fixture
def parts(tmp_path: Path) -> tuple[GroupRegistry, ClientTable, OffsetResets, GroupStates]:
    settings = BrokerSettings()
    topics = TopicRegistry(ConfigFile(tmp_path / "topics.json"), Slots(), settings)
    topics.start()
    groups = GroupRegistry(ConfigFile(tmp_path / "groups.json"), settings)
    clients, resets = ClientTable(), OffsetResets()
    return groups, clients, resets, GroupStates(topics, groups, clients, resets, LiveSettings(settings))


def test_a_group_travels_with_members_subscriptions_and_resets(
    parts: tuple[GroupRegistry, ClientTable, OffsetResets, GroupStates],
) -> None:
    groups, clients, resets, states = parts
    assert states.state("g") is None
    groups.find_or_create("g")
    empty = states.state("g")
    assert empty is not None and (empty.members, empty.message_model, empty.subscriptions) == (0, None, {})
    wanted = build_subscription("t", "A || B", 7)
    client = Client(ClientKey(2, 1), "c", 3, 479, "x")
    clients.beat_consumer(client, "g", Consumption(), [wanted], 0)
    resets.add("g", "t", {3: 14})
    state = states.state("g")
    assert state is not None
    told = GroupState.decode(state.encode())
    assert told == state and told.members == 1 and told.message_model == "CLUSTERING"
    assert subscription_of(told.subscriptions["t"]) == wanted and told.resets == {"t": {3: 14}}


def test_a_snapshot_holds_everything(
    parts: tuple[GroupRegistry, ClientTable, OffsetResets, GroupStates],
) -> None:
    groups, _, _, states = parts
    groups.find_or_create("g")
    snapshot = Snapshot.decode(states.snapshot(False).encode())
    assert not snapshot.settled and "g" in snapshot.groups
    assert snapshot.topics["TBW102"]["perm"] == 7
