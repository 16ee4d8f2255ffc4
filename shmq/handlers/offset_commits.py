"""Storing consumer offsets: one page word each, no disk. The coordinator persists them.

Used by the pull and the offset handlers in the worker's event loop. Any worker may store any group's
offset; the last writer wins, as in RocketMQ.
"""

from __future__ import annotations

from shmq.handlers.context import Ask, NeedOffsetSlots, WorkerContext


def offset_slot(ctx: WorkerContext, group: str, topic: str, queue_id: int) -> int | None:
    """Return the slot of a group's offset in one queue, None when it was never made."""
    slot = ctx.directory.offset_slot(group, topic, queue_id)
    if slot is None:
        ctx.directory.catch_up()
        slot = ctx.directory.offset_slot(group, topic, queue_id)
    return slot


def commit_offset(ctx: WorkerContext, group: str, topic: str, queue_id: int, consumer_offset: int) -> None:
    """Store how far a group has consumed. Raises Ask when the page has no slot for it yet.

    Ignored while a reset of this queue waits to be taken: the consumer does not know of it yet.
    """
    view = ctx.view.groups.get(group)
    if view is not None and view.reset_of(topic, queue_id) is not None:
        return
    slot = offset_slot(ctx, group, topic, queue_id)
    if slot is None:
        raise Ask(NeedOffsetSlots(group, topic))
    ctx.offsets.commit(slot, consumer_offset)
    ctx.count("offset_commits", 1)


def note_pulled(ctx: WorkerContext, group: str, topic: str, queue_id: int, next_offset: int) -> None:
    """Store how far a group has pulled, for operators; only where the group has offsets at all."""
    slot = ctx.directory.offset_slot(group, topic, queue_id)
    if slot is not None:
        ctx.offsets.set_pulled(slot, next_offset)
