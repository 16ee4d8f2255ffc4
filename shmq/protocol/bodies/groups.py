"""Bodies about consumer groups: settings 200, 201, 225, 352; members 38, 203, 204, 300, 328; subscription
345.

Apache RocketMQ 5.3: SubscriptionGroupWrapper.java, ConsumerConnection.java,
GetConsumerListByGroupResponseBody.java.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shmq.model.consumer_group import ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionGroupConfig
from shmq.model.data_version import DataVersion
from shmq.model.subscription import SubscriptionData
from shmq.protocol.bodies.dialect import Body, dumps, loads, reads
from shmq.protocol.bodies.heartbeat import subscription_json, subscription_of
from shmq.protocol.codes import LanguageCode


@dataclass(slots=True)
class GroupTable:
    """All consumer groups of a broker; ``forbidden`` is group -> topic -> bit mask."""

    groups: dict[str, SubscriptionGroupConfig] = field(default_factory=dict)
    forbidden: dict[str, dict[str, int]] = field(default_factory=dict)
    data_version: DataVersion = field(default_factory=DataVersion)


@dataclass(slots=True)
class ClientConnection:
    """One connected client as 203 and 204 show it."""

    client_id: str
    client_addr: str
    language: int = LanguageCode.PYTHON
    version: int = 0


@dataclass(slots=True)
class ConsumerConnections:
    """Answer to 203."""

    connections: list[ClientConnection] = field(default_factory=list)
    subscriptions: dict[str, SubscriptionData] = field(default_factory=dict)
    consume_type: ConsumeType = ConsumeType.CONSUME_PASSIVELY
    message_model: MessageModel = MessageModel.CLUSTERING
    consume_from_where: ConsumeFromWhere = ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET


def encode_consumer_list(client_ids: Iterable[str]) -> bytes:
    """Return the answer to 38."""
    return dumps({"consumerIdList": list(client_ids)})


@reads("consumer list")
def decode_consumer_list(body: Body | None) -> list[str]:
    """Read the answer to 38."""
    return list(map(str, loads(body).get("consumerIdList") or ()))


def encode_group_config(config: SubscriptionGroupConfig) -> bytes:
    """Return the body of 200 and the answer to 352."""
    return dumps(config.to_json())


@reads("subscription group config")
def decode_group_config(body: Body | None) -> SubscriptionGroupConfig:
    """Read the body of 200 or the answer to 352."""
    return SubscriptionGroupConfig.from_json(loads(body))


@reads("subscription group config list")
def decode_group_config_list(body: Body | None) -> list[SubscriptionGroupConfig]:
    """Read the body of 225."""
    return [SubscriptionGroupConfig.from_json(config) for config in loads(body).get("groupConfigList") or ()]


def encode_group_table(table: GroupTable) -> bytes:
    """Return the answer to 201."""
    return dumps(
        {
            "dataVersion": table.data_version.to_json(),
            "forbiddenTable": table.forbidden,
            "subscriptionGroupTable": {name: config.to_json() for name, config in table.groups.items()},
        }
    )


@reads("subscription group table")
def decode_group_table(body: Body | None) -> GroupTable:
    """Read the answer to 201."""
    members = loads(body)
    forbidden = members.get("forbiddenTable") or {}
    return GroupTable(
        groups={
            str(name): SubscriptionGroupConfig.from_json(config, str(name))
            for name, config in (members.get("subscriptionGroupTable") or {}).items()
        },
        forbidden={
            str(g): {str(t): int(bits) for t, bits in topics.items()} for g, topics in forbidden.items()
        },
        data_version=DataVersion.from_json(members.get("dataVersion")),
    )


def encode_group_list(groups: Iterable[str]) -> bytes:
    """Return the answer to 300."""
    return dumps({"groupList": list(groups)})


@reads("group list")
def decode_group_list(body: Body | None) -> list[str]:
    """Read the answer to 300."""
    return list(map(str, loads(body).get("groupList") or ()))


def encode_consumer_connections(found: ConsumerConnections) -> bytes:
    """Return the answer to 203."""
    return dumps(
        {
            "connectionSet": [_connection_json(connection) for connection in found.connections],
            "consumeFromWhere": found.consume_from_where,
            "consumeType": found.consume_type,
            "messageModel": found.message_model,
            "subscriptionTable": {
                topic: subscription_json(data) for topic, data in found.subscriptions.items()
            },
        }
    )


@reads("consumer connections")
def decode_consumer_connections(body: Body | None) -> ConsumerConnections:
    """Read the answer to 203."""
    members = loads(body)
    subscriptions = members.get("subscriptionTable") or {}
    return ConsumerConnections(
        connections=[_connection_of(connection) for connection in members.get("connectionSet") or ()],
        subscriptions={str(topic): subscription_of(data) for topic, data in subscriptions.items()},
        consume_type=ConsumeType(members.get("consumeType") or ConsumeType.CONSUME_PASSIVELY),
        message_model=MessageModel(members.get("messageModel") or MessageModel.CLUSTERING),
        consume_from_where=ConsumeFromWhere(members.get("consumeFromWhere")),
    )


def encode_producer_connections(connections: Iterable[ClientConnection]) -> bytes:
    """Return the answer to 204."""
    return dumps({"connectionSet": [_connection_json(connection) for connection in connections]})


@reads("producer connections")
def decode_producer_connections(body: Body | None) -> list[ClientConnection]:
    """Read the answer to 204."""
    return [_connection_of(connection) for connection in loads(body).get("connectionSet") or ()]


def encode_all_producers(producers: Mapping[str, Iterable[tuple[ClientConnection, int]]]) -> bytes:
    """Return the answer to 328: producer group -> (connection, time of its last heartbeat in ms)."""
    return dumps(
        {
            "data": {
                group: [
                    {
                        "clientId": connection.client_id,
                        "language": _language_name(connection.language),
                        "lastUpdateTimestamp": last_update_timestamp,
                        "remoteIP": f"/{connection.client_addr}",
                        "version": connection.version,
                    }
                    for connection, last_update_timestamp in connections
                ]
                for group, connections in producers.items()
            }
        }
    )


def encode_topic_subscription(group: str, topic: str, subscription: SubscriptionData) -> bytes:
    """Return the answer to 345."""
    return dumps({"group": group, "subscriptionData": subscription_json(subscription), "topic": topic})


def _connection_json(connection: ClientConnection) -> dict[str, Any]:
    return {
        "clientAddr": connection.client_addr,
        "clientId": connection.client_id,
        "language": _language_name(connection.language),
        "version": connection.version,
    }


def _connection_of(members: Any) -> ClientConnection:
    language = members.get("language")
    return ClientConnection(
        client_id=str(members["clientId"]),
        client_addr=str(members.get("clientAddr") or ""),
        language=LanguageCode[language] if language in LanguageCode.__members__ else LanguageCode.OTHER,
        version=int(members.get("version") or 0),
    )


def _language_name(code: int) -> str:
    return LanguageCode(code).name if code in LanguageCode._value2member_map_ else LanguageCode.OTHER.name
