"""Clusters: one line per broker with its load, or its totals of today and yesterday."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from shmq.admin import session
from shmq.admin.output import Column, Item, Report, Stream, table_lines
from shmq.admin.targets import ask_each
from shmq.model.route import BrokerData

LOAD_COLUMNS = (
    Column("#Cluster Name", "clusterName", 22),
    Column("#Broker Name", "brokerName", 22),
    Column("#BID", "brokerId", 4),
    Column("#Addr", "addr", 22),
    Column("#Version", "version", 16),
    Column("#InTPS(LOAD)", "inTps", 16),
    Column("#OutTPS(LOAD)", "outTps", 20),
    Column("#Timer(Progress)", "timer", 22),
    Column("#PCWait(ms)", "pageCacheWaitMs", 11),
    Column("#Hour", "hours", 7),
    Column("#SPACE", "space", 8),
    Column("#ACTIVATED", "activated", 0, lambda value: str(value).lower()),
)
TOTAL_COLUMNS = (
    Column("#Cluster Name", "clusterName", 16),
    Column("#Broker Name", "brokerName", 32),
    Column("#InTotalYest", "inTotalYesterday", 14),
    Column("#OutTotalYest", "outTotalYesterday", 14),
    Column("#InTotalToday", "inTotalToday", 14),
    Column("#OutTotalToday", "outTotalToday", 14),
)

QUEUES = (("send", "0"), ("pull", "0"), ("ack", "N"))
"""Executors whose load is shown, and what stands for a figure that a broker does not have."""


def cluster_list(
    more_stats: Annotated[
        bool, typer.Option("-m", "--moreStats", help="totals of yesterday and today")
    ] = False,
    interval: Annotated[
        float | None, typer.Option("-i", "--interval", help="repeat every so many seconds")
    ] = None,
    cluster: Annotated[str | None, typer.Option("-c", "--clusterName", help="only this cluster")] = None,
) -> Report | Stream:
    """List the brokers of all clusters with version, load and disk use."""
    if interval is None:
        return _once(more_stats, cluster)
    return Stream(_again(more_stats, cluster, interval))


def _again(more_stats: bool, cluster: str | None, interval: float) -> Iterator[tuple[str, Item]]:
    while True:
        report = _once(more_stats, cluster)
        yield "\n".join([*table_lines(report), ""]), {"kind": report.kind, "items": report.items}
        time.sleep(interval)


def _once(more_stats: bool, cluster: str | None) -> Report:
    with session.current.admin() as admin:
        info = admin.cluster_info()
        groups = sorted(info.broker_addr_table.items())
        brokers = {
            addr: (data, broker_id)
            for name, data in groups
            if cluster is None or name in info.cluster_addr_table.get(cluster, ())
            for broker_id, addr in sorted(data.broker_addrs.items())
        }
        answers, failures = ask_each(brokers, admin.broker_runtime_info)
    row = _totals if more_stats else _load
    items = [row(*brokers[addr], addr, table) for addr, table in answers]
    items.sort(key=lambda item: (item["clusterName"], item["brokerName"], item.get("brokerId", 0)))
    return Report("ClusterList", items, TOTAL_COLUMNS if more_stats else LOAD_COLUMNS, errors=failures)


def _load(data: BrokerData, broker_id: int, addr: str, table: dict[str, str]) -> Item:
    transferred = table.get("getTransferredTps") or table.get("getTransferedTps") or ""
    earliest = _number(table, "earliestMessageTimeStamp")
    hours = (time.time() * 1000 - earliest) / 3_600_000 if earliest > 0 else 0.0
    send, pull, ack = (_queue(table, name, missing) for name, missing in QUEUES)
    behind = f"{table.get('timerReadBehind', '0')}-{table.get('timerOffsetBehind', '0')}"
    timer_tps = f"{_number(table, 'timerEnqueueTps'):.1f}, {_number(table, 'timerDequeueTps'):.1f}"
    congested = f"{_number(table, 'timerCongestNum') / 10_000:.1f}w"
    return {
        "clusterName": data.cluster,
        "brokerName": data.broker_name,
        "brokerId": broker_id,
        "addr": addr,
        "version": table.get("brokerVersionDesc", ""),
        "inTps": f"{_first_number(table.get('putTps', '')):.2f}({send})",
        "outTps": f"{_first_number(transferred):.2f}({pull}|{ack})",
        "timer": f"{behind}({congested}, {timer_tps})",
        "pageCacheWaitMs": table.get("pageCacheLockTimeMills", "0"),
        "hours": f"{hours:.2f}",
        "space": f"{_number(table, 'commitLogDiskRatio'):.4f}",
        "activated": table.get("brokerActive", "false") == "true",
    }


def _queue(table: dict[str, str], name: str, missing: str) -> str:
    """A thread pool's waiting requests and how long the first of them waits."""
    size = table.get(f"{name}ThreadPoolQueueSize", missing)
    return f"{size},{table.get(f'{name}ThreadPoolQueueHeadWaitTimeMills', missing)}ms"


def _totals(data: BrokerData, broker_id: int, addr: str, table: dict[str, str]) -> Item:
    def day(prefix: str, later: str, earlier: str) -> int:
        return int(_number(table, f"{prefix}{later}") - _number(table, f"{prefix}{earlier}"))

    return {
        "clusterName": data.cluster,
        "brokerName": data.broker_name,
        "inTotalYesterday": day("msgPutTotal", "TodayMorning", "YesterdayMorning"),
        "outTotalYesterday": day("msgGetTotal", "TodayMorning", "YesterdayMorning"),
        "inTotalToday": day("msgPutTotal", "TodayNow", "TodayMorning"),
        "outTotalToday": day("msgGetTotal", "TodayNow", "TodayMorning"),
    }


def _number(table: dict[str, Any], key: str) -> float:
    """A figure that an older broker may leave out or write strangely: 0 then, never a dead command."""
    try:
        return float(table.get(key) or 0)
    except ValueError:
        return 0.0


def _first_number(text: str) -> float:
    """The first of `10s 60s 600s` rates; 0 while a broker warms up."""
    try:
        return float(text.split()[0]) if text.split() else 0.0
    except ValueError:
        return 0.0
