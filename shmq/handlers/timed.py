"""Where a message for any moment waits. Pure but for the worker's view; called by what stores messages.

Facts: Apache RocketMQ 5.3, HookUtils.java. Unlike there the moment is kept to the millisecond.
"""

from __future__ import annotations

from typing import NamedTuple

from shmq.base.errors import MessageIllegal, ServiceNotAvailable, ShmqError
from shmq.handlers.context import WorkerContext
from shmq.handlers.message_properties import PreparedProperties, check_stored
from shmq.model.names import TIMER_TOPIC
from shmq.model.timer import RecallHandle, TimerWish, waiting_properties
from shmq.shm.queue_table import QueueRef


class TimersDisabled(ShmqError):
    """`timerWheelEnable` is off: answered with SYSTEM_ERROR, as in RocketMQ."""


class Timed(NamedTuple):
    """What is stored of a message that waits, where, and how it is taken back ("": it cannot be)."""

    queue: QueueRef
    stored: bytes
    recall_handle: str


def timed(
    ctx: WorkerContext, queue: QueueRef, properties: PreparedProperties, wish: TimerWish
) -> Timed | None:
    """Return the timers' queue and the properties with the moment and the message's own topic and queue
    added; None when the moment has come: the message is an ordinary one. The coordinator delivers it.

    MessageIllegal beyond `timerMaxDelaySec`, and for a cancellation that comes too late.
    """
    now_ms = ctx.clock.now_ms()
    due_ms = checked_moment(ctx, wish, now_ms)
    if due_ms <= now_ms:
        if wish.cancels:
            raise MessageIllegal("the moment of the message to be cancelled has come: nothing was changed")
        return None
    waiting = ctx.directory.queue(TIMER_TOPIC, 0)
    if waiting is None:
        raise ServiceNotAvailable(f"topic {TIMER_TOPIC} has no queue: send later")
    stored = properties.stored + waiting_properties(queue.topic, queue.queue_id, due_ms)
    check_stored(stored)
    key = properties.unique_key
    handle = RecallHandle(queue.topic, ctx.settings.broker_name, due_ms, key)
    return Timed(waiting, stored, "" if " " in key or wish.cancels else handle.encode())


def checked_moment(ctx: WorkerContext, wish: TimerWish, now_ms: int) -> int:
    """Return the moment in ms; MessageIllegal beyond `timerMaxDelaySec`, TimersDisabled without the wheel."""
    settings = ctx.settings
    if not settings.timer_wheel_enable:
        raise TimersDisabled(
            "this broker keeps no messages for a moment (timerWheelEnable=false): use a delay level"
        )
    due_ms = wish.due_ms(now_ms)
    if due_ms - now_ms > settings.timer_max_delay_sec * 1000:
        raise MessageIllegal(
            f"the message is for {(due_ms - now_ms) // 1000} s from now, at most "
            f"{settings.timer_max_delay_sec} s are allowed (timerMaxDelaySec)"
        )
    return due_ms
