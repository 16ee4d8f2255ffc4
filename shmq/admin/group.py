"""Consumer groups: create, change, delete; who is connected and what these clients do."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from shmq.admin import session
from shmq.admin.consumer import version_text
from shmq.admin.options import truth
from shmq.admin.output import Column, Failure, Item, Report
from shmq.admin.targets import ask_each, brokers_of, masters
from shmq.base.errors import ConsumerNotOnline, InvalidParameter, QueryNotFound, ShmqError
from shmq.client.admin_client import AdminClient
from shmq.model.consumer_group import SubscriptionGroupConfig
from shmq.model.names import check_group, dlq_topic, retry_topic
from shmq.protocol.bodies.groups import ClientConnection
from shmq.protocol.codes import LanguageCode

Group = Annotated[str, typer.Option("-g", "--groupName", "--consumerGroup", help="consumer group")]
BrokerAddr = Annotated[str | None, typer.Option("-b", "--brokerAddr", help="one broker, ip:port")]
Cluster = Annotated[str | None, typer.Option("-c", "--clusterName", help="all masters of it")]

CONNECTION_COLUMNS = (
    Column("#ClientId", "clientId", 36),
    Column("#ClientAddr", "clientAddr", 22),
    Column("#Language", "language", 8),
    Column("#Version", "version"),
)


def update_group(
    group: Group,
    broker_addr: BrokerAddr = None,
    cluster: Cluster = None,
    consume_enable: Annotated[
        str, typer.Option("-s", "--consumeEnable", help="false: pulls are refused")
    ] = "true",
    from_min: Annotated[
        str, typer.Option("-m", "--consumeFromMinEnable", help="true: a new member may begin at the oldest")
    ] = "false",
    broadcast: Annotated[
        str, typer.Option("-d", "--consumeBroadcastEnable", help="true: members may broadcast")
    ] = "false",
    retry_queues: Annotated[
        int, typer.Option("-q", "--retryQueueNums", help="queues of its retry topic")
    ] = 1,
    retries: Annotated[
        int, typer.Option("-r", "--retryMaxTimes", help="retries before the dead letters")
    ] = 16,
    broker_id: Annotated[int, typer.Option("-i", "--brokerId", help="broker to read from")] = 0,
    slow_broker: Annotated[
        int, typer.Option("-w", "--whichBrokerWhenConsumeSlowly", help="broker for readers far behind")
    ] = 1,
    notify: Annotated[
        str, typer.Option("-a", "--notifyConsumerIdsChanged", help="false: members are not told of changes")
    ] = "true",
    orderly: Annotated[str, typer.Option("-o", "--consumeMessageOrderly", help="true: orderly")] = "false",
) -> Report:
    """Create a consumer group, or replace its settings: an option left out goes back to its default."""
    check_group(group)
    if retry_queues < 0 or retries < -1:
        raise InvalidParameter(f"retryQueueNums {retry_queues}, retryMaxTimes {retries}: at least 0 and -1")
    config = SubscriptionGroupConfig(
        group,
        consume_enable=truth(consume_enable),
        consume_from_min_enable=truth(from_min),
        consume_broadcast_enable=truth(broadcast),
        consume_message_orderly=truth(orderly),
        retry_queue_nums=retry_queues,
        retry_max_times=retries,
        broker_id=broker_id,
        which_broker_when_consume_slowly=slow_broker,
        notify_consumer_ids_changed_enable=truth(notify),
    )
    with session.current.admin() as admin:
        targets = masters(admin, broker_addr, cluster)
        done, failures = ask_each(targets, lambda addr: admin.update_group(addr, config))
    lines = [f"create subscription group to {addr} success." for addr, _ in done]
    if done:
        members = ", ".join(f"{name}={_java(value)}" for name, value in config.to_json().items())
        lines.append(f"SubscriptionGroupConfig{{{members}}}")
    items = [{"brokerAddr": addr, **config.to_json()} for addr, _ in done]
    return Report("GroupUpdate", items, lines=lines, errors=failures)


def _java(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def delete_group(
    group: Group,
    broker_addr: BrokerAddr = None,
    cluster: Cluster = None,
    remove_offset: Annotated[
        str, typer.Option("-r", "--removeOffset", help="true: forget its committed offsets too")
    ] = "false",
) -> Report:
    """Forget a consumer group; with -c also its retry topic and its dead letters."""
    clean = truth(remove_offset)
    lost = f"group {group}" + (
        " with its retry and dead letter topics" if cluster and not broker_addr else ""
    )
    if not session.current.confirm_loss(lost, group):
        raise typer.BadParameter(f"group {group} was not deleted: not confirmed (--yes)")
    with session.current.admin() as admin:
        targets = masters(admin, broker_addr, cluster)
        done, failures = ask_each(targets, lambda addr: admin.delete_group(addr, group, clean_offset=clean))
        if cluster and not broker_addr and not failures:
            for topic in (retry_topic(group), dlq_topic(group)):
                failures += _drop_topic(admin, targets, topic, cluster)
    lines = [f"delete subscription group [{group}] from broker [{addr}] success." for addr, _ in done]
    items: list[Item] = [{"brokerAddr": addr, "groupName": group} for addr, _ in done]
    return Report("GroupDelete", items, lines=lines, errors=failures)


def _drop_topic(admin: AdminClient, targets: list[str], topic: str, cluster: str) -> list[Failure]:
    """Delete one of the group's own topics where it exists."""
    if topic not in admin.topic_list():
        return []
    try:
        for address in targets:
            admin.delete_topic_in_broker(address, topic)
        admin.delete_topic_in_namesrv(topic, cluster)
    except (ShmqError, OSError) as error:
        return [Failure(topic, 0, str(error))]
    return []


