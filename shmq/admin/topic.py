"""Topics: list, route, offsets, create or change, delete."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from shmq.admin import session
from shmq.admin.options import truth
from shmq.admin.output import Column, Report, local_time, rfc3339
from shmq.admin.targets import ask_each, masters
from shmq.client.admin_client import AdminClient
from shmq.model.names import DLQ_PREFIX, RETRY_PREFIX
from shmq.model.topic_config import SINGLE_TAG, SYS_FLAG_UNIT, SYS_FLAG_UNIT_SUB, TopicConfig, perm_text

ORDER_NAMESPACE = "ORDER_TOPIC_CONFIG"
"""Name server namespace of ordered topics: value `broker-a:4;broker-b:4`."""

Topic = Annotated[str, typer.Option("-t", "--topic", help="topic")]


def topic_list(
    cluster_model: Annotated[
        bool, typer.Option("-c", "--clusterModel", help="with cluster and consumer groups")
    ] = False,
) -> Report:
    """List all topics."""
    with session.current.admin() as admin:
        if not cluster_model:
            names = sorted(admin.topic_list())
            return Report("TopicList", [{"topic": name} for name in names], lines=names)
        items = [
            {"clusterName": cluster, "topic": topic, "consumerGroup": group}
            for cluster in sorted(admin.cluster_info().cluster_addr_table)
            for topic in sorted(admin.topics_of_cluster(cluster))
            if not topic.startswith((RETRY_PREFIX, DLQ_PREFIX))
            for group in sorted(admin.groups_of_topic(topic)) or [""]
        ]
    columns = (
        Column("#Cluster Name", "clusterName", 20),
        Column("#Topic", "topic", 48),
        Column("#Consumer Group", "consumerGroup", 48),
    )
    return Report("TopicList", items, columns)


def topic_route(
    topic: Topic, as_list: Annotated[bool, typer.Option("-l", "--list", help="a table, not JSON")] = False
) -> Report:
    """Show which brokers and queues serve a topic."""
    with session.current.admin() as admin:
        route = admin.topic_route(topic)
    brokers = [
        {
            "brokerAddrs": {str(broker_id): addr for broker_id, addr in sorted(data.broker_addrs.items())},
            "brokerName": data.broker_name,
            "cluster": data.cluster,
            **({"unixSocket": data.unix_socket} if data.unix_socket else {}),
        }
        for data in route.broker_datas
    ]
    queues = [
        {
            "brokerName": data.broker_name,
            "perm": data.perm,
            "readQueueNums": data.read_queue_nums,
            "topicSysFlag": data.topic_sys_flag,
            "writeQueueNums": data.write_queue_nums,
        }
        for data in route.queue_datas
    ]
    document = {"brokerDatas": brokers, "filterServerTable": {}, "queueDatas": queues}
    if route.order_topic_conf:
        document["orderTopicConf"] = route.order_topic_conf
    if not as_list:
        return Report("TopicRoute", [document], lines=json.dumps(document, indent="\t").splitlines())
    names = {data.broker_name: data for data in route.broker_datas}
    items = [
        {
            "clusterName": names[data.broker_name].cluster,
            "brokerName": data.broker_name,
            "brokerAddrs": _addresses(names[data.broker_name].broker_addrs),
            "readQueue": data.read_queue_nums,
            "writeQueue": data.write_queue_nums,
            "perm": data.perm,
        }
        for data in route.queue_datas
    ]
    totals = (
        sum(data.read_queue_nums for data in route.queue_datas),
        sum(data.write_queue_nums for data in route.queue_datas),
    )
    columns = (
        Column("#ClusterName", "clusterName", 45),
        Column("#BrokerName", "brokerName", 32),
        Column("#BrokerAddrs", "brokerAddrs", 50),
        Column("#ReadQueue", "readQueue", 10),
        Column("#WriteQueue", "writeQueue", 11),
        Column("#Perm", "perm"),
    )
    footer = ["-" * 158, f"{'Total:':<45}  {'':<32}  {'':<50}  {totals[0]:<10}  {totals[1]:<11}"]
    return Report("TopicRoute", items, columns, footer)


def topic_status(
    topic: Topic,
    cluster: Annotated[str | None, typer.Option("-c", "--cluster", help="unused: one host's topics")] = None,
) -> Report:
    """Show the offsets of every queue."""
    with session.current.admin() as admin:
        stats = admin.topic_stats(topic)
    items = [
        {
            "topic": queue.topic,
            "brokerName": queue.broker_name,
            "queueId": queue.queue_id,
            "minOffset": offsets.min_offset,
            "maxOffset": offsets.max_offset,
            "lastUpdated": rfc3339(offsets.last_update_timestamp),
            "lastUpdatedMs": offsets.last_update_timestamp,
        }
        for queue, offsets in sorted(stats.offset_table.items())
    ]
    columns = (
        Column("#Broker Name", "brokerName", 32),
        Column("#QID", "queueId", 4),
        Column("#Min Offset", "minOffset", 20),
        Column("#Max Offset", "maxOffset", 20),
        Column("  #Last Updated", "lastUpdatedMs", 0, lambda ms: "  " + local_time(ms)),
    )
    return Report("TopicStatus", items, columns, ["", f"Topic Put TPS: {stats.topic_put_tps:.2f}"])


def update_topic(
    topic: Topic,
    broker_addr: Annotated[str | None, typer.Option("-b", "--brokerAddr", help="one broker, ip:port")] = None,
    cluster: Annotated[str | None, typer.Option("-c", "--clusterName", help="all masters of it")] = None,
    perm: Annotated[int, typer.Option("-p", "--perm", help="2 write, 4 read, 6 both")] = 6,
    read_queues: Annotated[int, typer.Option("-r", "--readQueueNums", help="read queues")] = 8,
    write_queues: Annotated[int, typer.Option("-w", "--writeQueueNums", help="write queues")] = 8,
    order: Annotated[str, typer.Option("-o", "--order", help="true: an ordered topic")] = "false",
    unit: Annotated[str, typer.Option("-u", "--unit", help="true: a unit topic")] = "false",
    unit_sub: Annotated[str, typer.Option("-s", "--hasUnitSub", help="true: has unit subscribers")] = "false",
    attributes: Annotated[
        str, typer.Option("-a", "--attributes", help="+key=value and -key, separated by commas")
    ] = "",
    filter_type: Annotated[
        str, typer.Option("--topicFilterType", help="MULTI_TAG: messages may have several tags, A || B")
    ] = SINGLE_TAG,
) -> Report:
    """Create a topic, or replace its settings: an option that is left out goes back to its default."""
    if perm not in (2, 4, 6):
        raise typer.BadParameter(f"perm {perm} is not possible: 2 is write, 4 is read, 6 is both")
    flags = SYS_FLAG_UNIT * truth(unit) | SYS_FLAG_UNIT_SUB * truth(unit_sub)
    config = TopicConfig(
        topic,
        read_queues,
        write_queues,
        perm,
        topic_filter_type=filter_type,
        topic_sys_flag=flags,
        order=truth(order),
        attributes=_attributes(attributes),
    )
    with session.current.admin() as admin:
        targets = masters(admin, broker_addr, cluster)
        done, failures = ask_each(targets, lambda addr: admin.create_topic(addr, config))
        if config.order and done:
            _write_order_conf(admin, topic, broker_addr, write_queues)
    lines = [f"create topic to {addr} success." for addr, _ in done]
    if done:
        lines.append(
            f"TopicConfig [topicName={topic}, readQueueNums={read_queues}, writeQueueNums={write_queues}, "
            f"perm={perm_text(perm)}, topicFilterType={config.topic_filter_type}, topicSysFlag={flags}, "
            f"order={str(config.order).lower()}, attributes={config.attributes}]"
        )
    items = [{"brokerAddr": addr, **config.to_json()} for addr, _ in done]
    return Report("TopicUpdate", items, lines=lines, errors=failures)


def _write_order_conf(admin: AdminClient, topic: str, broker_addr: str | None, queues: int) -> None:
    """Tell the name servers how many queues an ordered topic has on each broker, dead or alive.

    One broker (`-b`) is merged into the value, a cluster replaces it.
    """
    groups = admin.cluster_info().broker_addr_table.values()
    names = [
        group.broker_name
        for group in groups
        if broker_addr is None or broker_addr in group.broker_addrs.values()
    ]
    parts: dict[str, str] = {}
    if broker_addr:
        known = admin.get_kv_config(ORDER_NAMESPACE, topic) or ""
        parts = dict(part.split(":", 1) for part in known.split(";") if ":" in part)
    parts |= {name: str(queues) for name in names}
    value = ";".join(f"{name}:{count}" for name, count in sorted(parts.items()))
    admin.put_kv_config(ORDER_NAMESPACE, topic, value)


def delete_topic(
    topic: Topic,
    cluster: Annotated[str, typer.Option("-c", "--clusterName", help="cluster whose masters drop it")],
) -> Report:
    """Remove a topic from all masters of a cluster, then from the name servers. Its messages are lost."""
    if not session.current.confirm_loss(f"topic {topic} with its messages", topic):
        raise typer.BadParameter(f"topic {topic} was not deleted: not confirmed (--yes)")
    with session.current.admin() as admin:
        targets = masters(admin, None, cluster)
        done, failures = ask_each(targets, lambda addr: admin.delete_topic_in_broker(addr, topic))
        if not failures:
            # A name server forgets the topic only when no broker has it any more, or it would come back.
            admin.delete_topic_in_namesrv(topic, cluster)
    lines = [f"delete topic [{topic}] from cluster [{cluster}] success."] if not failures else []
    lines += [f"delete topic [{topic}] from NameServer success."] if not failures else []
    items = [{"brokerAddr": addr, "topic": topic} for addr, _ in done]
    return Report("TopicDelete", items, lines=lines, errors=failures)


def _addresses(broker_addrs: dict[int, str]) -> str:
    return "{" + ", ".join(f"{broker_id}={addr}" for broker_id, addr in sorted(broker_addrs.items())) + "}"


def _attributes(text: str) -> dict[str, str]:
    """Read `+key=value,-key`; the signs stay in the names, as the broker expects them."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if part[0] not in "+-" or (part[0] == "+") != ("=" in part):
            raise typer.BadParameter(f"{part!r} is no attribute change: write +key=value or -key")
    return {key: value for key, _, value in (part.partition("=") for part in parts)}
