"""Changing settings while the broker runs: only what is on the allow-list."""

from __future__ import annotations

import pytest

from shmq.base.errors import ConfigFault, InvalidParameter, NoPermission
from shmq.broker.live_settings import CHANGEABLE, LiveSettings
from shmq.model.setting import rules
from shmq.model.settings import BrokerSettings


def test_a_change_holds_and_moves_the_version() -> None:
    live = LiveSettings(BrokerSettings())
    changed = live.change({"autoCreateTopicEnable": "false", "flushConsumerOffsetInterval": "5000"}, 9)
    assert changed == {"autoCreateTopicEnable": "false"}
    assert not live.now.auto_create_topic_enable
    assert (live.version.counter, live.version.timestamp) == (1, 9)
    assert live.as_text()["autoCreateTopicEnable"] == "false"


def test_nothing_changed_keeps_the_version() -> None:
    live = LiveSettings(BrokerSettings())
    assert live.change({"autoCreateTopicEnable": "true"}, 9) == {}
    assert live.version.counter == 0


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("brokerName", "other", NoPermission),
        ("storePathRootDir", "/tmp/x", NoPermission),
        ("namesrvAddr", "evil:9876", NoPermission),
        ("runtimeDir", "/tmp", NoPermission),
        ("logDir", "/etc", NoPermission),
        ("rocketmqHome", "/tmp/x;touch y", InvalidParameter),
        ("nosuch", "1", InvalidParameter),
        ("autoCreateTopicEnable", "maybe", ConfigFault),
        ("registerNameServerPeriod", "1", ConfigFault),
    ],
)
def test_one_bad_key_refuses_the_whole_change(key: str, value: str, error: type[Exception]) -> None:
    live = LiveSettings(BrokerSettings())
    with pytest.raises(error):
        live.change({"autoCreateTopicEnable": "false", key: value}, 9)
    assert live.now == BrokerSettings() and live.version.counter == 0


def test_the_allow_list_names_real_settings_and_no_path_or_address() -> None:
    by_key = {rule.key: rule for rule in rules(BrokerSettings).values()}
    assert by_key.keys() >= CHANGEABLE
    assert all(by_key[key].kind in (bool, int) for key in CHANGEABLE)