def group_config(group: Group) -> Report:
    """Show a group's settings at every broker that knows it."""
    items: list[Item] = []
    with session.current.admin() as admin:
        answers, failures = ask_each(brokers_of(admin, None), lambda addr: admin.group_config(addr, group))
        items = [{"brokerAddr": addr, **config.to_json()} for addr, config in answers]
    lines: list[str] = []
    for item in items:
        lines += [f"============================={item['brokerAddr']}============================="]
        lines += [f"{name:<36}=  {_java(value)}" for name, value in item.items() if name != "brokerAddr"]
    return Report("GroupConfig", items, lines=lines, errors=failures)


def consumer_connection(
    group: Group,
    broker_addr: Annotated[
        str | None, typer.Option("-b", "--brokerAddr", help="unused: all are asked")
    ] = None,
) -> Report:
    """Show a group's connected members, what they subscribe to and how they consume."""
    with session.current.admin() as admin:
        found = admin.consumer_connections(group)
    items = [_connection(member) for member in found.connections]
    subscriptions = {topic: data.sub_string for topic, data in sorted(found.subscriptions.items())}
    lines = ["", "Below is subscription:", f"{'#Topic':<20}  #SubExpression"]
    lines += [f"{topic:<20}  {expression}" for topic, expression in subscriptions.items()]
    ways = {
        "consumeType": found.consume_type.value,
        "messageModel": found.message_model.value,
        "consumeFromWhere": found.consume_from_where.value,
    }
    lines += ["", *(f"{name[0].upper()}{name[1:]}: {value}" for name, value in ways.items())]
    more: Item = {"subscriptions": subscriptions, **ways}
    return Report("ConsumerConnection", items, CONNECTION_COLUMNS, lines, more=more)


def producer_connection(
    group: Annotated[str, typer.Option("-g", "--producerGroup", help="producer group")],
    topic: Annotated[str | None, typer.Option("-t", "--topic", help="ask the brokers of this topic")] = None,
) -> Report:
    """Show the connected producers of a group."""
    with session.current.admin() as admin:
        if topic is not None:
            route = admin.topic_route(topic)
            targets = [data.master_addr for data in route.broker_datas if data.master_addr]
        else:
            targets = brokers_of(admin, None)
        answers, failures = ask_each(targets, lambda addr: admin.producer_connections(addr, group))
    items = [_connection(member) for _, members in answers for member in members]
    lines = [
        f"{place:04d}  {one['clientId']:<32} {one['clientAddr']:<22} {one['language']:<8} {one['version']}"
        for place, one in enumerate(items, 1)
    ]
    return Report("ProducerConnection", items, lines=lines, errors=failures)


def _connection(member: ClientConnection) -> Item:
    try:
        language = LanguageCode(member.language).name
    except ValueError:
        language = str(member.language)
    return {
        "clientId": member.client_id,
        "clientAddr": member.client_addr,
        "language": language,
        "version": version_text(member.version),
    }


