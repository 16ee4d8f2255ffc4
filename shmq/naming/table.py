"""The one map from request code to header class and handler of the name server.

A handler is `handle(state, connection, command, header) -> Command`; what it raises becomes the response
code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from shmq.naming import admin_handlers, broker_handlers, query_handlers
from shmq.naming.state import NamingState
from shmq.net.connection import Connection
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers import admin, naming

Handler = Callable[[NamingState, Connection, Command, Any], Command]


class Route(NamedTuple):
    """How one request is read and by whom it is answered; `header` None: it has no fields."""

    header: type | None
    handle: Handler


HANDLERS: dict[int, Route] = {
    RequestCode.PUT_KV_CONFIG: Route(naming.KVConfigHeader, admin_handlers.put_kv),
    RequestCode.GET_KV_CONFIG: Route(naming.KVKeyHeader, admin_handlers.get_kv),
    RequestCode.DELETE_KV_CONFIG: Route(naming.KVKeyHeader, admin_handlers.delete_kv),
    RequestCode.REGISTER_BROKER: Route(naming.RegisterBrokerHeader, broker_handlers.register_broker),
    RequestCode.UNREGISTER_BROKER: Route(naming.BrokerIdentityHeader, broker_handlers.unregister_broker),
    RequestCode.GET_ROUTEINFO_BY_TOPIC: Route(naming.GetRouteInfoHeader, query_handlers.topic_route),
    RequestCode.GET_BROKER_CLUSTER_INFO: Route(None, query_handlers.cluster_info),
    RequestCode.WIPE_WRITE_PERM_OF_BROKER: Route(
        naming.BrokerNameHeader, admin_handlers.wipe_write_permission
    ),
    RequestCode.ADD_WRITE_PERM_OF_BROKER: Route(naming.BrokerNameHeader, admin_handlers.add_write_permission),
    RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER: Route(None, query_handlers.all_topics),
    RequestCode.DELETE_TOPIC_IN_NAMESRV: Route(
        naming.DeleteTopicInNamesrvHeader, admin_handlers.delete_topic
    ),
    RequestCode.REGISTER_TOPIC_IN_NAMESRV: Route(admin.TopicHeader, broker_handlers.register_topic),
    RequestCode.GET_KVLIST_BY_NAMESPACE: Route(naming.KVNamespaceHeader, admin_handlers.kv_of_namespace),
    RequestCode.GET_TOPICS_BY_CLUSTER: Route(naming.ClusterHeader, query_handlers.topics_of_cluster),
    RequestCode.GET_SYSTEM_TOPIC_LIST_FROM_NS: Route(None, query_handlers.system_topics),
    RequestCode.GET_UNIT_TOPIC_LIST: Route(None, query_handlers.unit_topics),
    RequestCode.GET_HAS_UNIT_SUB_TOPIC_LIST: Route(None, query_handlers.unit_sub_topics),
    RequestCode.GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST: Route(None, query_handlers.unit_sub_ununit_topics),
    RequestCode.UPDATE_NAMESRV_CONFIG: Route(None, admin_handlers.update_settings),
    RequestCode.GET_NAMESRV_CONFIG: Route(None, admin_handlers.get_settings),
    RequestCode.QUERY_DATA_VERSION: Route(naming.BrokerIdentityHeader, broker_handlers.query_data_version),
    RequestCode.GET_BROKER_MEMBER_GROUP: Route(
        naming.BrokerMemberGroupHeader, broker_handlers.broker_member_group
    ),
    RequestCode.BROKER_HEARTBEAT: Route(naming.BrokerHeartbeatHeader, broker_handlers.broker_heartbeat),
}
