"""The store's files for operators: 306 queue files, 316 queues of no topic, 329 expired segments.

Coordinator's handlers. What they start goes on in small steps after the answer (`coordinator/retention.py`).
"""

from __future__ import annotations

from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Place, Route
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command


async def clean_expired_queues(
    ctx: CoordinatorContext, _call: Call, command: Command, _header: None
) -> Command:
    """306: remove what ConsumeQueues have in front of the log, at once. Queues keep their numbers, also empty
    ones, which RocketMQ begins again at 0."""
    ctx.topics.start()  # a deletion that was interrupted leaves such files, too
    ctx.retention.delete_queue_files()
    return command.response(ResponseCode.SUCCESS)


async def clean_unused_topics(
    ctx: CoordinatorContext, _call: Call, command: Command, _header: None
) -> Command:
    """316: end the queues of topics that are in no table: found by recovery, or restored with their files."""
    ctx.topics.start()
    for topic in ctx.queues.topics():
        if ctx.topics.get(topic) is None and not ctx.topics.is_system(topic):
            ctx.topics.end_unknown(topic)
            ctx.offsets.drop_topic(topic)
            await ctx.announce.topic_deleted(topic)
    return command.response(ResponseCode.SUCCESS)


async def delete_expired_segments(
    ctx: CoordinatorContext, _call: Call, command: Command, _header: None
) -> Command:
    """329: delete expired segments of the CommitLog now, whatever the hour."""
    ctx.retention.delete_expired()
    return command.response(ResponseCode.SUCCESS)


ROUTES: dict[int, Route] = {
    RequestCode.CLEAN_EXPIRED_CONSUMEQUEUE: Route(None, clean_expired_queues, Place.COORDINATOR),
    RequestCode.CLEAN_UNUSED_TOPIC: Route(None, clean_unused_topics, Place.COORDINATOR),
    RequestCode.DELETE_EXPIRED_COMMITLOG: Route(None, delete_expired_segments, Place.COORDINATOR),
}
"""Served by the coordinator."""
