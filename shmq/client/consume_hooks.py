"""Hooks around each call of a listener, as RocketMQ's ConsumeMessageHook: they see, they change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shmq.base import log
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue

_LOG = log.get(__name__)


@dataclass(slots=True)
class ConsumeContext:
    """What hooks see of one call of a listener; the last members are set when it ended.

    `status` is the name of the listener's answer (empty: it raised, or gave none), `error` the text of what
    went wrong. `notes` is free for the hooks: what one keeps from before to after.
    """

    group: str
    queue: MessageQueue
    messages: Sequence[MessageExt]
    success: bool = False
    status: str = ""
    error: str = ""
    raised: bool = False
    cost_ms: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


class ConsumeMessageHook(Protocol):
    """Sees every call of the listener; what it raises is logged and changes nothing."""

    def consume_message_before(self, context: ConsumeContext) -> None:
        """Run before the listener, in its thread."""

    def consume_message_after(self, context: ConsumeContext) -> None:
        """Run after it."""


class ConsumeHooks:
    """The hooks of one consumer."""

    def __init__(self) -> None:
        """Start with none."""
        self.seeing: list[ConsumeMessageHook] = []

    def __bool__(self) -> bool:
        """Tell whether there is any: without one no context is made."""
        return bool(self.seeing)

    def before(self, context: ConsumeContext) -> None:
        """Tell that the listener is called now."""
        for hook in self.seeing:
            try:
                hook.consume_message_before(context)
            except Exception:
                _LOG.exception("a consume hook raised before the listener")

    def after(self, context: ConsumeContext) -> None:
        """Tell how the call ended."""
        for hook in self.seeing:
            try:
                hook.consume_message_after(context)
            except Exception:
                _LOG.exception("a consume hook raised after the listener")
