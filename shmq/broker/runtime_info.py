"""The answer to request 28: what operators' tools show of a running broker, as text by RocketMQ's keys.

Tools parse these texts (a missing or empty one makes some of them fail as a whole), so every key is always
there and numbers are never empty. Keys about thread pools exist for the tools only: shmq has none, so they
say 0. Apache RocketMQ 5.3, AdminBrokerProcessor.java (prepareRuntimeInfo), StoreStatsService.java. Pure.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from shmq.broker.rates import rates_text
from shmq.broker.stats import BrokerStats
from shmq.model.broker_settings import BrokerSettings
from shmq.protocol.codes import VERSION
from shmq.store.message_store import StoreFacts

VERSION_TEXT = "V5_3_3"
"""RocketMQ's release whose wire version we speak (`codes.VERSION`)."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_POOLS = ("send", "pull", "litePull", "query", "ack")


def runtime_info(
    stats: BrokerStats,
    facts: StoreFacts,
    settings: BrokerSettings,
    root: Path,
    earliest_ms: int,
    now_ms: int,
    index_behind_ms: int = 0,
    scrub: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """Every key with its text; `earliest_ms` is the oldest message's store time, -1 without any.

    `index_behind_ms`: how long ago the oldest message was stored whose keys cannot be found yet; a key of our
    own, beside RocketMQ's `dispatchBehindBytes`. `scrub`: how far the scrub is, and what damage is
    known; keys of our own as well.
    """
    behind = facts.write_position - facts.indexed_position
    values: dict[str, object] = {
        "brokerVersionDesc": VERSION_TEXT,
        "brokerVersion": VERSION,
        "brokerActive": "true",
        "bootTimestamp": stats.started_ms,
        "runtime": _duration(now_ms - stats.started_ms),
        "startAcceptSendRequestTimeStamp": settings.start_accept_send_request_time_stamp,
        **_traffic(stats),
        "dispatchMaxBuffer": 0,
        "dispatchBehindBytes": behind,
        "indexBehindMillis": index_behind_ms,
        "storeState": facts.state,
        "pageCacheLockTimeMills": 0,
        "earliestMessageTimeStamp": earliest_ms,
        "commitLogMinOffset": facts.min_offset,
        "commitLogMaxOffset": facts.write_position,
        "commitLogDiskRatio": facts.disk_ratio,
        f"commitLogDiskRatio_{root / 'commitlog'}": facts.disk_ratio,
        "consumeQueueDiskRatio": facts.disk_ratio,
        "commitLogDirCapacity": _capacity(root),
        "remainTransientStoreBufferNumbs": 0,
        "remainHowManyDataToCommit": bytes_text(0),
        "remainHowManyDataToFlush": bytes_text(facts.write_position - facts.flushed_position),
        "EndTransactionQueueSize": 0,
        "EndTransactionThreadPoolQueueCapacity": 0,
        "timerEnqueueTps": 0.0,
        "timerDequeueTps": 0.0,
    }
    values.update(scrub or {})
    for pool in _POOLS:
        values[f"{pool}ThreadPoolQueueSize"] = 0
        values[f"{pool}ThreadPoolQueueCapacity"] = 0
        values[f"{pool}ThreadPoolQueueHeadWaitTimeMills"] = 0
    return {key: str(values[key]) for key in sorted(values)}


def _traffic(stats: BrokerStats) -> dict[str, object]:
    """Rates, totals and averages of puts and gets."""
    puts = stats.puts.total
    return {
        "putTps": stats.puts.text(),
        "getFoundTps": stats.found.text(),
        "getMissTps": stats.missed.text(),
        "getTotalTps": rates_text(stats.found, stats.missed),
        "getTransferredTps": stats.gets.text(),
        "getTransferedTps": stats.gets.text(),
        "msgPutTotalYesterdayMorning": stats.put_day.yesterday_morning,
        "msgPutTotalTodayMorning": stats.put_day.today_morning,
        "msgPutTotalTodayNow": stats.put_day.now,
        "msgGetTotalYesterdayMorning": stats.get_day.yesterday_morning,
        "msgGetTotalTodayMorning": stats.get_day.today_morning,
        "msgGetTotalTodayNow": stats.get_day.now,
        "putMessageTimesTotal": max(1, puts),
        "putMessageFailedTimes": stats.put_failed,
        "putMessageSizeTotal": stats.put_bytes,
        "putMessageAverageSize": stats.put_bytes / max(1, puts),
        "putMessageEntireTimeMax": stats.put_time_max_ms,
        "getMessageEntireTimeMax": stats.get_time_max_ms,
        "putMessageDistributeTime": "null",
        "putLatency99": -1,
        "putLatency999": -1,
    }


def bytes_text(count: int) -> str:
    """A size for people: `0 B`, `1.5 MiB`."""
    value, unit = float(max(0, count)), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{int(value)} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def _capacity(root: Path) -> str:
    """The disk's size and free space; the exporter splits this text at blanks."""
    disk = os.statvfs(root)
    total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    return f"Total : {bytes_text(total)}, Free : {bytes_text(free)}."


def _duration(ms: int) -> str:
    minutes, seconds = divmod(max(0, ms) // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"[ {days} days, {hours} hours, {minutes} minutes, {seconds} seconds ]"