STATUS_COLUMNS = (
    Column("#ClientId", "clientId", 36),
    Column("#Version", "version", 12),
    Column("#Queues", "queues", 7),
    Column("#Type", "type", 22),
    Column("#Started", "started"),
)


def consumer_status(
    group: Group,
    client_id: Annotated[str | None, typer.Option("-i", "--clientId", help="one client, in full")] = None,
) -> Report:
    """Show what a group's members say of themselves; with -i one member's queues and settings."""
    with session.current.admin() as admin:
        members = admin.consumer_connections(group).connections
        if client_id is not None:
            if client_id not in {member.client_id for member in members}:
                raise ConsumerNotOnline(f"no member {client_id} of group {group} is connected")
            return _one_client(admin, group, client_id)
        items, failures = _members(admin, group, members)
    owned = Counter(queue for item in items for queue in item["owned"])
    twice = [queue for queue, count in owned.items() if count > 1]
    lines = ["", *(f"WARN: {queue} is owned by several members" for queue in sorted(twice))]
    if not twice and not failures:
        lines.append("Rebalance OK: no queue has two owners")
    differences = _differences(items)
    lines += [f"WARN: members differ in {difference}" for difference in differences]
    if not differences and not failures:
        lines.append("Subscriptions OK: all members subscribe and consume alike")
    return Report("ConsumerStatus", items, STATUS_COLUMNS, lines, failures, {"differences": differences})


def _differences(items: list[Item]) -> list[str]:
    """Say in what members of one group differ that should all be alike, and who says what."""
    found = []
    topics = {topic for item in items for topic in item["subscriptions"]}
    said = {
        **{
            f"topic {topic}": [item["subscriptions"].get(topic, "nothing") for item in items]
            for topic in topics
        },
        "consume type": [item["type"] for item in items],
        "order": ["orderly" if item["orderly"] == "true" else "concurrent" for item in items],
    }
    for what, answers in sorted(said.items()):
        if len(set(answers)) > 1:
            ways = (f"{item['clientId']} {answer}" for item, answer in zip(items, answers, strict=True))
            found.append(f"{what}: {', '.join(ways)}")
    return found


def _members(
    admin: AdminClient, group: str, members: list[ClientConnection]
) -> tuple[list[Item], list[Failure]]:
    items: list[Item] = []
    failures: list[Failure] = []
    for member in members:
        row: dict[str, Any] = {"clientId": member.client_id, "version": version_text(member.version)}
        try:
            info = admin.client_info(group, member.client_id)
        except (ShmqError, OSError) as error:
            failures.append(Failure(member.client_id, 0, str(error)))
            continue
        row |= {
            "queues": len(info.queues),
            "type": info.properties.get("PROP_CONSUME_TYPE", ""),
            "orderly": info.properties.get("PROP_CONSUMEORDERLY", "false"),
            "started": info.properties.get("PROP_CONSUMER_START_TIMESTAMP", ""),
            "owned": [str(queue) for queue in info.queues],
            "subscriptions": info.subscriptions,
        }
        items.append(row)
    return items, failures


def _one_client(admin: AdminClient, group: str, client_id: str) -> Report:
    info = admin.client_info(group, client_id)
    queues, properties = info.queues, info.properties
    if not properties:
        raise QueryNotFound(f"client {client_id} says nothing of itself")
    lines = ["#Consumer Properties#", *(f"{name:<40}: {value}" for name, value in sorted(properties.items()))]
    lines += ["", "#Consumer Queues#", *(str(queue) for queue in queues)]
    lines += ["", "#Consumer Subscriptions#"]
    lines += [f"{topic:<40}: {expression}" for topic, expression in sorted(info.subscriptions.items())]
    lines += ["", "#Consumer RT&TPS#"]
    lines += [
        f"{topic:<40}: " + ", ".join(f"{name} {value:.2f}" for name, value in status.items())
        for topic, status in sorted(info.status_table.items())
    ]
    item = {
        "clientId": client_id,
        "properties": properties,
        "owned": [str(queue) for queue in queues],
        "subscriptions": info.subscriptions,
        "statusTable": info.status_table,
    }
    return Report("ConsumerStatus", [item], lines=lines)
