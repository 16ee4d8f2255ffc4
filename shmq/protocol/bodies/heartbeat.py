"""Bodies of HEART_BEAT 34 and CHECK_CLIENT_CONFIG 46, and the JSON of subscriptions.

Apache RocketMQ 5.3: HeartbeatData.java, ConsumerData.java, SubscriptionData.java.
"""

from dataclasses import dataclass, field
from typing import Any

from shmq.model.consumer_group import ConsumeFromWhere, ConsumeType, MessageModel
from shmq.model.subscription import TAG_EXPRESSION, SubscriptionData
from shmq.protocol.bodies.dialect import Body, dumps, loads, reads


@dataclass(slots=True)
class ConsumerData:
    """One consumer group of a client, with everything it subscribes to."""

    group_name: str
    consume_type: ConsumeType = ConsumeType.CONSUME_PASSIVELY
    message_model: MessageModel = MessageModel.CLUSTERING
    consume_from_where: ConsumeFromWhere = ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET
    subscriptions: list[SubscriptionData] = field(default_factory=list)
    unit_mode: bool = False


@dataclass(slots=True)
class HeartbeatData:
    """What a client tells each broker every 30 s: who it is, what it produces and consumes."""

    client_id: str
    producer_groups: list[str] = field(default_factory=list)
    consumers: list[ConsumerData] = field(default_factory=list)
    heartbeat_fingerprint: int = 0
    without_sub: bool = False


@dataclass(slots=True)
class ClientConfigCheck:
    """Body of 46: is this subscription's expression understood?

    `message_model`, which RocketMQ's clients do not send: may the client consume in that mode?
    """

    client_id: str
    group: str
    subscription: SubscriptionData
    namespace: str | None = None
    message_model: MessageModel | None = None


def subscription_json(subscription: SubscriptionData) -> dict[str, Any]:
    """Return the JSON object of a subscription."""
    return {
        "classFilterMode": subscription.class_filter_mode,
        "codeSet": sorted(subscription.code_set),
        "expressionType": subscription.expression_type,
        "subString": subscription.sub_string,
        "subVersion": subscription.sub_version,
        "tagsSet": sorted(subscription.tags_set),
        "topic": subscription.topic,
    }


def subscription_of(members: Any) -> SubscriptionData:
    """Read the JSON object of a subscription."""
    return SubscriptionData(
        topic=str(members["topic"]),
        sub_string=str(members.get("subString") or "*"),
        tags_set=frozenset(map(str, members.get("tagsSet") or ())),
        code_set=frozenset(map(int, members.get("codeSet") or ())),
        sub_version=int(members.get("subVersion") or 0),
        expression_type=str(members.get("expressionType") or TAG_EXPRESSION),
        class_filter_mode=bool(members.get("classFilterMode")),
    )


def encode_heartbeat(heartbeat: HeartbeatData) -> bytes:
    """Return the body of 34."""
    return dumps(
        {
            "clientID": heartbeat.client_id,
            "consumerDataSet": [_consumer_json(consumer) for consumer in heartbeat.consumers],
            "heartbeatFingerprint": heartbeat.heartbeat_fingerprint,
            "producerDataSet": [{"groupName": group} for group in heartbeat.producer_groups],
            "withoutSub": heartbeat.without_sub,
        }
    )


@reads("HEART_BEAT body")
def decode_heartbeat(body: Body | None) -> HeartbeatData:
    """Read the body of 34."""
    members = loads(body)
    return HeartbeatData(
        client_id=str(members["clientID"]),
        producer_groups=[str(producer["groupName"]) for producer in members.get("producerDataSet") or ()],
        consumers=[_consumer_of(consumer) for consumer in members.get("consumerDataSet") or ()],
        heartbeat_fingerprint=int(members.get("heartbeatFingerprint") or 0),
        without_sub=bool(members.get("withoutSub")),
    )


def _consumer_json(consumer: ConsumerData) -> dict[str, Any]:
    return {
        "consumeFromWhere": consumer.consume_from_where,
        "consumeType": consumer.consume_type,
        "groupName": consumer.group_name,
        "messageModel": consumer.message_model,
        "subscriptionDataSet": [subscription_json(subscription) for subscription in consumer.subscriptions],
        "unitMode": consumer.unit_mode,
    }


def _consumer_of(members: Any) -> ConsumerData:
    return ConsumerData(
        group_name=str(members["groupName"]),
        consume_type=ConsumeType(members.get("consumeType") or ConsumeType.CONSUME_PASSIVELY),
        message_model=MessageModel(members.get("messageModel") or MessageModel.CLUSTERING),
        consume_from_where=ConsumeFromWhere(members.get("consumeFromWhere")),
        subscriptions=[
            subscription_of(subscription) for subscription in members.get("subscriptionDataSet") or ()
        ],
        unit_mode=bool(members.get("unitMode")),
    )


def encode_client_config_check(check: ClientConfigCheck) -> bytes:
    """Return the body of 46."""
    members: dict[str, Any] = {"clientId": check.client_id, "group": check.group}
    if check.namespace:
        members["namespace"] = check.namespace
    if check.message_model is not None:
        members["messageModel"] = check.message_model
    members["subscriptionData"] = subscription_json(check.subscription)
    return dumps(members)


@reads("CHECK_CLIENT_CONFIG body")
def decode_client_config_check(body: Body | None) -> ClientConfigCheck:
    """Read the body of 46."""
    members = loads(body)
    model = members.get("messageModel")
    return ClientConfigCheck(
        client_id=str(members["clientId"]),
        group=str(members["group"]),
        subscription=subscription_of(members["subscriptionData"]),
        namespace=members.get("namespace"),
        message_model=MessageModel(model) if model else None,
    )
