"""Queue locks of orderly consumers: 41 LOCK_BATCH_MQ, 42 UNLOCK_BATCH_MQ.

Coordinator's handlers. The locks a client holds are kept as a note at its worker until they would expire,
whether its connection lives or not: a new coordinator must not give such a queue to somebody else.
"""

from __future__ import annotations

import orjson

from shmq.broker.queue_locks import LOCK_LIFE_MS, QueueLocks
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Place, Route
from shmq.model.message_queue import MessageQueue
from shmq.protocol.bodies.offsets import decode_queue_locks, encode_locked_queues
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command

LOCK_NOTE = "lock:"
"""Notes of locks begin so; group and client id follow."""


async def lock(ctx: CoordinatorContext, call: Call, command: Command, _header: None) -> Command:
    """41: take or renew queues; answered with those the client holds now."""
    wanted = decode_queue_locks(command.body_bytes())
    await ctx.settled()
    now_ms = ctx.clock.monotonic_ms()
    granted = ctx.locks.lock(wanted.consumer_group, wanted.client_id, wanted.queues, now_ms)
    _keep(ctx, call, wanted.consumer_group, wanted.client_id, now_ms)
    return command.response(ResponseCode.SUCCESS, body=encode_locked_queues(granted))


async def unlock(ctx: CoordinatorContext, call: Call, command: Command, _header: None) -> Command:
    """42: give queues back; often a oneway."""
    wanted = decode_queue_locks(command.body_bytes())
    await ctx.settled()
    if ctx.locks.unlock(wanted.consumer_group, wanted.client_id, wanted.queues):
        ctx.announce.members_changed(wanted.consumer_group)  # who was refused asks again at once
    _keep(ctx, call, wanted.consumer_group, wanted.client_id, ctx.clock.monotonic_ms())
    return command.response(ResponseCode.SUCCESS)


def _keep(ctx: CoordinatorContext, call: Call, group: str, client_id: str, now_ms: int) -> None:
    held = ctx.locks.held(group, client_id)
    rows = [[*queue, renewed_ms] for queue, renewed_ms in held.items()]
    content = orjson.dumps({"group": group, "client": client_id, "locks": rows}) if rows else None
    call.keep(f"{LOCK_NOTE}{group}@{client_id}", content, now_ms + LOCK_LIFE_MS)


def restore_locks(locks: QueueLocks, content: bytes) -> None:
    """Take over the locks of a note."""
    note = orjson.loads(content)
    renewed = {MessageQueue(topic, broker, queue_id): ms for topic, broker, queue_id, ms in note["locks"]}
    locks.restore(note["group"], note["client"], renewed)


ROUTES: dict[int, Route] = {
    RequestCode.LOCK_BATCH_MQ: Route(None, lock, Place.COORDINATOR),
    RequestCode.UNLOCK_BATCH_MQ: Route(None, unlock, Place.COORDINATOR),
}
"""Served by the coordinator."""
