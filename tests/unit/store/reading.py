"""Reading everything a store shows, queue by queue."""

from __future__ import annotations

from typing import Any

from shmq.model.message_ext import MessageExt
from shmq.model.record import iter_records
from shmq.store.read import ReadStatus
from tests.helpers.store import OpenStore


def read_all(store: OpenStore, *, numbered: bool = False) -> dict[tuple[str, int], list[Any]]:
    """Bodies by (topic, queue id), with queue offsets if `numbered`; empty queues are left out."""
    store.directory.catch_up()
    found: dict[tuple[str, int], list[Any]] = {}
    for topic in store.directory.topics():
        for queue in store.directory.queues(topic):
            messages: list[Any] = []
            offset = store.store.min(queue)
            while (result := store.store.read(queue, offset, 50, 1 << 20)).status is ReadStatus.FOUND:
                for view in result.views:
                    for record in iter_records(view):
                        message = MessageExt(record)
                        body = bytes(message.body)
                        messages.append((message.queue_offset, body) if numbered else body)
                offset = result.next_offset
            if messages:
                found[topic, queue.queue_id] = messages
    return found
