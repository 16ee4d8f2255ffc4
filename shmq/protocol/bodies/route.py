"""Bodies of route answers 105, cluster info 106 and member groups 901.

Apache RocketMQ 5.3: TopicRouteData.java, ClusterInfo.java. Clients of version 401 and later get strict
JSON, older ones integer names without quotes; ``unixSocket`` of a broker is shmq's addition, ignored by all
others.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from shmq.model.route import BrokerData, QueueData, TopicRoute
from shmq.protocol.bodies.dialect import Body, dumps, integer_keyed, loads, reads
from shmq.protocol.codes import VERSION_STANDARD_JSON


@dataclass(slots=True)
class ClusterInfo:
    """All brokers a name server knows, and which cluster each broker name belongs to."""

    broker_addr_table: dict[str, BrokerData] = field(default_factory=dict)
    cluster_addr_table: dict[str, list[str]] = field(default_factory=dict)

    def masters_of(self, cluster: str) -> list[str]:
        """Return the master addresses of a cluster's brokers, in the order of their names."""
        found = (
            self.broker_addr_table.get(name) for name in sorted(self.cluster_addr_table.get(cluster, ()))
        )
        return [data.master_addr for data in found if data and data.master_addr]


def wants_standard_json(version: int, accept_standard_json_only: bool = False) -> bool:
    """Tell whether a requester gets strict JSON."""
    return accept_standard_json_only or version >= VERSION_STANDARD_JSON


def encode_route(route: TopicRoute, *, standard_json: bool = True) -> bytes:
    """Return the answer to 105."""
    members: dict[str, Any] = {
        "brokerDatas": [_broker_json(data, standard_json) for data in route.broker_datas],
        "filterServerTable": route.filter_server_table,
    }
    if route.order_topic_conf:
        members["orderTopicConf"] = route.order_topic_conf
    members["queueDatas"] = [_queue_json(data) for data in route.queue_datas]
    if standard_json:
        return json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    return dumps(members)


@reads("route")
def decode_route(body: Body | None) -> TopicRoute:
    """Read the answer to 105, of any name server."""
    members = loads(body)
    return TopicRoute(
        queue_datas=[_queue_of(data) for data in members.get("queueDatas") or ()],
        broker_datas=[_broker_of(data) for data in members.get("brokerDatas") or ()],
        order_topic_conf=members.get("orderTopicConf") or None,
        filter_server_table={
            str(address): list(map(str, servers))
            for address, servers in (members.get("filterServerTable") or {}).items()
        },
    )


def encode_cluster_info(info: ClusterInfo) -> bytes:
    """Return the answer to 106; integer names without quotes whoever asks, as RocketMQ has it."""
    return dumps(
        {
            "brokerAddrTable": {
                name: _broker_json(data, standard_json=False) for name, data in info.broker_addr_table.items()
            },
            "clusterAddrTable": info.cluster_addr_table,
        }
    )


@reads("cluster info")
def decode_cluster_info(body: Body | None) -> ClusterInfo:
    """Read the answer to 106."""
    members = loads(body)
    brokers = members.get("brokerAddrTable") or {}
    clusters = members.get("clusterAddrTable") or {}
    return ClusterInfo(
        broker_addr_table={str(name): _broker_of(data) for name, data in brokers.items()},
        cluster_addr_table={str(name): list(map(str, names)) for name, names in clusters.items()},
    )


def encode_broker_member_group(cluster: str, broker_name: str, broker_addrs: Mapping[int, str]) -> bytes:
    """Return the answer to 901."""
    addresses = integer_keyed(broker_addrs)
    return dumps(
        {"brokerMemberGroup": {"brokerAddrs": addresses, "brokerName": broker_name, "cluster": cluster}}
    )


def _broker_json(data: BrokerData, standard_json: bool) -> dict[str, Any]:
    addresses: dict[str, str] | orjson.Fragment
    if standard_json:
        addresses = {str(broker_id): address for broker_id, address in data.broker_addrs.items()}
    else:
        addresses = integer_keyed(data.broker_addrs)
    members: dict[str, Any] = {
        "brokerAddrs": addresses,
        "brokerName": data.broker_name,
        "cluster": data.cluster,
        "enableActingMaster": data.enable_acting_master,
    }
    if data.unix_socket:
        members["unixSocket"] = data.unix_socket
    if data.zone_name:
        members["zoneName"] = data.zone_name
    return members


def _broker_of(members: Any) -> BrokerData:
    addresses = members.get("brokerAddrs") or {}
    return BrokerData(
        cluster=str(members.get("cluster") or ""),
        broker_name=str(members["brokerName"]),
        broker_addrs={int(broker_id): str(address) for broker_id, address in addresses.items()},
        enable_acting_master=bool(members.get("enableActingMaster")),
        zone_name=members.get("zoneName"),
        unix_socket=members.get("unixSocket"),
    )


def _queue_json(data: QueueData) -> dict[str, Any]:
    return {
        "brokerName": data.broker_name,
        "perm": data.perm,
        "readQueueNums": data.read_queue_nums,
        "topicSysFlag": data.topic_sys_flag,
        "writeQueueNums": data.write_queue_nums,
    }


def _queue_of(members: Any) -> QueueData:
    return QueueData(
        broker_name=str(members["brokerName"]),
        read_queue_nums=int(members.get("readQueueNums") or 0),
        write_queue_nums=int(members.get("writeQueueNums") or 0),
        perm=int(members.get("perm") or 0),
        topic_sys_flag=int(members.get("topicSysFlag") or members.get("topicSynFlag") or 0),
    )
