"""The consumer group registry: settings of every group; `config/subscriptionGroup.json` is its file.

Lives in the coordinator's loop, no locks; workers hear of changes over the internal socket. The file is
written whole, so changes that are made `together` share one write, and the text of a group that did not
change is made only once: all of it again for each of thousands of new groups would take minutes.
`forbiddenTable` (group -> topic -> bit mask) is read, kept and written back. Rules: Apache RocketMQ 5.3,
SubscriptionGroupManager.java.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from shmq.base.clock import SYSTEM_CLOCK, Clock
from shmq.base.errors import GroupNotExist, InvalidParameter
from shmq.broker.config_file import ConfigFile
from shmq.broker.pretty_json import Prepared, prepared_row, prepared_table
from shmq.model import names
from shmq.model.broker_settings import BrokerSettings
from shmq.model.consumer_group import SubscriptionGroupConfig
from shmq.model.data_version import DataVersion


class GroupRegistry:
    """All consumer groups of this broker by name."""

    def __init__(self, file: ConfigFile, settings: BrokerSettings, clock: Clock = SYSTEM_CLOCK) -> None:
        """Read the file and add the built-in groups (in memory: they are written with the next change)."""
        self._file = file
        self._clock = clock
        self._auto_create = settings.auto_create_subscription_group
        found = file.load()
        table = found.get("subscriptionGroupTable") or {}
        self._groups = {
            name: SubscriptionGroupConfig.from_json(members, name) for name, members in table.items()
        }
        self.forbidden: dict[str, dict[str, int]] = dict(found.get("forbiddenTable") or {})
        self.data_version = DataVersion.from_json(found.get("dataVersion"))
        self._rows: dict[str, tuple[SubscriptionGroupConfig, Prepared]] = {}
        self._in_change = self._dirty = False
        for name in names.BUILT_IN_GROUPS:
            self._groups.setdefault(name, SubscriptionGroupConfig(name))

    # -- questions --

    def get(self, group: str) -> SubscriptionGroupConfig | None:
        """The group's settings, or None."""
        return self._groups.get(group)

    def must_get(self, group: str) -> SubscriptionGroupConfig:
        """The group's settings; GroupNotExist."""
        config = self._groups.get(group)
        if config is None:
            raise _unknown(group)
        return config

    def __iter__(self) -> Iterator[SubscriptionGroupConfig]:
        """All groups, ordered by name."""
        return iter([self._groups[name] for name in sorted(self._groups)])

    # -- changes --

    def find_or_create(self, group: str) -> tuple[SubscriptionGroupConfig, bool]:
        """The group's settings, and whether they were made just now; GroupNotExist when that may not be."""
        known = self._groups.get(group)
        if known is not None:
            return known, False
        if not (self._auto_create or names.is_system_group(group)):
            raise _unknown(group)
        names.check_group(group)
        made = SubscriptionGroupConfig(group)
        with self._changing():
            self._groups[group] = made
        return made, True

    def update(self, wanted: SubscriptionGroupConfig) -> bool:
        """An administrator creates or changes a group (200, 225); False when nothing changed."""
        names.check_group(wanted.group_name)
        if wanted.retry_queue_nums < 0 or wanted.retry_max_times < -1:
            raise InvalidParameter("retryQueueNums must be at least 0 and retryMaxTimes at least -1")
        if self._groups.get(wanted.group_name) == wanted:
            return False
        with self._changing():
            self._groups[wanted.group_name] = wanted
        return True

    def delete(self, group: str) -> bool:
        """An administrator deletes a group; False when it does not exist. Built-in groups stay."""
        if names.is_system_group(group):
            raise InvalidParameter(f"group [{group}] belongs to the broker and cannot be deleted")
        if group not in self._groups:
            return False
        with self._changing():
            del self._groups[group]
            self.forbidden.pop(group, None)
        return True

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Make the changes inside, then one new version of them durable; ServiceNotAvailable undoes them all.

        Nothing is written when nothing was changed. May be nested: the outermost writes.
        """
        if self._in_change:
            yield
            return
        before = dict(self._groups), dict(self.forbidden), self.data_version
        self._in_change, self._dirty = True, False
        try:
            yield
            if self._dirty:
                self.data_version = self.data_version.next(self._clock.now_ms())
                self._write()
        except BaseException:
            self._groups, self.forbidden, self.data_version = before
            raise
        finally:
            self._in_change = False

    def set_auto_create(self, enabled: bool) -> None:
        """An operator changed `autoCreateSubscriptionGroup`."""
        self._auto_create = enabled

    # -- inside --

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Make one change, alone or `together` with others."""
        with self.together():
            yield
            self._dirty = True

    def _write(self) -> None:
        """Replace subscriptionGroup.json."""
        rows = []
        for config in self:
            known = self._rows.get(config.group_name)
            if known is None or known[0] is not config:  # a changed group is another object
                row = prepared_row(config.group_name, config.to_json(), 1)
                known = self._rows[config.group_name] = (config, row)
            rows.append(known[1])
        if len(self._rows) > len(rows):
            self._rows = {name: row for name, row in self._rows.items() if name in self._groups}
        self._file.save(
            {
                "dataVersion": self.data_version.to_json(),
                "forbiddenTable": self.forbidden,
                "subscriptionGroupTable": prepared_table(rows, 1),
            }
        )


def _unknown(group: str) -> GroupNotExist:
    return GroupNotExist(f"subscription group [{group}] does not exist: create it first (updateSubGroup)")
