"""Delivering a stored message once more: to one client of a group directly, or as a new message to all."""

from __future__ import annotations

from collections.abc import Sequence

from shmq.admin import session
from shmq.admin.output import Column, Report
from shmq.base.errors import ClientFault
from shmq.client.admin_client import AdminClient
from shmq.client.producer import Producer
from shmq.client.producer_config import ProducerConfig
from shmq.model.consumer_group import ConsumeType
from shmq.model.message import Message
from shmq.model.message_ext import MessageExt
from shmq.model.properties import RESERVED_NAMES

RESEND_GROUP = "ReSendMsgById"


def push_to_client(admin: AdminClient, messages: Sequence[MessageExt], group: str, client_id: str) -> Report:
    """Have one push consumer take the messages now, and report what its listener made of each."""
    kind = admin.client_properties(group, client_id).get("PROP_CONSUME_TYPE")
    if kind == ConsumeType.CONSUME_ACTIVELY.value:
        raise ClientFault(f"client {client_id} pulls: only a push consumer can be given a message")
    report = Report("ConsumeMessageDirectlyResult", [])
    for message in messages:
        members = admin.consume_directly(group, client_id, message).to_json()
        report.items.append({"msgId": message.msg_id, **members})
        shown = {**members, "order": _java(members["order"]), "autoCommit": _java(members["autoCommit"])}
        text = ", ".join(
            f"{name}={'null' if shown[name] is None else shown[name]}"
            for name in ("order", "autoCommit", "consumeResult", "remark", "spentTimeMills")
        )
        report.lines.append(f"ConsumeMessageDirectlyResult [{text}]")
    return report


def _java(value: object) -> str:
    return str(value).lower()


def send_again(messages: Sequence[MessageExt], unit: str | None) -> Report:
    """Send copies of the messages, with tags, keys and user properties, as new messages with ids of their
    own.
    """
    report = Report(
        "SendResult",
        [],
        (
            Column("#Original MsgId", "originalMsgId", 34),
            Column("#Broker Name", "brokerName", 32),
            Column("#QID", "queueId", 4),
            Column("#Send Result", "sendResult", 20),
            Column("#MsgId", "msgId"),
        ),
    )
    config = ProducerConfig(namesrv_addr=session.current.namesrv, unit_name=unit)
    with Producer(RESEND_GROUP, config) as producer:
        for message in messages:
            result = producer.send(_copy(message), timeout_ms=int(session.current.timeout_s * 1000))
            report.items.append(
                {
                    "originalMsgId": message.msg_id,
                    "brokerName": result.message_queue.broker_name,
                    "queueId": result.message_queue.queue_id,
                    "sendResult": result.send_status.name,
                    "msgId": result.msg_id,
                    "offsetMsgId": result.offset_msg_id,
                }
            )
    return report


def _copy(message: MessageExt) -> Message:
    users = {name: value for name, value in message.properties.items() if name not in RESERVED_NAMES}
    return Message(
        message.topic, message.body, message.tags, message.keys, flag=message.flag, properties=users
    )
