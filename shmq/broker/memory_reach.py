"""Whether a message is still in memory or has to be read from disk: a guess by distance to the log's end.

RocketMQ's rule (Apache RocketMQ 5.3, DefaultMessageStore.java, estimateInMemByCommitOffset): the last
``accessMessageInMemoryMaxRatio`` percent of the host's RAM worth of log counts as memory.
"""

from __future__ import annotations

import os

from shmq.shm.page_layout import MIN_OFFSET, WRITE_POSITION
from shmq.shm.queue_table import QueueRef
from shmq.store.message_store import MessageStore


class MemoryReach:
    """How far back the log counts as memory; used by the worker's pull handler."""

    def __init__(self, store: MessageStore, ratio_percent: int) -> None:
        """Take the host's RAM as it is now."""
        self._store = store
        self._words = store.page.words
        self._reach_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * ratio_percent // 100

    def is_on_disk(self, queue: QueueRef, queue_offset: int) -> bool:
        """Tell whether the message at ``queue_offset`` lies too far behind the log's end to be in memory."""
        end = self._words[WRITE_POSITION]
        if end - self._words[MIN_OFFSET] <= self._reach_bytes:
            return False
        if not self._store.min(queue) <= queue_offset < self._store.max(queue):
            return False
        try:
            unit = self._store.queues.unit(queue, queue_offset)
        except FileNotFoundError:
            return True
        return bool(end - unit.physical_offset > self._reach_bytes)
