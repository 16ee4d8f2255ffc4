"""AdminClient: what operators ask and change, as typed methods; the command line and the console call these.

Requests to a broker take its TCP address as routes name it (`host:port`); a method about a topic or a group
asks every broker that serves it and merges the answers. Reading one message, by id or by key, always goes to
brokers' masters. Blocking, any thread; nothing stays connected after `close`. Errors are the broker's
(BrokerError, which is also TopicNotExist, ConsumerNotOnline ... by its code) or the connection's
(RemotingError).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from shmq.base.errors import BrokerError, InvalidParameter, QueryNotFound, TopicNotExist
from shmq.client.admin_dead_letters import AdminDeadLetters
from shmq.client.admin_groups import AdminGroups
from shmq.client.admin_links import AdminLinks
from shmq.client.admin_timers import AdminTimers
from shmq.client.broker_calls import LAST_MS
from shmq.client.channel import view_of
from shmq.client.config import ClientConfig
from shmq.client.pull import PullRequest, PullStatus
from shmq.client.running_info import RunningInfo, decode_running_info
from shmq.model.host import host_text
from shmq.model.message_ext import MessageExt, decode_messages
from shmq.model.message_id import parse_offset_message_id
from shmq.model.message_queue import MessageQueue
from shmq.model.names import AUTO_CREATE_TOPIC, TOOLS_CONSUMER_GROUP, retry_topic
from shmq.model.properties import UNIQ_KEY
from shmq.model.route import TopicRoute
from shmq.model.subscription import build_subscription
from shmq.model.topic_config import TopicConfig
from shmq.protocol.bodies.direct_result import DirectResult, decode_direct_result
from shmq.protocol.bodies.groups import (
    ConsumerConnections,
    decode_consumer_connections,
    decode_group_list,
)
from shmq.protocol.bodies.offsets import ConsumeStats, decode_consume_stats
from shmq.protocol.bodies.route import ClusterInfo, decode_cluster_info
from shmq.protocol.bodies.tables import decode_kv_table, decode_properties_text, encode_properties_text
from shmq.protocol.bodies.topics import TopicStats, decode_topic_config, decode_topic_list, decode_topic_stats
from shmq.protocol.codes import RequestCode, ResponseCode, error_of
from shmq.protocol.command import Command
from shmq.protocol.headers.admin import (
    CreateTopicHeader,
    FilterHeader,
    GetConsumeStatsHeader,
    GetTopicConfigHeader,
    TopicHeader,
)
from shmq.protocol.headers.client import (
    ConsumeMessageDirectlyHeader,
    ConsumerGroupHeader,
    GetConsumerRunningInfoHeader,
)
from shmq.protocol.headers.naming import (
    ClusterHeader,
    DeleteTopicInNamesrvHeader,
    KVConfigHeader,
    KVKeyHeader,
    KVValueResponseHeader,
)
from shmq.protocol.headers.query import (
    UNIQUE_KEY_QUERY,
    QueryMessageHeader,
    ResumeCheckHalfMessageHeader,
    ViewMessageHeader,
)

UNIQUE_KEY_MAX = 32
SCAN_COUNT = 32

CONSUME_DIRECTLY_S = 15.0
"""A broker gives a consumer 10 s for a message it is to take directly."""

R = TypeVar("R")


class AdminClient(AdminGroups, AdminDeadLetters, AdminTimers):
    """One operator's view of a cluster."""

    def __init__(
        self,
        namesrv_addr: str | None = None,
        *,
        timeout_s: float = 5.0,
        config: ClientConfig | None = None,
    ) -> None:
        """Connect when first asked; `namesrv_addr` None searches this host (`addresses`)."""
        config = config if config is not None else ClientConfig()
        if namesrv_addr is not None:
            config.namesrv_addr = namesrv_addr
        self._links = AdminLinks(config, timeout_s)
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._links.close()

    # Cluster and brokers

    def cluster_info(self) -> ClusterInfo:
        """Return all brokers and clusters that a name server knows (106)."""
        return decode_cluster_info(
            view_of(self._links.ask_namesrv(Command.request(RequestCode.GET_BROKER_CLUSTER_INFO)))
        )

    def broker_runtime_info(self, broker_addr: str) -> dict[str, str]:
        """Return a broker's figures by name (28)."""
        return decode_kv_table(self._ask(broker_addr, RequestCode.GET_BROKER_RUNTIME_INFO))

    def broker_config(self, broker_addr: str) -> dict[str, str]:
        """Return a broker's settings (26)."""
        return decode_properties_text(self._ask(broker_addr, RequestCode.GET_BROKER_CONFIG))

    def update_broker_config(self, broker_addr: str, settings: dict[str, str]) -> None:
        """Change settings of a running broker (25); only keys it allows."""
        self._ask(broker_addr, RequestCode.UPDATE_BROKER_CONFIG, None, encode_properties_text(settings))

    # Topics

    def topic_list(self) -> list[str]:
        """Return every topic a name server knows (206)."""
        command = Command.request(RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER)
        return decode_topic_list(view_of(self._links.ask_namesrv(command)))

    def topics_of_cluster(self, cluster: str) -> list[str]:
        """Return the topics of one cluster (224)."""
        command = Command.request(RequestCode.GET_TOPICS_BY_CLUSTER, ClusterHeader(cluster))
        return decode_topic_list(view_of(self._links.ask_namesrv(command)))

    def topic_route(self, topic: str) -> TopicRoute:
        """Return which brokers and queues serve a topic (105); TopicNotExist when none does."""
        return self._links.route(topic)

    def topic_config(self, broker_addr: str, topic: str) -> TopicConfig:
        """Return a topic's settings on one broker (351)."""
        header = GetTopicConfigHeader(topic, True)
        return decode_topic_config(self._ask(broker_addr, RequestCode.GET_TOPIC_CONFIG, header))

    def topic_stats(self, topic: str) -> TopicStats:
        """Return the offsets of every queue of a topic (202), of all its brokers."""
        merged = TopicStats()
        for found in self._each_master(
            topic,
            lambda addr: decode_topic_stats(
                self._ask(addr, RequestCode.GET_TOPIC_STATS_INFO, TopicHeader(topic))
            ),
        ):
            merged.offset_table |= found.offset_table
            merged.topic_put_tps += found.topic_put_tps
        return merged

    def create_topic(self, broker_addr: str, config: TopicConfig) -> None:
        """Create a topic on one broker, or replace its settings (17). Attribute names keep their `+` or
        `-`."""
        attributes = ",".join(
            name if name.startswith("-") else f"{name}={value}" for name, value in config.attributes.items()
        )
        header = CreateTopicHeader(
            config.topic_name,
            AUTO_CREATE_TOPIC,
            config.read_queue_nums,
            config.write_queue_nums,
            config.perm,
            config.topic_filter_type,
            config.topic_sys_flag,
            config.order,
            attributes,
            False,
        )
        self._ask(broker_addr, RequestCode.UPDATE_AND_CREATE_TOPIC, header)

    def ensure_topic(self, topic: str, queues: int) -> None:
        """Create a topic with so many queues on every master, unless a name server knows it already."""
        try:
            self.topic_route(topic)
        except TopicNotExist:
            for data in self.cluster_info().broker_addr_table.values():
                if data.master_addr:
                    self.create_topic(data.master_addr, TopicConfig(topic, queues, queues))

    def delete_topic_in_broker(self, broker_addr: str, topic: str) -> None:
        """Delete a topic and its messages from one broker (215)."""
        self._ask(broker_addr, RequestCode.DELETE_TOPIC_IN_BROKER, TopicHeader(topic))

    def clean_expired_consume_queue(self, broker_addr: str) -> None:
        """Have a broker remove ConsumeQueue files in front of its log (306)."""
        self._ask(broker_addr, RequestCode.CLEAN_EXPIRED_CONSUMEQUEUE)

    def clean_unused_topic(self, broker_addr: str) -> None:
        """Have a broker end the queues of topics that it does not know (316)."""
        self._ask(broker_addr, RequestCode.CLEAN_UNUSED_TOPIC)

    def delete_expired_commit_log(self, broker_addr: str) -> None:
        """Have a broker delete expired segments now (329)."""
        self._ask(broker_addr, RequestCode.DELETE_EXPIRED_COMMITLOG)

    def delete_topic_in_namesrv(self, topic: str, cluster: str | None = None) -> None:
        """Have every name server forget a topic, of one cluster only when it is named (216)."""
        header = DeleteTopicInNamesrvHeader(topic, cluster)
        self._links.tell_namesrvs(Command.request(RequestCode.DELETE_TOPIC_IN_NAMESRV, header))

    def get_kv_config(self, namespace: str, key: str) -> str | None:
        """Return a value of a name server's KV table (101), None when there is none."""
        header = KVKeyHeader(namespace, key)
        try:
            answer = self._links.ask_namesrv(Command.request(RequestCode.GET_KV_CONFIG, header))
        except QueryNotFound:
            return None
        return answer.read_header(KVValueResponseHeader).value

    def put_kv_config(self, namespace: str, key: str, value: str) -> None:
        """Set a value in every name server's KV table (100)."""
        header = KVConfigHeader(namespace, key, value)
        self._links.tell_namesrvs(Command.request(RequestCode.PUT_KV_CONFIG, header))

    # Groups

    def groups_of_topic(self, topic: str) -> list[str]:
        """Return the consumer groups that read a topic or have (300), of all its brokers."""
        header = TopicHeader(topic)
        found = self._each_master(
            topic,
            lambda addr: decode_group_list(self._ask(addr, RequestCode.QUERY_TOPIC_CONSUME_BY_WHO, header)),
        )
        return sorted({group for groups in found for group in groups})

    def consume_stats(self, group: str, topic: str | None = None) -> ConsumeStats:
        """Return how far a group is in each queue (208), of all brokers that know its retry topic or
        `topic`."""
        header = GetConsumeStatsHeader(group, topic)
        merged = ConsumeStats()
        for data in self._brokers_of_group(group, topic):
            found = decode_consume_stats(self._ask(data, RequestCode.GET_CONSUME_STATS, header))
            merged.offset_table |= found.offset_table
            merged.consume_tps += found.consume_tps
        return merged

    def consumer_connections(self, group: str) -> ConsumerConnections:
        """Return a group's members as one of its brokers sees them (203); ConsumerNotOnline when nobody
        is."""
        last: BrokerError | None = None
        for addr in self._brokers_of_group(group, None):
            try:
                return decode_consumer_connections(
                    self._ask(addr, RequestCode.GET_CONSUMER_CONNECTION_LIST, ConsumerGroupHeader(group))
                )
            except BrokerError as error:
                last = error
        raise last or error_of(ResponseCode.CONSUMER_NOT_ONLINE, f"no broker knows a group {group}")

    def client_queues(self, group: str, client_id: str) -> list[MessageQueue]:
        """Return the queues one member owns, by its own word (307, relayed by a broker)."""
        return self.client_info(group, client_id).queues

    def client_properties(self, group: str, client_id: str) -> dict[str, str]:
        """Return a member's properties, such as PROP_CONSUME_TYPE, by its own word (307, relayed)."""
        return self.client_info(group, client_id).properties

    def client_info(self, group: str, client_id: str) -> RunningInfo:
        """Return all that one member says of itself (307, relayed by a broker)."""
        header = GetConsumerRunningInfoHeader(group, client_id, False)
        last: BrokerError | None = None
        for addr in self._brokers_of_group(group, None):
            try:
                return decode_running_info(self._ask(addr, RequestCode.GET_CONSUMER_RUNNING_INFO, header))
            except BrokerError as error:
                last = error
        raise last or error_of(ResponseCode.CONSUMER_NOT_ONLINE, f"no broker knows a group {group}")

    def consume_directly(self, group: str, client_id: str, message: MessageExt) -> DirectResult:
        """Have one member take a message now (309, relayed by the broker that stores it).

        No offset moves. BrokerError CONSUME_MSG_TIMEOUT when its listener takes longer than the broker waits.
        """
        header = ConsumeMessageDirectlyHeader(
            group, client_id, message.offset_msg_id, message.broker_name or None, message.topic
        )
        command = Command.request(RequestCode.CONSUME_MESSAGE_DIRECTLY, header)
        wait_s = max(self._timeout_s, CONSUME_DIRECTLY_S)
        return decode_direct_result(view_of(self._links.ask_broker(message.store_host, command, wait_s)))

    def _brokers_of_group(self, group: str, topic: str | None) -> list[str]:
        """Return the masters to ask about a group: those of its retry topic, of `topic`, else all."""
        for name in (retry_topic(group), topic):
            if name:
                try:
                    return [data.master_addr for data in self._links.masters(name) if data.master_addr]
                except TopicNotExist:
                    continue
        brokers = self.cluster_info().broker_addr_table
        return [data.master_addr for _, data in sorted(brokers.items()) if data.master_addr]

    # Messages

    def view_message(self, offset_msg_id: str) -> MessageExt:
        """Return the message with an offset id (33), from the broker whose address the id holds."""
        host, physical_offset = parse_offset_message_id(offset_msg_id)
        body = self._ask(host_text(host), RequestCode.VIEW_MESSAGE_BY_ID, ViewMessageHeader(physical_offset))
        return decode_messages(body)[0]

    def install_filter(self, broker_addr: str, name: str, source: bytes) -> None:
        """Install the code of a filter function at one broker (30020), in place of an older one."""
        self._ask(broker_addr, RequestCode.INSTALL_FILTER, FilterHeader(name), source)

    def remove_filter(self, broker_addr: str, name: str) -> None:
        """Forget a filter function at one broker (30021)."""
        self._ask(broker_addr, RequestCode.REMOVE_FILTER, FilterHeader(name))

    def filters(self, broker_addr: str) -> list[dict[str, Any]]:
        """Return one broker's filter functions (30022): name, size in bytes, installedMs."""
        found: list[dict[str, Any]] = json.loads(bytes(self._ask(broker_addr, RequestCode.LIST_FILTERS)))
        return found

    def resume_check_half_message(self, offset_msg_id: str) -> None:
        """Have a transaction that was given up checked again (323); its message is in
        TRANS_CHECK_MAX_TIME_TOPIC."""
        host, _ = parse_offset_message_id(offset_msg_id)
        header = ResumeCheckHalfMessageHeader(offset_msg_id)
        self._ask(host_text(host), RequestCode.RESUME_CHECK_HALF_MESSAGE, header)

    def query_message(
        self, topic: str, key: str, max_count: int = 64, begin_ms: int = 0, end_ms: int = LAST_MS
    ) -> list[MessageExt]:
        """Return messages that carry a key among their KEYS (12), oldest first, of all the topic's
        brokers."""
        found = self._query(topic, key, max_count, begin_ms, end_ms, unique=False)
        return [message for message in found if key in message.key_list][:max_count]

    def query_by_unique_key(self, topic: str, unique_key: str) -> list[MessageExt]:
        """Return the messages with a producer's unique id (12); more than one after a resend."""
        found = self._query(topic, unique_key, UNIQUE_KEY_MAX, 0, LAST_MS, unique=True)
        return [message for message in found if message.properties.get(UNIQ_KEY) == unique_key]

    def _query(
        self, topic: str, key: str, max_count: int, begin_ms: int, end_ms: int, *, unique: bool
    ) -> list[MessageExt]:
        """Ask the index of every master; hashes may collide, so the caller compares."""
        header = QueryMessageHeader(topic, key, max_count, begin_ms, end_ms)
        found: list[MessageExt] = []
        for data in self._links.masters(topic):
            command = Command.request(
                RequestCode.QUERY_MESSAGE, header, ext={UNIQUE_KEY_QUERY: "true" if unique else "false"}
            )
            response = self._links.call_broker(data.broker_addrs[0], command)
            if response.code == ResponseCode.SUCCESS:
                found += decode_messages(view_of(response), data.broker_name)
            elif response.code != ResponseCode.QUERY_NOT_FOUND:
                raise error_of(response.code, response.remark)
        found = [message for message in found if message.topic == topic]
        return sorted(found, key=lambda message: message.store_timestamp)

    def message_at(self, queue: MessageQueue, queue_offset: int) -> MessageExt | None:
        """Return the message at an offset of a queue (11), None when the queue holds none there."""
        if queue_offset < 0:
            raise InvalidParameter(f"queue offset {queue_offset}: at least 0 is needed")
        data = self.topic_route(queue.topic).broker(queue.broker_name)
        if data is None or not data.master_addr:
            raise TopicNotExist(f"broker {queue.broker_name!r} does not serve topic {queue.topic!r} now")
        request = PullRequest(
            TOOLS_CONSUMER_GROUP,
            queue,
            queue_offset,
            1,
            build_subscription(queue.topic, "*"),
            post_subscription=True,
        )
        result = request.result(self._links.call_broker(data.master_addr, request.command()))
        if result.status is not PullStatus.FOUND or result.messages[0].queue_offset != queue_offset:
            return None
        return result.messages[0]

    # Plumbing

    def _each_master(self, topic: str, ask: Callable[[str], R]) -> Iterable[R]:
        """Ask every master of a topic."""
        return [ask(data.broker_addrs[0]) for data in self._links.masters(topic)]
