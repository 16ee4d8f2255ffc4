"""Rates, day totals, named items, and the texts operators' tools read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shmq.broker.item_stats import DAY, HOUR, MINUTE, ItemStats, StatsItem
from shmq.broker.rates import Rate, rates_text
from shmq.broker.runtime_info import bytes_text, runtime_info
from shmq.broker.stats import BrokerStats
from shmq.model.settings import BrokerSettings
from shmq.protocol.internal import StatsReport
from shmq.store.message_store import StoreFacts

NOON = 1_700_000_000_000


def test_rates_are_means_of_their_windows() -> None:
    rate = Rate()
    for second in range(61):
        rate.sample(NOON + second * 1000)
        rate.add(100 if second < 50 else 10)
    assert rate.per_second(10) == 10.0
    assert rate.per_second(60) == pytest.approx((50 * 100 + 10 * 10) / 60)
    assert rate.per_second(600) == rate.per_second(60)


@pytest.mark.parametrize("samples", [0, 1])
def test_a_young_rate_is_three_zeros_and_never_empty(samples: int) -> None:
    rate = Rate()
    for _ in range(samples):
        rate.sample(NOON)
    assert rate.text() == "0.0 0.0 0.0" == rates_text(rate, rate)


def test_an_item_counts_at_once_and_forgets_after_its_window() -> None:
    item = StatsItem(NOON)
    item.add(30, 10)
    assert item.over(MINUTE, NOON + 2000) == (30, 15.0, 3.0)
    for ms in range(0, 120_000, 10_000):
        item.sample(NOON + 10_000 + ms)
    assert item.over(MINUTE, NOON + 130_000).sum == 0
    assert item.over(HOUR, NOON + 130_000).sum == 30 == item.over(DAY, NOON + 130_000).sum
    assert StatsItem(NOON).over(DAY, NOON) == (0, 0.0, 0.0)


def test_items_that_rested_show_the_same_as_those_that_were_sampled_all_the_time() -> None:
    items, reference = ItemStats(), StatsItem(NOON)
    items.add("N", "k", 3, 1, NOON)
    reference.add(3, 1)
    moves = [0]
    for second in range(10, 100_000, 10):
        now_ms = NOON + second * 1000
        items.sample(now_ms)
        reference.sample(now_ms)
        if second in (7_200, 7_210, 7_300, 20_000, 20_060, 90_000):
            moves.append(second)
            items.add("N", "k", 3, 1, now_ms)
            reference.add(3, 1)
        item = items.get("N", "k")
        assert item is not None
        assert item.over(MINUTE, now_ms + 2000) == reference.over(MINUTE, now_ms + 2000)
        for window in (HOUR, DAY):  # each of their snapshots may be a minute late
            shortest_s = window.interval_ms // 1000 * (window.kept - 1)
            longest_s = (window.interval_ms // 1000 + 60) * window.kept
            least = sum(3 for moved in moves if moved > second - shortest_s)
            most = sum(3 for moved in moves if moved >= second - longest_s)
            assert least <= item.over(window, now_ms).sum <= most


def report() -> StatsReport:
    return StatsReport(
        puts={"orders": (10, 2560), "TBW102": (1, 100)},
        gets={("orders", "g"): (4, 1024)},
        found=2,
        missed=5,
        failed=1,
        put_time_max_ms=7,
    )


def test_reports_travel_whole() -> None:
    assert StatsReport.decode(report().encode()) == report()


def test_reports_feed_rates_totals_and_items() -> None:
    stats = BrokerStats("C", NOON)
    stats.take(report(), NOON)
    stats.take(report(), NOON)
    assert (stats.puts.total, stats.gets.total, stats.put_bytes, stats.put_failed) == (22, 8, 5320, 2)
    assert (stats.put_day.now, stats.get_day.now) == (20, 8)
    sums = {
        ("TOPIC_PUT_NUMS", "orders"): 20,
        ("TOPIC_PUT_SIZE", "orders"): 5120,
        ("GROUP_GET_NUMS", "orders@g"): 8,
        ("GROUP_GET_SIZE", "orders@g"): 2048,
        ("BROKER_PUT_NUMS", "C"): 22,
        ("BROKER_PUT_NUMS_WITHOUT_SYSTEM_TOPIC", "C"): 20,
    }
    for (name, key), expected in sums.items():
        item = stats.items.get(name, key)
        assert item is not None and item.over(MINUTE, NOON + 1).sum == expected, name
    assert stats.items.get("TOPIC_PUT_NUMS", "nosuch") is None
    assert stats.group_get_tps("orders", "g", NOON + 1000) == 8.0


def test_totals_roll_over_at_midnight() -> None:
    stats = BrokerStats("C", NOON)
    stats.take(report(), NOON)
    stats.sample(NOON + 24 * 3_600_000)
    assert (stats.put_day.yesterday_morning, stats.put_day.today_morning, stats.put_day.now) == (0, 10, 10)
    stats.sample(NOON + 48 * 3_600_000)
    assert stats.put_day.yesterday_morning == 10


def test_items_of_deleted_topics_and_groups_are_dropped() -> None:
    stats = BrokerStats("C", NOON)
    stats.take(report(), NOON)
    stats.items.drop_group("g")
    assert stats.items.get("GROUP_GET_NUMS", "orders@g") is None
    stats.items.drop_topic("orders")
    assert stats.items.get("TOPIC_PUT_NUMS", "orders") is None
    assert stats.items.get("TOPIC_PUT_NUMS", "TBW102") is not None


NEEDED = {
    *("brokerVersionDesc", "brokerVersion", "brokerActive", "bootTimestamp", "runtime", "putTps"),
    *("getFoundTps", "getMissTps", "getTotalTps", "getTransferredTps", "getTransferedTps"),
    *("msgPutTotalYesterdayMorning", "msgPutTotalTodayMorning", "msgPutTotalTodayNow"),
    *("msgGetTotalYesterdayMorning", "msgGetTotalTodayMorning", "msgGetTotalTodayNow"),
    *("putMessageTimesTotal", "putMessageSizeTotal", "putMessageAverageSize", "putMessageEntireTimeMax"),
    *("getMessageEntireTimeMax", "putMessageDistributeTime", "dispatchMaxBuffer", "dispatchBehindBytes"),
    *("pageCacheLockTimeMills", "commitLogMinOffset", "commitLogMaxOffset", "commitLogDiskRatio"),
    *("consumeQueueDiskRatio", "commitLogDirCapacity", "earliestMessageTimeStamp"),
    *("remainTransientStoreBufferNumbs", "remainHowManyDataToFlush", "startAcceptSendRequestTimeStamp"),
    *("sendThreadPoolQueueSize", "sendThreadPoolQueueHeadWaitTimeMills", "sendThreadPoolQueueCapacity"),
    *("pullThreadPoolQueueSize", "pullThreadPoolQueueHeadWaitTimeMills", "queryThreadPoolQueueSize"),
    *("ackThreadPoolQueueSize", "ackThreadPoolQueueHeadWaitTimeMills"),
}


def test_runtime_info_has_every_key_tools_need(tmp_path: Path) -> None:
    facts = StoreFacts(0, 5_000_000, 3_000_000, 0, 5_000_000, 0, 4_000_000, 0.25, 100 << 30)
    stats = BrokerStats("C", NOON)
    info = runtime_info(stats, facts, BrokerSettings(), tmp_path, -1, NOON + 3_723_000, 17)
    assert info.keys() >= NEEDED and all(info.values())
    assert info["runtime"] == "[ 0 days, 1 hours, 2 minutes, 3 seconds ]"
    assert info["remainHowManyDataToFlush"] == "1.9 MiB"
    assert (info["dispatchBehindBytes"], info["indexBehindMillis"]) == ("1000000", "17")
    assert info["putMessageTimesTotal"] == "1"
    assert re.fullmatch(r"Total : [\d.]+ [KMGT]iB, Free : [\d.]+ ([KMGT]i)?B\.", info["commitLogDirCapacity"])
    for key in ("putTps", "getTransferedTps"):
        assert [float(part) for part in info[key].split(" ")] == [0.0, 0.0, 0.0]
    for key in ("earliestMessageTimeStamp", "commitLogDiskRatio", "putMessageAverageSize"):
        float(info[key])


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (-5, "0 B"), (3 << 30, "3.0 GiB")]
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert bytes_text(count) == text
