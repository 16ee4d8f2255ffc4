"""One value of each JSON body with its two functions: shared by the tests of the dialect and of damage."""

from shmq.model.consumer_group import ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionGroupConfig
from shmq.model.data_version import DataVersion
from shmq.model.message_queue import MessageQueue
from shmq.model.route import BrokerData, QueueData, TopicRoute
from shmq.model.subscription import build_subscription
from shmq.model.topic_config import TopicConfig
from shmq.protocol.bodies import groups, heartbeat, offsets, registration, route, tables, topics
from shmq.protocol.codes import LanguageCode

QUEUE = MessageQueue("t", "b", 0)
QUEUE_NAME = b'{"brokerName":"b","queueId":0,"topic":"t"}'
VERSION = DataVersion(0, 3, 1700000000000)

HEARTBEAT = heartbeat.HeartbeatData(
    "10.0.0.9@4711#1",
    ["CLIENT_INNER_PRODUCER"],
    [
        heartbeat.ConsumerData(
            "g1",
            ConsumeType.CONSUME_PASSIVELY,
            MessageModel.CLUSTERING,
            ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET,
            [build_subscription("orders", "TagA", 1700000000000), build_subscription("%RETRY%g1", "*", 1)],
        )
    ],
)
ROUTE = TopicRoute(
    [QueueData("broker-a", 4, 4, 6)],
    [BrokerData("C1", "broker-a", {0: "10.0.0.1:10911", 1: "10.0.0.2:10911"})],
)
CLUSTER = route.ClusterInfo({"broker-a": ROUTE.broker_datas[0]}, {"C1": ["broker-a"]})
TOPICS = topics.TopicTable({"orders": TopicConfig("orders", 4, 4)}, VERSION)
GROUPS = groups.GroupTable({"g1": SubscriptionGroupConfig("g1")}, {"g1": {"t": 1}}, VERSION)
CLIENT = groups.ClientConnection("c1", "10.0.0.9:4321", LanguageCode.JAVA, 479)
CONNECTIONS = groups.ConsumerConnections([CLIENT], {"t": build_subscription("t", "A")})
STATS = offsets.ConsumeStats({QUEUE: offsets.ConsumeOffset(5, 3, 4, 1700000000000)})
TOPIC_STATS = topics.TopicStats({QUEUE: topics.TopicOffset(0, 5)})
LOCKS = offsets.QueueLockRequest("g", "c", [QUEUE])
CHECK = heartbeat.ClientConfigCheck("c", "g", build_subscription("t", "A"))
REGISTRATION = registration.RegisterBrokerBody(TOPICS)

ROUND_TRIPS = {
    "heartbeat": (heartbeat.encode_heartbeat, heartbeat.decode_heartbeat, HEARTBEAT),
    "client config": (heartbeat.encode_client_config_check, heartbeat.decode_client_config_check, CHECK),
    "route": (route.encode_route, route.decode_route, ROUTE),
    "old route": (lambda r: route.encode_route(r, standard_json=False), route.decode_route, ROUTE),
    "cluster": (route.encode_cluster_info, route.decode_cluster_info, CLUSTER),
    "topic list": (topics.encode_topic_list, topics.decode_topic_list, ["orders", "%RETRY%g1"]),
    "topic table": (topics.encode_topic_table, topics.decode_topic_table, TOPICS),
    "topic config": (topics.encode_topic_config, topics.decode_topic_config, TOPICS.topics["orders"]),
    "topic configs": (
        topics.encode_topic_config_list,
        topics.decode_topic_config_list,
        [TOPICS.topics["orders"]],
    ),
    "topic stats": (topics.encode_topic_stats, topics.decode_topic_stats, TOPIC_STATS),
    "registration": (registration.encode_register_broker, registration.decode_register_broker, REGISTRATION),
    "consumers": (groups.encode_consumer_list, groups.decode_consumer_list, ["c1", "c2"]),
    "group": (groups.encode_group_config, groups.decode_group_config, GROUPS.groups["g1"]),
    "group table": (groups.encode_group_table, groups.decode_group_table, GROUPS),
    "group list": (groups.encode_group_list, groups.decode_group_list, ["g1"]),
    "connections": (groups.encode_consumer_connections, groups.decode_consumer_connections, CONNECTIONS),
    "producers": (groups.encode_producer_connections, groups.decode_producer_connections, [CLIENT]),
    "locks": (offsets.encode_queue_locks, offsets.decode_queue_locks, LOCKS),
    "locked": (offsets.encode_locked_queues, offsets.decode_locked_queues, [QUEUE]),
    "consume stats": (offsets.encode_consume_stats, offsets.decode_consume_stats, STATS),
    "reset": (offsets.encode_reset_offsets, offsets.decode_reset_offsets, {QUEUE: 42}),
    "status": (offsets.encode_consumer_status, offsets.decode_consumer_status, {QUEUE: 42}),
    "kv": (tables.encode_kv_table, tables.decode_kv_table, {"orders": "broker-a:4"}),
    "settings": (
        tables.encode_properties_text,
        tables.decode_properties_text,
        {"brokerName": "a=b", "x": ""},
    ),
}
