"""Headers of the name server: registrations 103, 104, 322, 904; routes 105; permissions, topics, KV
settings."""

from shmq.protocol.header_class import header
from shmq.protocol.header_table import I32, I64


@header
class RegisterBrokerHeader:
    """103: a broker and its topics (body). ``unix_socket`` is shmq's: the path of its Unix front."""

    broker_name: str
    broker_addr: str
    cluster_name: str
    ha_server_addr: str
    broker_id: I64
    heartbeat_timeout_millis: I64 | None = None
    enable_acting_master: bool | None = None
    compressed: bool = False
    body_crc32: I32 = 0
    unix_socket: str | None = None


@header
class RegisterBrokerResponseHeader:
    """Answer to 103: for a slave, where its master is."""

    ha_server_addr: str | None = None
    master_addr: str | None = None


@header
class BrokerIdentityHeader:
    """104 UNREGISTER_BROKER, 322 QUERY_DATA_VERSION."""

    broker_name: str
    broker_addr: str
    cluster_name: str
    broker_id: I64


@header
class QueryDataVersionResponseHeader:
    """Answer to 322."""

    changed: bool


@header
class BrokerHeartbeatHeader:
    """904: a broker is alive."""

    cluster_name: str
    broker_addr: str
    broker_name: str


@header
class GetRouteInfoHeader:
    """105: the route of a topic."""

    topic: str
    accept_standard_json_only: bool = False


@header
class BrokerNameHeader:
    """205 WIPE_WRITE_PERM_OF_BROKER, 327 ADD_WRITE_PERM_OF_BROKER."""

    broker_name: str


@header
class WipeWritePermResponseHeader:
    """Answer to 205."""

    wipe_topic_count: I32


@header
class AddWritePermResponseHeader:
    """Answer to 327."""

    add_topic_count: I32


@header
class DeleteTopicInNamesrvHeader:
    """216: forget a topic, of one cluster only when it is named."""

    topic: str
    cluster_name: str | None = None


@header
class ClusterHeader:
    """224 GET_TOPICS_BY_CLUSTER."""

    cluster: str


@header
class BrokerMemberGroupHeader:
    """901 GET_BROKER_MEMBER_GROUP."""

    cluster_name: str
    broker_name: str


@header
class KVConfigHeader:
    """100 PUT_KV_CONFIG."""

    namespace: str
    key: str
    value: str


@header
class KVKeyHeader:
    """101 GET_KV_CONFIG, 102 DELETE_KV_CONFIG."""

    namespace: str
    key: str


@header
class KVValueResponseHeader:
    """Answer to 101."""

    value: str | None = None


@header
class KVNamespaceHeader:
    """219 GET_KVLIST_BY_NAMESPACE."""

    namespace: str
