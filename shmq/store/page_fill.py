"""Filling a new control page: positions, queues and consumer offsets, from what recovery found.

Before any other process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shmq.model.settings import BrokerSettings, FlushDiskType
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView, DirectoryWriter
from shmq.shm.offset_slots import NO_OFFSET, OffsetSlots
from shmq.shm.page_layout import (
    CONFIRM_OFFSET,
    FLUSHED_POSITION,
    INDEXED_POSITION,
    LAST_STORE_TIME,
    MIN_OFFSET,
    VISIBLE_WORD,
    WRITE_POSITION,
    ZEROED_POSITION,
)
from shmq.store.config_tables import TopicTable

QueueBounds = Mapping[tuple[str, int], tuple[int, int]]
"""(topic, queue id) -> (minimum, maximum)."""


def visible_word(settings: BrokerSettings) -> int:
    """The page word that bounds readers under these settings."""
    if settings.flush_disk_type is FlushDiskType.SYNC_FLUSH and not settings.read_un_committed:
        return FLUSHED_POSITION
    return WRITE_POSITION


def fill_positions(
    page: ControlPage, settings: BrokerSettings, *, low: int, end: int, indexed: int, last_store_time: int
) -> None:
    """Store the positions of a log `[low, end)` that is synced."""
    words = page.words
    words[MIN_OFFSET] = low
    for word in (WRITE_POSITION, FLUSHED_POSITION, CONFIRM_OFFSET, ZEROED_POSITION):
        words[word] = end
    words[INDEXED_POSITION] = indexed
    words[LAST_STORE_TIME] = last_store_time
    words[VISIBLE_WORD] = visible_word(settings)


def fill_queues(page: ControlPage, bounds: QueueBounds, topics: TopicTable) -> None:
    """Give slots and directory entries to every topic that has files or records.

    A queue id in between that has none begins where its topic's earlier life ended. Topics that were only
    ever made, and queues added since, get theirs from the coordinator.
    """
    counts: dict[str, int] = {}
    for topic, queue_id in bounds:
        counts[topic] = max(counts.get(topic, 0), queue_id + 1)
    writer = DirectoryWriter(page)
    for topic in sorted(counts):
        lows = ((topics.low(topic, queue_id),) * 2 for queue_id in range(counts[topic]))
        rows = [bounds.get((topic, queue_id), low) for queue_id, low in enumerate(lows)]
        writer.add_queues(topic, 0, [(int(low), int(high)) for low, high in rows])


def fill_offsets(
    page: ControlPage,
    offsets: Mapping[tuple[str, str], Mapping[int, int]],
    bounds: QueueBounds,
    topics: TopicTable,
) -> int:
    """Store the consumer offsets, none beyond its queue's maximum: the messages behind it may be gone.

    A queue of which nothing is left begins anew: with a greater offset its next messages would be skipped.
    Returns how many had to be set back.
    """
    writer, slots = DirectoryWriter(page), OffsetSlots(page)
    clamped = 0
    for (group, topic), by_queue in sorted(offsets.items()):
        if not by_queue:
            continue
        first = writer.add_offsets(group, topic, 0, max(by_queue) + 1)
        for queue_id, offset in by_queue.items():
            _, high = bounds.get((topic, queue_id)) or (0, topics.low(topic, queue_id))
            clamped += offset > high
            slots.commit(first + queue_id, min(offset, high))
    return clamped


def offsets_of(page: ControlPage) -> dict[tuple[str, str], dict[int, int]]:
    """Every consumer offset stored on a page, as `load_consumer_offsets` returns those of the file."""
    directory, slots = DirectoryView(page), OffsetSlots(page)
    found: dict[tuple[str, str], dict[int, int]] = {}
    for group, topic in directory.offset_groups():
        by_queue = enumerate(directory.offset_slots(group, topic))
        stored = {queue_id: slots.committed(slot) for queue_id, slot in by_queue if slot is not None}
        found[group, topic] = {queue_id: offset for queue_id, offset in stored.items() if offset != NO_OFFSET}
    return found


def bounds_of(rows: Sequence[tuple[str, int, int, int]]) -> dict[tuple[str, int], tuple[int, int]]:
    """Rows (topic, queue id, minimum, maximum) as a mapping."""
    return {(topic, queue_id): (low, high) for topic, queue_id, low, high in rows}
