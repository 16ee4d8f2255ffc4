"""Where a delayed message waits. Pure but for the worker's view; called by what stores messages.

Facts: Apache RocketMQ 5.3, HookUtils.java.
"""

from __future__ import annotations

from functools import lru_cache

from shmq.base.errors import ServiceNotAvailable
from shmq.handlers.context import WorkerContext
from shmq.handlers.message_properties import check_stored
from shmq.model.delay import clamp_level, delay_levels, delay_ms
from shmq.model.names import SCHEDULE_TOPIC
from shmq.model.properties import REAL_QUEUE_ID, REAL_TOPIC, encode_properties
from shmq.shm.queue_table import QueueRef


def delayed(ctx: WorkerContext, queue: QueueRef, stored: bytes, level: int) -> tuple[QueueRef, bytes, int]:
    """Return the queue of the level, the properties with the message's own topic and queue added, and the
    delay in ms. The coordinator delivers it from there."""
    levels = _levels(ctx.settings.message_delay_level)
    waiting = ctx.directory.queue(SCHEDULE_TOPIC, clamp_level(level, levels) - 1)
    if waiting is None:
        raise ServiceNotAvailable(f"topic {SCHEDULE_TOPIC} has no queue for delay level {level}: send later")
    real = encode_properties({REAL_TOPIC: queue.topic, REAL_QUEUE_ID: str(queue.queue_id)})
    check_stored(stored + real)
    return waiting, stored + real, delay_ms(level, levels)


@lru_cache(maxsize=4)
def _levels(text: str) -> list[int]:
    return delay_levels(text)
