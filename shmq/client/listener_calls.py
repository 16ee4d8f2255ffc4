"""ListenerCalls: one call of a listener, concurrent or orderly, with all that belongs around it.

Retried messages get their own topic back, hooks are told, figures are counted, and whatever the listener
does wrong (raise, answer nothing, answer nonsense) becomes one line of text that is kept with the message.
Runs in the listener's threads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import TypeVar

from shmq.base import log
from shmq.base.clock import now_ms
from shmq.client.consume_hooks import ConsumeContext, ConsumeHooks
from shmq.client.consume_stats import ConsumeStats
from shmq.client.pulled_message import PulledMessage, start_consuming
from shmq.model.last_error import error_of_exception
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue
from shmq.model.names import is_retry_topic, without_namespace

C = TypeVar("C")
S = TypeVar("S", bound=Enum)

_LOG = log.get(__name__)


class ListenerCalls:
    """Calls the listener of one consumer."""

    def __init__(
        self, group: str, hooks: ConsumeHooks, stats: ConsumeStats, namespace: str | None = None
    ) -> None:
        """Tell `hooks` and count in `stats`; messages are shown without the namespace."""
        self._namespace = namespace
        self._group = group
        self._hooks = hooks
        self._stats = stats

    def run(
        self,
        messages: Sequence[PulledMessage],
        queue: MessageQueue,
        listener: Callable[[list[MessageExt], C], object],
        own: C,
        statuses: type[S],
        successes: tuple[S, ...],
    ) -> tuple[S | None, str]:
        """Call the listener with its messages and its `own` context; never raises for what it does.

        Returns its answer, one of `statuses` (None: none that counts), and what was wrong.
        """
        topic = prepare(messages, queue)
        if self._namespace:
            hide_namespace(messages, self._namespace)
        hooks = self._hooks
        context = ConsumeContext(self._group, queue, messages) if hooks.seeing else None
        if context is not None:
            hooks.before(context)
        raised, error, answer = False, "", None
        started = time.monotonic()
        try:
            answer = listener(list(messages), own)
        except BaseException as fault:  # the listener is the user's: its error, sys.exit() too, means "later"
            _LOG.exception(
                "the listener of group %s raised; its messages of %s come again", self._group, queue
            )
            raised, error = True, error_of_exception(fault)
        ended = time.monotonic()
        status = answer if isinstance(answer, statuses) else None
        if status is None and not raised:
            error = self._fault(answer, statuses)
        success = status in successes
        took_ms = (ended - started) * 1000
        self._stats.consumed(topic, len(messages), success, took_ms, ended)
        if context is not None:
            context.success = success
            context.status = status.name if status is not None else ""
            context.error = error
            context.raised = raised
            context.cost_ms = round(took_ms)
            hooks.after(context)
        return status, error

    def _fault(self, answer: object, statuses: type[Enum]) -> str:
        """Say what is wrong with an answer, also in the log."""
        fault = "the listener returned nothing"
        if answer is not None:
            fault = f"the listener returned {_shown(answer)}, which is no {statuses.__name__}"
        log.event(_LOG, logging.WARNING, "listener_answer_unknown", group=self._group, fault=fault)
        return fault


def _shown(answer: object) -> str:
    """Return what may be said of an answer; some answers do not even print."""
    try:
        return repr(str(answer)[:200])
    except Exception:
        return f"an object of class {type(answer).__name__}"


def prepare(messages: Sequence[PulledMessage], queue: MessageQueue) -> str:
    """Stamp the start of consumption, give retried messages their own topic back; returns the topic."""
    start_consuming(messages, now_ms())
    if not is_retry_topic(queue.topic):
        return queue.topic
    for message in messages:
        message.restore_topic()
    return messages[0].topic


def hide_namespace(messages: Iterable[PulledMessage], namespace: str) -> None:
    """Give messages the topic that programs in the namespace know."""
    for message in messages:
        message.topic = without_namespace(namespace, message.topic)
