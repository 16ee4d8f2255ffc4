"""What clients and tools ask a name server: routes, topics, clusters.

Requests 105, 106, 206, 224, 304, 311, 312, 313 (Apache RocketMQ 5.3, ClientRequestProcessor.java,
DefaultRequestProcessor.java). Loop thread.
"""

from __future__ import annotations

from shmq.base.clock import monotonic_ms
from shmq.base.errors import ClientFault, TopicNotExist, Unavailable
from shmq.model.route import BrokerData, TopicRoute
from shmq.naming.state import NamingState
from shmq.net.connection import Connection
from shmq.protocol.bodies.route import ClusterInfo, encode_cluster_info, encode_route, wants_standard_json
from shmq.protocol.bodies.topics import encode_topic_list
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.naming import ClusterHeader, GetRouteInfoHeader


def topic_route(
    state: NamingState, _conn: Connection, command: Command, header: GetRouteInfoHeader
) -> Command:
    """105: the route of a topic. Encoded answers are kept until anything changes.

    Map keys are quoted for clients from 4.9.4 on and for those that ask; older ones get them bare, as they
    expect.
    """
    _refuse_while_warming_up(state)
    quoted = wants_standard_json(command.version, header.accept_standard_json_only)
    if command.ext_value("__ZONE_MODE") == "true" and command.ext_value("__ZONE_NAME"):
        route = _of_zone(_route(state, header.topic), command.ext_value("__ZONE_NAME") or "")
        return command.response(ResponseCode.SUCCESS, body=encode_route(route, standard_json=quoted))
    answers = state.kept_answers()
    body = answers.get((header.topic, quoted))
    if body is None:
        body = answers[header.topic, quoted] = encode_route(_route(state, header.topic), standard_json=quoted)
    return command.response(ResponseCode.SUCCESS, body=body)


def _refuse_while_warming_up(state: NamingState) -> None:
    settings = state.settings
    warm_ms = state.started_ms + settings.wait_seconds_for_service * 1000
    if settings.need_wait_for_service and monotonic_ms() < warm_ms:
        raise Unavailable("name server not ready: brokers are still registering; try again in a moment")


def _route(state: NamingState, topic: str) -> TopicRoute:
    route = state.table.route(topic)
    if route is None:
        raise TopicNotExist(
            f"No topic route info in name server for the topic: {topic}. Create it with updateTopic, or "
            "check its name"
        )
    route.order_topic_conf = state.order_config(topic)
    route.filter_server_table = state.registrations.filter_servers(
        [group.broker_name for group in route.broker_datas]
    )
    return route


def _of_zone(route: TopicRoute, zone: str) -> TopicRoute:
    """Leave out broker groups of other zones that have a master; groups with slaves alone stay."""

    def stays(group: BrokerData) -> bool:
        return group.master_addr is None or (group.zone_name or "").lower() == zone.lower()

    groups = [group for group in route.broker_datas if stays(group)]
    names = {group.broker_name for group in groups}
    return TopicRoute(
        queue_datas=[queues for queues in route.queue_datas if queues.broker_name in names],
        broker_datas=groups,
        order_topic_conf=route.order_topic_conf,
        filter_server_table=route.filter_server_table,
    )


def cluster_info(state: NamingState, _conn: Connection, command: Command, _header: None) -> Command:
    """106: every broker group and the clusters they belong to."""
    groups = {name: group.as_broker_data() for name, group in sorted(state.table.groups.items())}
    clusters = {cluster: sorted(names) for cluster, names in sorted(state.table.clusters.items())}
    return command.response(ResponseCode.SUCCESS, body=encode_cluster_info(ClusterInfo(groups, clusters)))


def all_topics(state: NamingState, _conn: Connection, command: Command, _header: None) -> Command:
    """206: every topic name."""
    if not state.settings.enable_all_topic_list:
        raise ClientFault("enableAllTopicList is false at this name server")
    return _topics(command, state.table.all_topics())


def topics_of_cluster(
    state: NamingState, _conn: Connection, command: Command, header: ClusterHeader
) -> Command:
    """224: the topics that brokers of a cluster serve."""
    if not state.settings.enable_topic_list:
        raise ClientFault("enableTopicList is false at this name server")
    return _topics(command, state.table.topics_of_cluster(header.cluster))


def system_topics(state: NamingState, _conn: Connection, command: Command, _header: None) -> Command:
    """304: cluster and broker names, which are topics too, and the address of one broker to ask for more."""
    names = [*sorted(state.table.clusters), *sorted(state.table.groups)]
    return _topics(command, names, state.table.any_address())


def unit_topics(state: NamingState, _conn: Connection, command: Command, _header: None) -> Command:
    """311: topics with the unit flag."""
    return _topics(command, state.table.unit_topics(True, None))


def unit_sub_topics(state: NamingState, _conn: Connection, command: Command, _header: None) -> Command:
    """312: topics with the unit-subscription flag."""
    return _topics(command, state.table.unit_topics(None, True))


def unit_sub_ununit_topics(state: NamingState, _conn: Connection, command: Command, _header: None) -> Command:
    """313: topics with the unit-subscription flag and without the unit flag."""
    return _topics(command, state.table.unit_topics(False, True))


def _topics(command: Command, topics: list[str], address: str | None = None) -> Command:
    return command.response(ResponseCode.SUCCESS, body=encode_topic_list(topics, address))
