"""Rules of the consumer group registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from shmq.base.clock import ManualClock
from shmq.base.errors import GroupNotExist, InvalidParameter
from shmq.broker.config_file import ConfigFile
from shmq.broker.groups import GroupRegistry
from shmq.model.consumer_group import SubscriptionGroupConfig
from shmq.model.names import BUILT_IN_GROUPS
from shmq.model.settings import BrokerSettings
from shmq.protocol import fastjson


def registry(folder: Path, *, auto_create: bool = True) -> GroupRegistry:
    settings = BrokerSettings(auto_create_subscription_group=auto_create)
    return GroupRegistry(ConfigFile(folder / "subscriptionGroup.json"), settings, ManualClock())


def test_built_in_groups_are_always_there(tmp_path: Path) -> None:
    assert {config.group_name for config in registry(tmp_path)} >= BUILT_IN_GROUPS


def test_an_unknown_group_is_made_once(tmp_path: Path) -> None:
    groups = registry(tmp_path)
    config, made = groups.find_or_create("g")
    assert made and config == SubscriptionGroupConfig("g")
    assert groups.find_or_create("g") == (config, False)
    assert registry(tmp_path).get("g") == config


def test_an_unknown_group_is_refused_without_auto_creation(tmp_path: Path) -> None:
    groups = registry(tmp_path, auto_create=False)
    with pytest.raises(GroupNotExist, match=r"\[g\]"):
        groups.find_or_create("g")
    assert groups.find_or_create("CID_RMQ_SYS_anything")[1]
    groups.set_auto_create(True)
    assert groups.find_or_create("g")[1]


@pytest.mark.parametrize("name", ["", "with space", "x" * 121, "dot.ted", "ä"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    groups = registry(tmp_path)
    with pytest.raises(InvalidParameter):
        groups.find_or_create(name)
    with pytest.raises(InvalidParameter):
        groups.update(SubscriptionGroupConfig(name))


def test_an_update_is_durable_and_moves_the_version(tmp_path: Path) -> None:
    groups = registry(tmp_path)
    assert groups.update(SubscriptionGroupConfig("g", consume_enable=False))
    assert not groups.update(SubscriptionGroupConfig("g", consume_enable=False))
    assert groups.data_version.counter == 1
    again = registry(tmp_path).must_get("g")
    assert not again.consume_enable


def test_impossible_numbers_are_refused(tmp_path: Path) -> None:
    groups = registry(tmp_path)
    with pytest.raises(InvalidParameter):
        groups.update(SubscriptionGroupConfig("g", retry_queue_nums=-1))
    with pytest.raises(InvalidParameter):
        groups.update(SubscriptionGroupConfig("g", retry_max_times=-2))


def test_deleting(tmp_path: Path) -> None:
    groups = registry(tmp_path)
    groups.find_or_create("g")
    assert groups.delete("g") and not groups.delete("g")
    assert registry(tmp_path).get("g") is None
    with pytest.raises(InvalidParameter):
        groups.delete("TOOLS_CONSUMER")
    with pytest.raises(GroupNotExist):
        groups.must_get("g")


def test_the_forbidden_table_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "subscriptionGroup.json"
    path.write_text('{"dataVersion":{},"forbiddenTable":{"g":{"t":1}},"subscriptionGroupTable":{}}')
    registry(tmp_path).find_or_create("h")
    assert fastjson.loads(path.read_bytes())["forbiddenTable"] == {"g": {"t": 1}}
