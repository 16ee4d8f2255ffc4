"""Hooks around each send attempt, as RocketMQ has them: one that may forbid, one that sees before and
after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from shmq.base import log
from shmq.client.send_result import CommunicationMode, SendResult
from shmq.model.message import Message
from shmq.model.message_queue import MessageQueue

_LOG = log.get(__name__)


@dataclass(slots=True)
class SendContext:
    """What hooks see of one attempt; `result` or `error` is set when it ended.

    `notes` is free for the hooks: what one keeps from before to after.
    """

    group: str
    queue: MessageQueue
    message: Message
    mode: CommunicationMode
    broker_addr: str
    result: SendResult | None = None
    error: Exception | None = None
    notes: dict[str, Any] = field(default_factory=dict)


class SendMessageHook(Protocol):
    """Sees every attempt; what it raises is logged and changes nothing."""

    def send_message_before(self, context: SendContext) -> None:
        """Run before the attempt."""

    def send_message_after(self, context: SendContext) -> None:
        """Run after it."""


CheckForbiddenHook = Callable[[SendContext], None]
"""Runs before each attempt; raising vetoes the send."""


class SendHooks:
    """The hooks of one producer."""

    def __init__(self) -> None:
        """Start with none."""
        self.forbidding: list[CheckForbiddenHook] = []
        self.seeing: list[SendMessageHook] = []

    def __bool__(self) -> bool:
        """Tell whether there is any hook: without one no context is made."""
        return bool(self.forbidding or self.seeing)

    def before(self, context: SendContext) -> None:
        """Ask the forbidding hooks, then tell the others."""
        for forbid in self.forbidding:
            forbid(context)
        for hook in self.seeing:
            try:
                hook.send_message_before(context)
            except Exception:
                _LOG.exception("a send hook raised before the send")

    def after(self, context: SendContext) -> None:
        """Tell how the attempt ended."""
        for hook in self.seeing:
            try:
                hook.send_message_after(context)
            except Exception:
                _LOG.exception("a send hook raised after the send")
