"""Consumer groups: how far they are behind."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shmq.admin import session
from shmq.admin.options import truth
from shmq.admin.output import Column, Item, Report, local_second, rfc3339
from shmq.base.errors import BrokerError, ConsumerNotOnline, QueryNotFound, ShmqError
from shmq.client.admin_client import AdminClient
from shmq.model.consumer_group import ConsumeType
from shmq.model.message_queue import MessageQueue
from shmq.model.names import DLQ_PREFIX, RETRY_PREFIX, is_system_topic

GROUP_COLUMNS = (
    Column("#Group", "group", 64),
    Column("#Count", "count", 6),
    Column("#Version", "version", 24),
    Column("#Type", "type", 5),
    Column("#Model", "model", 14),
    Column("#TPS", "tps", 7),
    Column("#Diff Total", "diffTotal"),
)

FIRST_REGULAR_VERSION = 212
"""V4_0_0_SNAPSHOT; the numbers before it follow no rule (Apache RocketMQ 5.3, MQVersion.java)."""


def consumer_progress(
    group: Annotated[str | None, typer.Option("-g", "--groupName", help="one group, queue by queue")] = None,
    show_client: Annotated[
        str, typer.Option("-s", "--showClientIP", help="true: which client has the queue")
    ] = "false",
    topic: Annotated[str | None, typer.Option("-t", "--topicName", help="only this topic")] = None,
    cluster: Annotated[str | None, typer.Option("-c", "--cluster", help="unused: one host's topics")] = None,
) -> Report:
    """Show how far consumer groups are behind: all of them, or one group's queues."""
    with session.current.admin() as admin:
        if group is None:
            return _all_groups(admin)
        return _one_group(admin, group, topic, truth(show_client))


def _one_group(admin: AdminClient, group: str, topic: str | None, show_client: bool) -> Report:
    stats = admin.consume_stats(group, topic)
    if not stats.offset_table:
        # Asking for the members turns an empty answer into the reason: no such group, or nobody online.
        admin.consumer_connections(group)
        raise QueryNotFound(f"group {group} has consumed nothing{f' of topic {topic}' if topic else ''} yet")
    owners = _owners(admin, group) if show_client else {}
    items: list[Item] = [
        {
            "topic": queue.topic,
            "brokerName": queue.broker_name,
            "queueId": queue.queue_id,
            "brokerOffset": offsets.broker_offset,
            "consumerOffset": offsets.consumer_offset,
            **({"clientIP": owners.get(queue, "N/A")} if show_client else {}),
            "diff": offsets.broker_offset - max(0, offsets.consumer_offset),
            "inflight": max(0, offsets.pull_offset - offsets.consumer_offset),
            "lastTime": rfc3339(offsets.last_timestamp),
            "lastTimeMs": offsets.last_timestamp,
        }
        for queue, offsets in sorted(stats.offset_table.items())
    ]
    columns = (
        Column("#Topic", "topic", 64),
        Column("#Broker Name", "brokerName", 32),
        Column("#QID", "queueId", 4),
        Column("#Broker Offset", "brokerOffset", 20),
        Column("#Consumer Offset", "consumerOffset", 20),
        *((Column("#Client IP", "clientIP", 20),) if show_client else ()),
        Column("#Diff", "diff", 20),
        Column("#Inflight", "inflight", 20),
        Column("#LastTime", "lastTimeMs", 0, local_second),
    )
    footer = [
        "",
        f"Consume TPS: {stats.consume_tps:.2f}",
        f"Consume Diff Total: {sum(item['diff'] for item in items)}",
        f"Consume Inflight Total: {sum(item['inflight'] for item in items)}",
    ]
    return Report("ConsumerProgress", items, columns, footer)


def _owners(admin: AdminClient, group: str) -> dict[MessageQueue, str]:
    """Which client has which queue, as far as the clients answer; none when nobody is online."""
    try:
        connections = admin.consumer_connections(group).connections
    except ConsumerNotOnline:
        return {}
    owners: dict[MessageQueue, str] = {}
    for connection in connections:
        try:
            queues = admin.client_queues(group, connection.client_id)
        except (ShmqError, OSError):
            continue  # an old or hung client: its queues show N/A
        owners |= dict.fromkeys(queues, connection.client_id.partition("@")[0])
    return owners


def _all_groups(admin: AdminClient) -> Report:
    """Every group with a retry topic, as mqadmin finds them, and those that only have committed offsets."""
    topics = admin.topic_list()
    groups = {name.removeprefix(RETRY_PREFIX) for name in topics if name.startswith(RETRY_PREFIX)}
    for topic in topics:
        if not topic.startswith((RETRY_PREFIX, DLQ_PREFIX)) and not is_system_topic(topic):
            groups.update(admin.groups_of_topic(topic))
    items = [_group_row(admin, group) for group in sorted(groups)]
    items.sort(key=lambda item: -item["diffTotal"])
    return Report("ConsumerProgress", items, GROUP_COLUMNS)


def _group_row(admin: AdminClient, group: str) -> Item:
    row: dict[str, Any] = {"group": group, "count": 0, "version": "OFFLINE", "type": "", "model": ""}
    row |= {"tps": 0, "diffTotal": 0}
    try:
        stats = admin.consume_stats(group)
        row["tps"] = int(stats.consume_tps)
        row["diffTotal"] = sum(
            offsets.broker_offset - max(0, offsets.consumer_offset) for offsets in stats.offset_table.values()
        )
    except BrokerError as error:
        row["error"] = str(error)
    try:
        members = admin.consumer_connections(group)
    except ConsumerNotOnline:
        return row
    if members.connections:
        row["count"] = len(members.connections)
        row["version"] = version_text(min(member.version for member in members.connections))
    push = members.consume_type is ConsumeType.CONSUME_PASSIVELY
    row["type"] = "PUSH" if push else "PULL"
    row["model"] = members.message_model.name if push else ""
    return row


def version_text(version: int) -> str:
    """RocketMQ's name of a protocol version: ten patch levels a minor one, each a snapshot and a release."""
    if version < FIRST_REGULAR_VERSION:
        return str(version)
    minor, step = divmod(version - FIRST_REGULAR_VERSION, 20)
    name = f"V{4 + minor // 10}_{minor % 10}_{step // 2}"
    return name if step % 2 else f"{name}_SNAPSHOT"
