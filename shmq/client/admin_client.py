"""AdminClient: what operators' tools ask name servers and brokers, one blocking call per question.

    with AdminClient() as admin:
        admin.create_topic("127.0.0.1:10911", TopicConfig("orders", 8, 8))

Starts no thread and joins no group, so a command-line tool pays for nothing but its questions. Brokers are
named by their TCP address, as everywhere in RocketMQ's administration. Errors: BrokerError (also an instance
of the error the broker raised, such as TopicNotExist) and RemotingError. Any thread.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from shmq.client.addresses import Address, parse_address
from shmq.client.channel import Channel, ChannelPool, view_of
from shmq.client.config import ClientConfig
from shmq.client.errors import BROKER_NOT_EXIST, ClientError
from shmq.client.name_servers import NameServers
from shmq.model.host import host_text
from shmq.model.message_ext import MessageExt, decode_messages
from shmq.model.message_id import parse_offset_message_id
from shmq.model.message_queue import MessageQueue
from shmq.model.names import AUTO_CREATE_TOPIC, TOOLS_CONSUMER_GROUP
from shmq.model.route import TopicRoute
from shmq.model.topic_config import TopicConfig
from shmq.protocol.bodies.dialect import loads, queue_of
from shmq.protocol.bodies.groups import ConsumerConnections, decode_consumer_connections, decode_group_list
from shmq.protocol.bodies.offsets import ConsumeStats, decode_consume_stats
from shmq.protocol.bodies.route import ClusterInfo, decode_cluster_info
from shmq.protocol.bodies.tables import decode_kv_table
from shmq.protocol.bodies.topics import TopicStats, decode_topic_list, decode_topic_stats
from shmq.protocol.codes import RequestCode, ResponseCode, error_of
from shmq.protocol.command import Command
from shmq.protocol.headers.admin import CreateTopicHeader, GetConsumeStatsHeader, TopicHeader
from shmq.protocol.headers.client import ConsumerGroupHeader, GetConsumerRunningInfoHeader
from shmq.protocol.headers.naming import (
    ClusterHeader,
    DeleteTopicInNamesrvHeader,
    KVConfigHeader,
    KVKeyHeader,
    KVValueResponseHeader,
)
from shmq.protocol.headers.pull import PullMessageHeader
from shmq.protocol.headers.query import UNIQUE_KEY_QUERY, QueryMessageHeader, ViewMessageHeader

DEFAULT_TIMEOUT_S = 5.0
FAR_FUTURE_MS = (1 << 63) - 1
UNIQUE_KEY_COPIES_MAX = 32
_FLAG_SUBSCRIPTION = 4


class AdminClient:
    """One tool's way to a cluster."""

    def __init__(
        self, namesrv_addr: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S, **settings: Any
    ) -> None:
        """`timeout_s` limits each request; `settings` are fields of ClientConfig."""
        self.config = ClientConfig(namesrv_addr=namesrv_addr, **settings)
        self._timeout_s = timeout_s
        self._name_servers = NameServers(self.config)
        self._pools: dict[Address, ChannelPool] = {}

    def __enter__(self) -> Self:
        """Use it in a `with` block; connections are made when needed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close all connections; again is harmless."""
        self._name_servers.close()
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    # Name servers

    def cluster_info(self) -> ClusterInfo:
        """Return the brokers of all clusters."""
        return decode_cluster_info(view_of(self._ask(RequestCode.GET_BROKER_CLUSTER_INFO)))

    def topic_list(self) -> list[str]:
        """Return every topic a name server knows, system and retry topics included."""
        return decode_topic_list(view_of(self._ask(RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER)))

    def topics_of_cluster(self, cluster: str) -> list[str]:
        """Return the topics of one cluster."""
        return decode_topic_list(
            view_of(self._ask(RequestCode.GET_TOPICS_BY_CLUSTER, ClusterHeader(cluster)))
        )

    def topic_route(self, topic: str) -> TopicRoute:
        """Return a topic's route; TopicNotExist when no name server knows it."""
        route = self._name_servers.topic_route(topic)
        if route is None:
            raise error_of(ResponseCode.TOPIC_NOT_EXIST, f"no name server knows a route of topic {topic!r}")
        return route

    def delete_topic_in_namesrv(self, topic: str, cluster: str | None = None) -> None:
        """Make every name server forget a topic."""
        command = Command.request(
            RequestCode.DELETE_TOPIC_IN_NAMESRV, DeleteTopicInNamesrvHeader(topic, cluster)
        )
        for response in self._name_servers.call_each(command, self._timeout_s).values():
            _checked(response)

    def put_kv_config(self, namespace: str, key: str, value: str) -> None:
        """Store a value at every name server."""
        command = Command.request(RequestCode.PUT_KV_CONFIG, KVConfigHeader(namespace, key, value))
        for response in self._name_servers.call_each(command, self._timeout_s).values():
            _checked(response)

    def get_kv_config(self, namespace: str, key: str) -> str | None:
        """Return a value the name servers keep, None when there is none."""
        command = Command.request(RequestCode.GET_KV_CONFIG, KVKeyHeader(namespace, key))
        response = self._name_servers.call(command, self._timeout_s)
        if response.code == ResponseCode.QUERY_NOT_FOUND:
            return None
        return _checked(response).read_header(KVValueResponseHeader).value

    def _ask(self, code: RequestCode, header: object | None = None) -> Command:
        return _checked(self._name_servers.call(Command.request(code, header), self._timeout_s))

    # Topics

    def create_topic(self, broker_addr: str, config: TopicConfig) -> None:
        """Create a topic on one broker, or replace its settings."""
        header = CreateTopicHeader(
            config.topic_name,
            AUTO_CREATE_TOPIC,
            config.read_queue_nums,
            config.write_queue_nums,
            config.perm,
            config.topic_filter_type,
            config.topic_sys_flag,
            config.order,
            ",".join(f"{name}={value}" if value else name for name, value in config.attributes.items()),
        )
        self.request(broker_addr, RequestCode.UPDATE_AND_CREATE_TOPIC, header)

    def ensure_topic(self, topic: str, queues: int = 8) -> TopicRoute:
        """Return the topic's route, making the topic on every master when no name server knows it."""
        route = self._name_servers.topic_route(topic)
        if route is None:
            for group in self.cluster_info().broker_addr_table.values():
                if group.master_addr:
                    self.create_topic(group.master_addr, TopicConfig(topic, queues, queues))
            route = self.topic_route(topic)
        return route

    def delete_topic_in_broker(self, broker_addr: str, topic: str) -> None:
        """Make one broker drop a topic with its messages."""
        self.request(broker_addr, RequestCode.DELETE_TOPIC_IN_BROKER, TopicHeader(topic))

    def topic_stats(self, topic: str) -> TopicStats:
        """Return the offsets of all queues of a topic, and its put rate, over all its brokers."""
        merged = TopicStats()
        for addr in self._brokers_of(topic):
            answer = self.request(addr, RequestCode.GET_TOPIC_STATS_INFO, TopicHeader(topic))
            found = decode_topic_stats(view_of(answer))
            merged.offset_table |= found.offset_table
            merged.topic_put_tps += found.topic_put_tps
        return merged

    # Groups

    def groups_of_topic(self, topic: str) -> list[str]:
        """Return the consumer groups of a topic."""
        groups: set[str] = set()
        for addr in self._brokers_of(topic):
            answer = self.request(addr, RequestCode.QUERY_TOPIC_CONSUME_BY_WHO, TopicHeader(topic))
            groups.update(decode_group_list(view_of(answer)))
        return sorted(groups)

    def consume_stats(self, group: str, topic: str | None = None) -> ConsumeStats:
        """Return how far a group is on all queues it consumes (of one topic, when given)."""
        merged = ConsumeStats()
        for addr in self._masters():
            answer = self.request(addr, RequestCode.GET_CONSUME_STATS, GetConsumeStatsHeader(group, topic))
            found = decode_consume_stats(view_of(answer))
            merged.offset_table |= found.offset_table
            merged.consume_tps += found.consume_tps
        return merged

    def consumer_connections(self, group: str) -> ConsumerConnections:
        """Return a group's online members; ConsumerNotOnline when there are none on any broker."""
        failed: Exception | None = None
        for addr in self._masters():
            header = ConsumerGroupHeader(group)
            response = self.call(addr, Command.request(RequestCode.GET_CONSUMER_CONNECTION_LIST, header))
            if response.code == ResponseCode.SUCCESS:
                return decode_consumer_connections(view_of(response))
            failed = error_of(response.code, response.remark)
        raise failed or error_of(ResponseCode.CONSUMER_NOT_ONLINE, "there is no broker")

    def client_queues(self, group: str, client_id: str) -> list[MessageQueue]:
        """Return the queues one online member has; the broker asks that client."""
        header = GetConsumerRunningInfoHeader(group, client_id)
        failed: Exception | None = None
        for addr in self._masters():
            response = self.call(addr, Command.request(RequestCode.GET_CONSUMER_RUNNING_INFO, header))
            if response.code == ResponseCode.SUCCESS:
                return [queue_of(key) for key in loads(view_of(response)).get("mqTable") or {}]
            failed = error_of(response.code, response.remark)
        raise failed or error_of(ResponseCode.CONSUMER_NOT_ONLINE, "there is no broker")

    # Messages

    def view_message(self, message_id: str) -> MessageExt:
        """Return the message of an offset id, from the broker whose address the id holds.

        InvalidParameter: no offset id; QueryNotFound: that broker has no such message.
        """
        host, physical_offset = parse_offset_message_id(message_id)
        header = ViewMessageHeader(physical_offset)
        answer = self.request(host_text(host), RequestCode.VIEW_MESSAGE_BY_ID, header)
        found = decode_messages(view_of(answer))
        if not found:
            raise error_of(ResponseCode.QUERY_NOT_FOUND, f"no message has the id {message_id}")
        return found[0]

    def query_message(
        self,
        topic: str,
        key: str,
        max_count: int = 64,
        begin_ms: int = 0,
        end_ms: int = FAR_FUTURE_MS,
    ) -> list[MessageExt]:
        """Return messages of a topic that carry `key` and were stored in that time, oldest first."""
        found = self._query(QueryMessageHeader(topic, key, max_count, begin_ms, end_ms), unique=False)
        return [message for message in found if key in message.key_list]

    def query_by_unique_key(self, topic: str, unique_key: str) -> list[MessageExt]:
        """Return the copies of the message with a producer's id; more than one when a send was repeated."""
        header = QueryMessageHeader(topic, unique_key, UNIQUE_KEY_COPIES_MAX, 0, FAR_FUTURE_MS)
        return [message for message in self._query(header, unique=True) if message.msg_id == unique_key]

    def _query(self, header: QueryMessageHeader, *, unique: bool) -> list[MessageExt]:
        found: list[MessageExt] = []
        for addr in self._brokers_of(header.topic):
            ext = {UNIQUE_KEY_QUERY: "true"} if unique else None
            response = self.call(addr, Command.request(RequestCode.QUERY_MESSAGE, header, ext=ext))
            if response.code != ResponseCode.QUERY_NOT_FOUND:
                found += decode_messages(view_of(_checked(response)))
        return sorted(found, key=lambda message: message.store_timestamp)

    def message_at(self, queue: MessageQueue, queue_offset: int) -> MessageExt | None:
        """Return the message at one place of a queue, None when there is none."""
        header = PullMessageHeader(
            consumer_group=TOOLS_CONSUMER_GROUP,
            topic=queue.topic,
            queue_id=queue.queue_id,
            queue_offset=queue_offset,
            max_msg_nums=1,
            sys_flag=_FLAG_SUBSCRIPTION,
            commit_offset=0,
            suspend_timeout_millis=0,
            sub_version=0,
            subscription="*",
        )
        group = self.topic_route(queue.topic).broker(queue.broker_name)
        if group is None or group.master_addr is None:
            raise ClientError(
                BROKER_NOT_EXIST, f"topic {queue.topic!r} has no queue on a broker {queue.broker_name!r}"
            )
        response = self.call(group.master_addr, Command.request(RequestCode.PULL_MESSAGE, header))
        if response.code != ResponseCode.SUCCESS:
            if response.code in (ResponseCode.PULL_NOT_FOUND, ResponseCode.PULL_OFFSET_MOVED):
                return None
            raise error_of(response.code, response.remark)
        found = decode_messages(view_of(response), queue.broker_name)
        return found[0] if found and found[0].queue_offset == queue_offset else None

    # Brokers

    def broker_runtime_info(self, broker_addr: str) -> dict[str, str]:
        """Return a broker's figures, all as texts."""
        return decode_kv_table(view_of(self.request(broker_addr, RequestCode.GET_BROKER_RUNTIME_INFO)))

    def request(self, broker_addr: str, code: RequestCode, header: object | None = None) -> Command:
        """Ask a broker; any answer but SUCCESS is raised as BrokerError."""
        return _checked(self.call(broker_addr, Command.request(code, header)))

    def call(self, broker_addr: str, command: Command) -> Command:
        """Ask a broker; returns the response whatever its code."""
        address = parse_address(broker_addr)
        pool = self._pools.get(address)
        if pool is None:
            config = self.config
            pool = self._pools[address] = ChannelPool(
                lambda: Channel(address, config.connect_timeout_ms / 1000, config.broker_user)
            )
        return pool.call(command, self._timeout_s)

    def _brokers_of(self, topic: str) -> list[str]:
        """Return an address of each broker group that has the topic: the master, else the first slave."""
        groups = sorted(self.topic_route(topic).broker_datas, key=lambda group: group.broker_name)
        return [group.broker_addrs[min(group.broker_addrs)] for group in groups if group.broker_addrs]

    def _masters(self) -> list[str]:
        """Return the masters of all clusters: where groups keep their offsets and members."""
        table = self.cluster_info().broker_addr_table
        return [group.master_addr for _, group in sorted(table.items()) if group.master_addr]


def _checked(response: Command) -> Command:
    """Return a response that says SUCCESS; raise any other."""
    if response.code != ResponseCode.SUCCESS:
        raise error_of(response.code, response.remark)
    return response
