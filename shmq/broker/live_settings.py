"""The settings an operator may change while the broker runs, and the view of all settings with these changes.

Only keys on the allow-list can be changed remotely: RocketMQ's remote configuration changes were a way to
run commands on the broker's host (CVE-2023-33246, CVE-2023-37582). A change holds until the next start;
what is to stay belongs into the configuration file. Lives in the coordinator; workers are told
(SETTING_CHANGED).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from shmq.base.errors import InvalidParameter, NoPermission
from shmq.model.broker_settings import BrokerSettings
from shmq.model.data_version import DataVersion
from shmq.model.setting import Rule, Value, fold, rules, value_text

CHANGEABLE = frozenset(
    {
        "autoCreateTopicEnable",
        "autoCreateSubscriptionGroup",
        "notifyConsumerIdsChangedEnable",
        "flushConsumerOffsetInterval",
        "channelExpiredTimeout",
        "registerNameServerPeriod",
        "fileReservedTime",
        "directPullEnable",
    }
)
"""Keys an operator may change; each is read where it is used, so a change holds at once."""


class LiveSettings:
    """All settings, with the operator's changes applied."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Start from what the broker was started with."""
        self.now = settings
        self.version = DataVersion()
        self.on_change: list[Callable[[], None]] = []
        """Called after each change, for what has to be done at once."""
        self._rules = rules(BrokerSettings)
        self._by_key = {fold(rule.key): name for name, rule in self._rules.items()}

    def change(self, wanted: dict[str, str], now_ms: int) -> dict[str, str]:
        """Apply changes, all or none; returns those that differ from before, key -> value as text.

        NoPermission for a key that may not be changed remotely, InvalidParameter for an unknown key or a
        value outside its range.
        """
        values: dict[str, Value] = {}
        changed: dict[str, str] = {}
        for key, text in wanted.items():
            name, rule = self._rule(key)
            value = rule.parse(text)
            if getattr(self.now, name) != value:
                values[name] = value
                changed[rule.key] = value_text(value)
        if values:
            self.now = dataclasses.replace(self.now, **values)  # type: ignore[arg-type]
            self.version = self.version.next(now_ms)
            for hear in self.on_change:
                hear()
        return changed

    def _rule(self, key: str) -> tuple[str, Rule]:
        name = self._by_key.get(fold(key))
        if name is None:
            raise InvalidParameter(f"{key}: there is no such setting")
        rule = self._rules[name]
        if rule.key not in CHANGEABLE:
            allowed = ", ".join(sorted(CHANGEABLE))
            raise NoPermission(f"{rule.key} cannot be changed while the broker runs; allowed are {allowed}")
        return name, rule

    def as_text(self) -> dict[str, str]:
        """Every key with its present value."""
        return {rule.key: value_text(getattr(self.now, name)) for name, rule in self._rules.items()}
