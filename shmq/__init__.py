"""shmq: a durable message broker for one Linux host, with RocketMQ's model, files and wire protocol.

    from shmq import Message, Producer, PushConsumer

The names below are loaded when first used, so that `import shmq` costs a program nothing it does not use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_EXPORTS = {
    "AdminClient": "shmq.client.admin_client",
    "BrokerError": "shmq.base.errors",
    "ClientConfig": "shmq.client.config",
    "ClientError": "shmq.client.errors",
    "ClientFault": "shmq.base.errors",
    "ConsumeConcurrentlyContext": "shmq.client.consume_service",
    "ConsumeConcurrentlyStatus": "shmq.client.consume_service",
    "ConsumeOrderlyContext": "shmq.client.orderly_service",
    "ConsumeOrderlyStatus": "shmq.client.orderly_service",
    "ConsumeFromWhere": "shmq.model.consumer_group",
    "Deduplicator": "shmq.client.deduplicator",
    "IllegalOperation": "shmq.base.errors",
    "LitePullConsumer": "shmq.client.lite_pull_consumer",
    "Message": "shmq.model.message",
    "MessageExt": "shmq.model.message_ext",
    "MessageIllegal": "shmq.base.errors",
    "MessageModel": "shmq.model.consumer_group",
    "MessageQueue": "shmq.model.message_queue",
    "MessageSelector": "shmq.model.subscription",
    "MessageSplitter": "shmq.client.batch",
    "Producer": "shmq.client.producer",
    "PullConsumer": "shmq.client.pull_consumer",
    "PullResult": "shmq.client.pull",
    "PullScheduleService": "shmq.client.pull_schedule_service",
    "PullStatus": "shmq.client.pull",
    "PullTaskContext": "shmq.client.pull_schedule_service",
    "PushConsumer": "shmq.client.push_consumer",
    "RemotingError": "shmq.client.errors",
    "RequestTimeout": "shmq.client.request_reply",
    "Durability": "shmq.client.send_result",
    "SendResult": "shmq.client.send_result",
    "SendStatus": "shmq.client.send_result",
    "ShmqError": "shmq.base.errors",
    "LocalTransactionState": "shmq.model.transaction",
    "TransactionListener": "shmq.client.transaction_producer",
    "TransactionProducer": "shmq.client.transaction_producer",
    "TransactionSendResult": "shmq.client.transaction_producer",
    "create_reply_message": "shmq.client.request_reply",
    "select_by_hash": "shmq.client.queue_selection",
    "select_by_random": "shmq.client.queue_selection",
    "stop_on_signals": "shmq.client.stop_signals",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from shmq.base.errors import BrokerError as BrokerError
    from shmq.base.errors import ClientFault as ClientFault
    from shmq.base.errors import IllegalOperation as IllegalOperation
    from shmq.base.errors import MessageIllegal as MessageIllegal
    from shmq.base.errors import ShmqError as ShmqError
    from shmq.client.admin_client import AdminClient as AdminClient
    from shmq.client.batch import MessageSplitter as MessageSplitter
    from shmq.client.config import ClientConfig as ClientConfig
    from shmq.client.consume_service import ConsumeConcurrentlyContext as ConsumeConcurrentlyContext
    from shmq.client.consume_service import ConsumeConcurrentlyStatus as ConsumeConcurrentlyStatus
    from shmq.client.deduplicator import Deduplicator as Deduplicator
    from shmq.client.errors import ClientError as ClientError
    from shmq.client.errors import RemotingError as RemotingError
    from shmq.client.lite_pull_consumer import LitePullConsumer as LitePullConsumer
    from shmq.client.orderly_service import ConsumeOrderlyContext as ConsumeOrderlyContext
    from shmq.client.orderly_service import ConsumeOrderlyStatus as ConsumeOrderlyStatus
    from shmq.client.producer import Producer as Producer
    from shmq.client.pull import PullResult as PullResult
    from shmq.client.pull import PullStatus as PullStatus
    from shmq.client.pull_consumer import PullConsumer as PullConsumer
    from shmq.client.pull_schedule_service import PullScheduleService as PullScheduleService
    from shmq.client.pull_schedule_service import PullTaskContext as PullTaskContext
    from shmq.client.push_consumer import PushConsumer as PushConsumer
    from shmq.client.queue_selection import select_by_hash as select_by_hash
    from shmq.client.queue_selection import select_by_random as select_by_random
    from shmq.client.request_reply import RequestTimeout as RequestTimeout
    from shmq.client.request_reply import create_reply_message as create_reply_message
    from shmq.client.send_result import Durability as Durability
    from shmq.client.send_result import SendResult as SendResult
    from shmq.client.send_result import SendStatus as SendStatus
    from shmq.client.stop_signals import stop_on_signals as stop_on_signals
    from shmq.client.transaction_producer import TransactionListener as TransactionListener
    from shmq.client.transaction_producer import TransactionProducer as TransactionProducer
    from shmq.client.transaction_producer import TransactionSendResult as TransactionSendResult
    from shmq.model.consumer_group import ConsumeFromWhere as ConsumeFromWhere
    from shmq.model.consumer_group import MessageModel as MessageModel
    from shmq.model.message import Message as Message
    from shmq.model.message_ext import MessageExt as MessageExt
    from shmq.model.message_queue import MessageQueue as MessageQueue
    from shmq.model.subscription import MessageSelector as MessageSelector
    from shmq.model.transaction import LocalTransactionState as LocalTransactionState


def __getattr__(name: str) -> object:
    """Load an exported name at its first use."""
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module 'shmq' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *_EXPORTS})
