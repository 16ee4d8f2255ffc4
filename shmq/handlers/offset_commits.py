"""Storing consumer offsets: one page word each, no disk. The coordinator persists them.

Used by the pull and the offset handlers in the worker's event loop. Any worker may store any group's
offset; the last writer wins, as in RocketMQ, except that shmq's own clients say when theirs only moves on.
"""

from __future__ import annotations

from shmq.base.errors import NoPermission
from shmq.handlers.context import Ask, NeedOffsetSlots, WorkerContext
from shmq.model.names import BROKER_GROUPS


def offset_slot(ctx: WorkerContext, group: str, topic: str, queue_id: int) -> int | None:
    """Return the slot of a group's offset in one queue, None when it was never made."""
    slot = ctx.directory.offset_slot(group, topic, queue_id)
    if slot is None:
        ctx.directory.catch_up()
        slot = ctx.directory.offset_slot(group, topic, queue_id)
    return slot


def commit_offset(
    ctx: WorkerContext,
    group: str,
    topic: str,
    queue_id: int,
    consumer_offset: int,
    *,
    only_forward: bool,
) -> None:
    """Store how far a group has consumed. Raises Ask when the page has no slot for it yet.

    NoPermission for the broker's own groups. Ignored while a reset of this queue waits to be taken: the
    consumer does not know of it yet. With `only_forward` an offset behind the stored one is ignored: while
    members come and go two of them may own a queue for a moment, and the one that is behind must not take
    back what the other has consumed.
    """
    if group in BROKER_GROUPS:
        raise NoPermission(f"the offsets of {group} are the broker's own")
    view = ctx.view.groups.get(group)
    if view is not None and view.reset_of(topic, queue_id) is not None:
        return
    slot = offset_slot(ctx, group, topic, queue_id)
    if slot is None:
        raise Ask(NeedOffsetSlots(group, topic))
    if only_forward and consumer_offset < ctx.offsets.committed(slot):
        return
    ctx.offsets.commit(slot, consumer_offset)
    ctx.count("offset_commits", 1)


def note_pulled(ctx: WorkerContext, group: str, topic: str, queue_id: int, next_offset: int) -> None:
    """Store how far a group has pulled, for operators; only where the group has offsets at all."""
    slot = ctx.directory.offset_slot(group, topic, queue_id)
    if slot is not None:
        ctx.offsets.set_pulled(slot, next_offset)
