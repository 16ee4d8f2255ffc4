"""Hooks at the end of a transaction, as RocketMQ's EndTransactionHook: they see the outcome first.

Run by a TransactionProducer in the thread that tells the broker: the sending one, or the one that answered a
check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from shmq.base import log
from shmq.model.message import Message
from shmq.model.message_ext import MessageExt
from shmq.model.transaction import LocalTransactionState

_LOG = log.get(__name__)


@dataclass(slots=True)
class EndTransactionContext:
    """What hooks see of an outcome.

    `message` is the half message as it was sent, or the one that the broker asks about
    (`from_transaction_check`). `region_id` and `trace_on` are what the broker said of its traces.
    """

    group: str
    message: Message | MessageExt
    broker_addr: str
    msg_id: str
    transaction_id: str
    transaction_state: LocalTransactionState
    from_transaction_check: bool
    region_id: str
    trace_on: bool


class EndTransactionHook(Protocol):
    """Sees every outcome; what it raises is logged and changes nothing."""

    def end_transaction(self, context: EndTransactionContext) -> None:
        """Run before the outcome is sent."""


class EndTransactionHooks:
    """The hooks of one producer."""

    def __init__(self) -> None:
        """Start with none."""
        self.seeing: list[EndTransactionHook] = []

    def run(self, context: EndTransactionContext) -> None:
        """Tell all of them."""
        for hook in self.seeing:
            try:
                hook.end_transaction(context)
            except Exception:
                _LOG.exception("a hook raised at the end of a transaction")
