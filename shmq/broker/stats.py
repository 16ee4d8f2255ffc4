"""What the broker did: rates, totals since the last two midnights, and the named items of request 315.

Workers report increments about once a second (`protocol.internal.StatsReport`); direct pulls are in them,
as their counts arrive with the offset commits. Lives in the coordinator's loop, no locks; in memory only.
"""

from __future__ import annotations

import time

from shmq.broker.item_stats import MINUTE, ItemStats
from shmq.broker.rates import Rate
from shmq.model.names import is_system_topic
from shmq.protocol.internal import StatsReport

SAMPLE_INTERVAL_MS = 1000
ITEM_SAMPLE_INTERVAL_MS = 10_000


class DayTotals:
    """One cumulative count with its value at the last two local midnights."""

    def __init__(self) -> None:
        """Start at zero: today began with the broker."""
        self.now = 0
        self.today_morning = 0
        self.yesterday_morning = 0

    def roll(self) -> None:
        """A local midnight passed."""
        self.yesterday_morning = self.today_morning
        self.today_morning = self.now


class BrokerStats:
    """Every statistic of this broker that is not a position on the control page."""

    def __init__(self, cluster_name: str, now_ms: int) -> None:
        """Start counting at `now_ms`; `cluster_name` is the key of the broker-wide items."""
        self.started_ms = now_ms
        self.puts = Rate()
        self.gets = Rate()
        self.found = Rate()
        self.missed = Rate()
        self.put_day = DayTotals()
        self.get_day = DayTotals()
        self.put_bytes = 0
        self.put_failed = 0
        self.put_time_max_ms = 0
        self.get_time_max_ms = 0
        self.items = ItemStats()
        self._cluster_name = cluster_name
        self._day = _local_day(now_ms)
        self._items_sampled_ms = now_ms

    def take(self, report: StatsReport, now_ms: int) -> None:
        """Add one worker's increments."""
        for topic, (messages, size) in report.puts.items():
            self._take_puts(topic, messages, size, now_ms)
        for (topic, group), (messages, size) in report.gets.items():
            self._take_gets(topic, group, messages, size, now_ms)
        self.found.add(report.found)
        self.missed.add(report.missed)
        self.put_failed += report.failed
        self.put_time_max_ms = max(self.put_time_max_ms, report.put_time_max_ms)
        self.get_time_max_ms = max(self.get_time_max_ms, report.get_time_max_ms)

    def _take_puts(self, topic: str, messages: int, size: int, now_ms: int) -> None:
        self.puts.add(messages)
        self.put_bytes += size
        add = self.items.add
        add("TOPIC_PUT_NUMS", topic, messages, messages, now_ms)
        add("TOPIC_PUT_SIZE", topic, size, messages, now_ms)
        add("BROKER_PUT_NUMS", self._cluster_name, messages, messages, now_ms)
        if not is_system_topic(topic):
            self.put_day.now += messages
            add("BROKER_PUT_NUMS_WITHOUT_SYSTEM_TOPIC", self._cluster_name, messages, messages, now_ms)

    def _take_gets(self, topic: str, group: str, messages: int, size: int, now_ms: int) -> None:
        self.gets.add(messages)
        key = f"{topic}@{group}"
        add = self.items.add
        add("GROUP_GET_NUMS", key, messages, messages, now_ms)
        add("GROUP_GET_SIZE", key, size, messages, now_ms)
        add("BROKER_GET_NUMS", self._cluster_name, messages, messages, now_ms)
        if not is_system_topic(topic):
            self.get_day.now += messages
            add("BROKER_GET_NUMS_WITHOUT_SYSTEM_TOPIC", self._cluster_name, messages, messages, now_ms)

    def sample(self, now_ms: int) -> None:
        """Keep the windows going; call about once a second."""
        for rate in (self.puts, self.gets, self.found, self.missed):
            rate.sample(now_ms)
        if now_ms - self._items_sampled_ms >= ITEM_SAMPLE_INTERVAL_MS:
            self._items_sampled_ms = now_ms
            self.items.sample(now_ms)
        day = _local_day(now_ms)
        if day != self._day:
            self._day = day
            self.put_day.roll()
            self.get_day.roll()

    def topic_put_tps(self, topic: str, now_ms: int) -> float:
        """Messages a second into a topic over the last minute."""
        return self._minute_tps("TOPIC_PUT_NUMS", topic, now_ms)

    def group_get_tps(self, topic: str, group: str, now_ms: int) -> float:
        """Messages a second out of a topic to a group over the last minute."""
        return self._minute_tps("GROUP_GET_NUMS", f"{topic}@{group}", now_ms)

    def _minute_tps(self, name: str, key: str, now_ms: int) -> float:
        item = self.items.get(name, key)
        return item.over(MINUTE, now_ms).tps if item is not None else 0.0


def _local_day(now_ms: int) -> tuple[int, int]:
    """Year and day of the year on this host's clock."""
    local = time.localtime(now_ms / 1000)
    return local.tm_year, local.tm_yday
