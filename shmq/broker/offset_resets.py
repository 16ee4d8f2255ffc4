"""Offset resets that no consumer has been told of yet (request 222, server-side reset of RocketMQ 5).

An operator's reset stores the new offset at once and stays here until a pull of that queue was answered
with 21 and the new offset; until then workers ignore commits of the queue, which would overwrite it. In the
coordinator's memory only: after its death the stored offset remains, which a consumer that starts anew
reads.
"""

from __future__ import annotations


class OffsetResets:
    """Pending resets: group -> topic -> queue id -> offset."""

    def __init__(self) -> None:
        """Start with none."""
        self._pending: dict[str, dict[str, dict[int, int]]] = {}

    def add(self, group: str, topic: str, offsets: dict[int, int]) -> None:
        """An operator set these offsets."""
        self._pending.setdefault(group, {}).setdefault(topic, {}).update(offsets)

    def taken(self, group: str, topic: str, queue_id: int, offset: int) -> bool:
        """A pull was answered with this offset; False when the operator has set another one since."""
        by_queue = self._pending.get(group, {}).get(topic, {})
        if by_queue.get(queue_id) != offset:
            return False
        del by_queue[queue_id]
        if not by_queue:
            self.drop(group, topic)
        return True

    def drop(self, group: str, topic: str | None = None) -> None:
        """Forget the resets of a deleted group, or of one topic in it."""
        by_topic = self._pending.get(group, {})
        if topic is None:
            by_topic.clear()
        else:
            by_topic.pop(topic, None)
        if not by_topic:
            self._pending.pop(group, None)

    def drop_topic(self, topic: str) -> None:
        """Forget all resets of a deleted topic."""
        for group in list(self._pending):
            self.drop(group, topic)

    def of_group(self, group: str) -> dict[str, dict[int, int]]:
        """All pending resets of a group, copied."""
        return {topic: dict(by_queue) for topic, by_queue in self._pending.get(group, {}).items()}
