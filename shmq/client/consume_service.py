"""ConsumeService: runs the listener over pulled messages and does what its answer says.

Messages are cut into groups of `consume_message_batch_max_size`; each group is one task of the listener pool.
Afterwards, exactly as RocketMQ (Apache RocketMQ 5.3, ConsumeMessageConcurrentlyService.java):

    CONSUME_SUCCESS    messages 0..ack_index are done; later ones count as failed
    RECONSUME_LATER, None, nonsense, an exception: all failed
    failed, clustering     given back (`give_back.py`), to be delivered again later; when no broker takes the
                           message it stays and is consumed again from memory after 5 s
    failed, broadcasting   logged and dropped

Then the offset of the process queue is stored, upwards only. Results of a dropped queue are ignored: its new
owner gets the messages again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from shmq.base import log
from shmq.base.clock import now_ms
from shmq.client.consumer_config import PushConsumerConfig
from shmq.client.give_back import GiveBack
from shmq.client.listener_calls import ListenerCalls
from shmq.client.listener_pool import TaskRunner, runner
from shmq.client.offset_store import OffsetStore
from shmq.client.process_queue import ProcessQueue
from shmq.client.pulled_message import PulledMessage
from shmq.model.consumer_group import MessageModel
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue

CONSUME_AGAIN_S = 5.0
INT_MAX = 0x7FFFFFFF
TIMEOUT_DELAY_LEVEL = 3
TIMEOUT_HEAD = 16

_LOG = log.get(__name__)


class ConsumeConcurrentlyStatus(Enum):
    """What a concurrent listener returns."""

    CONSUME_SUCCESS = "CONSUME_SUCCESS"
    RECONSUME_LATER = "RECONSUME_LATER"


@dataclass(slots=True)
class ConsumeConcurrentlyContext:
    """What a listener may read and set for one call.

    `ack_index`: with CONSUME_SUCCESS the messages 0..ack_index are acknowledged.
    `delay_level_when_next_consume`: -1 straight to the dead letters, 0 the broker decides, > 0 that delay
    level.
    """

    message_queue: MessageQueue
    ack_index: int = INT_MAX
    delay_level_when_next_consume: int = 0


ConcurrentListener = Callable[
    [list[MessageExt], ConsumeConcurrentlyContext], ConsumeConcurrentlyStatus | None
]
"""Consumes messages of one queue; called by several threads at once."""


@dataclass(slots=True)
class _Task:
    """One call of the listener."""

    messages: list[PulledMessage]
    held: ProcessQueue[PulledMessage]
    queue: MessageQueue


class ConsumeService:
    """The listener's threads of one push consumer."""

    def __init__(
        self,
        group: str,
        config: PushConsumerConfig,
        listener: ConcurrentListener,
        calls: ListenerCalls,
        back: GiveBack,
        offsets: OffsetStore,
        *,
        later: Callable[[float, Callable[[], None]], None],
        drained: Callable[[MessageQueue], None],
    ) -> None:
        """`later` runs something after a delay in seconds; `drained` hears when a queue's cache has
        shrunk."""
        self._group = group
        self._config = config
        self._listener = listener
        self._calls = calls
        self._back = back
        self._offsets = offsets
        self._later = later
        self._drained = drained
        self._resume_below = max(1, config.pull_threshold_for_queue // 2)
        self._pool: TaskRunner[_Task] = runner(
            f"shmq-consume-{group}",
            self._consume,
            config.consume_thread_max,
            config.consume_thread_min,
            config.consume_executor,
        )

    def submit(
        self, messages: list[PulledMessage], held: ProcessQueue[PulledMessage], queue: MessageQueue
    ) -> None:
        """Hand found messages to the listener's threads."""
        step = self._config.consume_message_batch_max_size
        self._pool.submit(
            *[_Task(messages[start : start + step], held, queue) for start in range(0, len(messages), step)]
        )

    def stop(self, grace_s: float) -> None:
        """Let running listeners end for `grace_s`; waiting messages are left for the next owner."""
        if not self._pool.stop(grace_s):
            log.event(_LOG, logging.INFO, "listeners_still_running", group=self._group)

    def _consume(self, task: _Task) -> None:
        """Run one task in a listener thread."""
        if task.held.dropped:
            return
        context = ConsumeConcurrentlyContext(task.queue)
        messages = task.messages
        status, error = self._calls.run(
            messages, task.queue, self._listener, context, ConsumeConcurrentlyStatus, _SUCCESSES
        )
        if not isinstance(context.ack_index, int) or not isinstance(
            context.delay_level_when_next_consume, int
        ):
            error = error or "the listener left no numbers in its context"
            context = ConsumeConcurrentlyContext(task.queue, ack_index=-1)
        if task.held.dropped:
            return
        if status is not ConsumeConcurrentlyStatus.CONSUME_SUCCESS:
            self._settle(task, 0, error, status, context)
        elif context.ack_index + 1 < len(messages):
            self._settle(task, max(0, context.ack_index + 1), error, status, context)
        else:
            self._finish(task.held, task.queue, messages)

    def _settle(
        self,
        task: _Task,
        done: int,
        error: str,
        status: ConsumeConcurrentlyStatus | None,
        context: ConsumeConcurrentlyContext,
    ) -> None:
        """Give failed messages back, take the others out and store the offset."""
        failed = task.messages[done:]
        again: list[PulledMessage] = []
        if failed and self._config.message_model is MessageModel.BROADCASTING:
            for message in failed:
                log.event(_LOG, logging.WARNING, "broadcast_message_dropped", message=message.msg_id)
        elif failed:
            level = context.delay_level_when_next_consume
            error = error or _reason(status)
            again = [m for m in failed if not self._back.try_to_give(m, level, error)]
        finished = [m for m in task.messages if m not in again] if again else task.messages
        self._finish(task.held, task.queue, finished)
        if again:
            for message in again:
                message.count_local_retry()
            retry = _Task(again, task.held, task.queue)
            self._later(CONSUME_AGAIN_S, lambda: self._pool.submit(retry))

    def _finish(
        self, held: ProcessQueue[PulledMessage], queue: MessageQueue, finished: list[PulledMessage]
    ) -> None:
        before = held.message_count
        offset = held.remove(finished)
        if offset >= 0 and not held.dropped:
            self._offsets.update(queue, offset)
        if held.message_count < self._resume_below <= before:
            self._drained(queue)

    def clean_expired(self, held: ProcessQueue[PulledMessage], queue: MessageQueue) -> None:
        """Give messages back whose listener has been running for over `consume_timeout_min`."""
        limit_ms = now_ms() - self._config.consume_timeout_min * 60_000
        for message in held.head(TIMEOUT_HEAD):
            if not 0 < message.consume_start_ms <= limit_ms:
                return
            error = f"its listener has been running for over {self._config.consume_timeout_min} minutes"
            if not self._back.try_to_give(message, TIMEOUT_DELAY_LEVEL, error):
                return
            self._finish(held, queue, [message])

    def set_threads(self, count: int) -> None:
        """Run the listener on at most `count` threads from now on."""
        self._pool.set_threads(count)


_SUCCESSES = (ConsumeConcurrentlyStatus.CONSUME_SUCCESS,)


def _reason(status: object) -> str:
    """Say why messages come back although the listener did nothing wrong."""
    if status is ConsumeConcurrentlyStatus.CONSUME_SUCCESS:
        return "the listener acknowledged only the messages before it (ack_index)"
    return "the listener returned RECONSUME_LATER"
