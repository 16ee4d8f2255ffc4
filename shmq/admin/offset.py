"""Offsets of consumer groups: reset by time or to an offset, skip a backlog, clone from another group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from shmq.admin import session
from shmq.admin.options import moment_ms, truth
from shmq.admin.output import Column, Item, Report
from shmq.admin.targets import ask_each
from shmq.base.errors import InvalidParameter, QueryNotFound
from shmq.client.admin_client import AdminClient
from shmq.client.admin_groups import ALL_QUEUES, TO_NEWEST
from shmq.model.message_queue import MessageQueue

Group = Annotated[str, typer.Option("-g", "--group", help="consumer group")]
Topic = Annotated[str, typer.Option("-t", "--topic", help="topic")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="show where it would go, change nothing")]

RESET_COLUMNS = (
    Column("#brokerName", "brokerName", 40),
    Column("#queueId", "queueId", 40),
    Column("#offset", "offset", 40),
)


def reset_offset_by_time(
    group: Group,
    topic: Topic,
    timestamp: Annotated[
        str | None, typer.Option("-s", "--timestamp", help="now, ms since 1970, or yyyy-MM-dd#HH:mm:ss:SSS")
    ] = None,
    force: Annotated[str, typer.Option("-f", "--force", help="false: queues only go back")] = "true",
    broker: Annotated[str | None, typer.Option("-b", "--broker", help="one broker, ip:port")] = None,
    queue_id: Annotated[int, typer.Option("-q", "--queue", help="one queue (with -b)")] = ALL_QUEUES,
    offset: Annotated[
        int | None, typer.Option("-o", "--offset", help="exact offset (with -b and -q)")
    ] = None,
    cluster: Annotated[str | None, typer.Option("-c", "--cluster", help="unused: one host's topics")] = None,
    dry_run: DryRun = False,
) -> Report:
    """Move a group to where a topic was at a time. Running consumers follow at once."""
    if offset is not None and (broker is None or queue_id == ALL_QUEUES):
        raise typer.BadParameter("an offset is one queue's: -o needs -b and -q")
    if timestamp is None and offset is None:
        raise typer.BadParameter("where to? -s takes a time, -o with -b and -q an offset")
    moment = TO_NEWEST if timestamp is None or timestamp.strip() == "-1" else moment_ms(timestamp)
    only_back = not truth(force)
    with session.current.admin() as admin:
        if dry_run or not _agreed(f"the offsets of group {group} in topic {topic}"):
            return _plan(admin, group, topic, moment, broker, queue_id, offset, only_back)
        return _moved(
            admin,
            topic,
            broker,
            lambda addr: admin.reset_offset(
                addr,
                group,
                topic,
                moment,
                force=not only_back,
                queue_id=queue_id,
                offset=-1 if offset is None else offset,
            ),
        )


def skip_accumulated_message(
    group: Group,
    topic: Topic,
    force: Annotated[str, typer.Option("-f", "--force", help="accepted, as in mqadmin")] = "true",
    cluster: Annotated[str | None, typer.Option("-c", "--cluster", help="unused: one host's topics")] = None,
    dry_run: DryRun = False,
) -> Report:
    """Move a group to the newest end: what waits is never consumed."""
    truth(force)
    with session.current.admin() as admin:
        if dry_run or not _agreed(f"the backlog of group {group} in topic {topic}"):
            return _plan(admin, group, topic, TO_NEWEST, None, ALL_QUEUES, None, False)
        return _moved(admin, topic, None, lambda addr: admin.reset_offset(addr, group, topic, TO_NEWEST))


def _agreed(what: str) -> bool:
    """Whether a position may be lost: asked on a terminal only, as scripts of mqadmin users do not answer."""
    import sys

    if session.current.yes or not sys.stdin.isatty():
        return True
    print(f"This moves {what}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _brokers(admin: AdminClient, topic: str, broker: str | None) -> list[str]:
    if broker is not None:
        return [broker]
    found = [data.master_addr for data in admin.topic_route(topic).broker_datas if data.master_addr]
    if not found:
        raise QueryNotFound(f"topic {topic} has no broker that takes changes now")
    return found


def _moved(
    admin: AdminClient, topic: str, broker: str | None, move: Callable[[str], dict[MessageQueue, int]]
) -> Report:
    answers, failures = ask_each(_brokers(admin, topic, broker), move)
    rows = {queue: offset for _, offsets in answers for queue, offset in offsets.items()}
    items: list[Item] = [
        {"brokerName": queue.broker_name, "queueId": queue.queue_id, "offset": offset}
        for queue, offset in sorted(rows.items())
    ]
    return Report("OffsetReset", items, RESET_COLUMNS, errors=failures)


PLAN_COLUMNS = (
    Column("#brokerName", "brokerName", 32),
    Column("#queueId", "queueId", 8),
    Column("#consumerOffset", "consumerOffset", 20),
    Column("#resetOffset", "offset", 20),
)


def _plan(
    admin: AdminClient,
    group: str,
    topic: str,
    moment_of_reset_ms: int,
    broker: str | None,
    queue_id: int,
    offset: int | None,
    only_back: bool,
) -> Report:
    """Say where each queue would go; nothing is changed."""
    known = admin.consume_stats(group, topic).offset_table
    names = {
        data.broker_name: data.master_addr
        for data in admin.topic_route(topic).broker_datas
        if data.master_addr and broker in (None, data.master_addr)
    }
    items: list[Item] = []
    for queue, bounds in sorted(admin.topic_stats(topic).offset_table.items()):
        if queue.broker_name not in names or queue_id not in (ALL_QUEUES, queue.queue_id):
            continue
        at = known.get(queue)
        if offset is not None:
            target = offset
        elif moment_of_reset_ms == TO_NEWEST:
            target = bounds.max_offset
        else:
            target = admin.offset_at(names[queue.broker_name], queue, moment_of_reset_ms)
        now_at = at.consumer_offset if at is not None else None
        if only_back and now_at is not None:
            target = min(target, now_at)
        items.append(
            {
                "brokerName": queue.broker_name,
                "queueId": queue.queue_id,
                "consumerOffset": now_at,
                "offset": target,
            }
        )
    return Report("OffsetResetPlan", items, PLAN_COLUMNS, ["", "nothing was changed"])


def clone_group_offset(
    src_group: Annotated[str, typer.Option("-s", "--srcGroup", help="group whose offsets are taken")],
    dest_group: Annotated[str, typer.Option("-d", "--destGroup", help="group that gets them")],
    topic: Annotated[str | None, typer.Option("-t", "--topic", help="topic")] = None,
    all_topics: Annotated[bool, typer.Option("--all-topics", help="every topic of the source")] = False,
    offline: Annotated[str | None, typer.Option("-o", "--offline", help="accepted, as in mqadmin")] = None,
) -> Report:
    """Give one group the offsets of another, in one topic (mqadmin copies every topic: --all-topics)."""
    if (topic is None) is not all_topics:
        raise typer.BadParameter("name one topic with -t, or every topic with --all-topics")
    if src_group == dest_group:
        raise InvalidParameter("source and destination are the same group")
    with session.current.admin() as admin:
        known = admin.consume_stats(src_group, topic).offset_table
        if not known:
            raise QueryNotFound(f"group {src_group} has no offsets{f' in topic {topic}' if topic else ''}")
        if not _agreed(f"the offsets of group {dest_group}"):
            return Report("OffsetClone", [], lines=["nothing was changed"])
        groups = admin.cluster_info().broker_addr_table
        targets = sorted(
            {str(groups[queue.broker_name].master_addr) for queue in known if queue.broker_name in groups}
        )
        done, failures = ask_each(
            targets, lambda addr: admin.clone_group_offset(addr, src_group, dest_group, topic)
        )
    what = f"topic[{topic}]" if topic else "all topics"
    lines = [f"clone group offset success. srcGroup[{src_group}], destGroup=[{dest_group}], {what}"]
    items: list[Item] = [
        {"brokerAddr": addr, "srcGroup": src_group, "destGroup": dest_group} for addr, _ in done
    ]
    return Report("OffsetClone", items, lines=lines if done else [], errors=failures)
