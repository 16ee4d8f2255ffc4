"""What brokers ask of a name server: register, leave, beat, and who else is in the group.

Requests 103, 104, 217, 322, 901, 904 (Apache RocketMQ 5.3, DefaultRequestProcessor.java). Loop thread.
"""

from __future__ import annotations

from functools import lru_cache

from shmq.base.checksum import body_crc
from shmq.base.clock import monotonic_ms
from shmq.base.errors import ClientFault
from shmq.model.topic_config import DataVersion
from shmq.naming.kv_config import ORDER_TOPIC_CONFIG
from shmq.naming.registrations import EXPIRY_MS, Registration
from shmq.naming.state import NamingState
from shmq.net.connection import Connection
from shmq.protocol.bodies.dialect import dumps, loads
from shmq.protocol.bodies.registration import (
    RegisterBrokerBody,
    decode_compressed_register_broker,
    decode_register_broker,
)
from shmq.protocol.bodies.route import decode_route, encode_broker_member_group
from shmq.protocol.bodies.tables import encode_kv_table
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.admin import TopicHeader
from shmq.protocol.headers.naming import (
    BrokerHeartbeatHeader,
    BrokerIdentityHeader,
    BrokerMemberGroupHeader,
    QueryDataVersionResponseHeader,
    RegisterBrokerHeader,
    RegisterBrokerResponseHeader,
)


def register_broker(
    state: NamingState, conn: Connection, command: Command, header: RegisterBrokerHeader
) -> Command:
    """103: take over a broker's registration; answered with its master, for a slave, and
    ORDER_TOPIC_CONFIG."""
    body = command.body_bytes()
    if header.body_crc32 and header.body_crc32 != body_crc(body):
        raise ClientFault(f"bodyCrc32={header.body_crc32}: the body's is {body_crc(body)}; send it again")
    content = _decoded(body, bool(header.compressed))
    accepted = state.registrations.register(
        Registration(
            cluster=header.cluster_name,
            broker_name=header.broker_name,
            broker_id=header.broker_id,
            address=header.broker_addr,
            ha_address=header.ha_server_addr,
            topics=content.topic_table.topics,
            data_version=content.topic_table.data_version,
            expiry_ms=header.heartbeat_timeout_millis or EXPIRY_MS,
            enable_acting_master=bool(header.enable_acting_master),
            zone_name=command.ext_value("__ZONE_NAME"),
            unix_socket=header.unix_socket,
            filter_servers=tuple(content.filter_servers),
        ),
        conn.id,
        monotonic_ms(),
    )
    orders = state.kv.table(ORDER_TOPIC_CONFIG) if state.settings.return_order_topic_config_to_broker else {}
    return command.response(
        ResponseCode.SUCCESS,
        header=RegisterBrokerResponseHeader(accepted.ha_server_addr, accepted.master_addr),
        body=encode_kv_table(orders) if orders else None,
    )


@lru_cache(maxsize=4)
def _decoded(body: bytes, compressed: bool) -> RegisterBrokerBody:
    """Read a registration's body. Brokers say the same every 30 s; 1,000 topics take 10 ms to read."""
    return (decode_compressed_register_broker if compressed else decode_register_broker)(body)


def unregister_broker(
    state: NamingState, _conn: Connection, command: Command, header: BrokerIdentityHeader
) -> Command:
    """104: a broker takes its leave."""
    state.registrations.unregister(
        header.cluster_name, header.broker_name, header.broker_addr, header.broker_id
    )
    return command.response(ResponseCode.SUCCESS)


def query_data_version(
    state: NamingState, _conn: Connection, command: Command, header: BrokerIdentityHeader
) -> Command:
    """322: is the topic table I hold another one than the broker's? Also a sign of life."""
    asked = DataVersion.from_json(loads(command.body_bytes()) if command.body else {})
    known = state.registrations.heard(header.cluster_name, header.broker_addr, monotonic_ms())
    return command.response(
        ResponseCode.SUCCESS,
        header=QueryDataVersionResponseHeader(changed=known is None or known.data_version != asked),
        body=None if known is None else dumps(known.data_version.to_json()),
    )


def broker_heartbeat(
    state: NamingState, _conn: Connection, command: Command, header: BrokerHeartbeatHeader
) -> Command:
    """904: a sign of life."""
    state.registrations.heard(header.cluster_name, header.broker_addr, monotonic_ms())
    return command.response(ResponseCode.SUCCESS)


def broker_member_group(
    state: NamingState, _conn: Connection, command: Command, header: BrokerMemberGroupHeader
) -> Command:
    """901: the addresses of one broker group; empty for an unknown one."""
    group = state.table.groups.get(header.broker_name)
    addresses = group.addresses if group is not None and group.cluster == header.cluster_name else {}
    body = encode_broker_member_group(header.cluster_name, header.broker_name, addresses)
    return command.response(ResponseCode.SUCCESS, body=body)


def register_topic(state: NamingState, _conn: Connection, command: Command, header: TopicHeader) -> Command:
    """217: take over the queues of a topic for brokers that are known; others are skipped."""
    route = decode_route(command.body_bytes())
    for queues in route.queue_datas:
        if queues.broker_name in state.table.groups:
            state.table.put_queues(header.topic, queues)
    return command.response(ResponseCode.SUCCESS)
