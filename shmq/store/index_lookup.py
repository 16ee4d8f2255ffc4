"""Finding messages by key: newest index file first, at most as many as asked for. Called by workers.

No lock.
"""

from __future__ import annotations

from shmq.base.errors import StoreDamaged
from shmq.model.settings import BrokerSettings
from shmq.store.index_file import IndexFile, index_names, key_hash
from shmq.store.names import StoreLayout

FOUND_MAX = 64
"""RocketMQ's maxMsgsNumBatch: one query returns no more."""


class IndexLookup:
    """The index files of a store, mapped as they are needed."""

    def __init__(self, layout: StoreLayout, settings: BrokerSettings) -> None:
        """Nothing is opened yet."""
        self._folder = layout.index
        self._slots = settings.max_hash_slot_num
        self._items = settings.max_index_num
        self._files: dict[str, IndexFile] = {}

    def lookup(self, topic: str, key: str, max_count: int, begin: int, end: int) -> list[int]:
        """Physical offsets of messages whose `topic#key` has the right hash, stored in `[begin, end]` ms.

        Newest first, each once. Another key with the same hash gives false hits: the caller compares the
        record's.
        """
        wanted = min(max_count, FOUND_MAX)
        hash_ = key_hash(topic, key)
        found: dict[int, None] = {}
        for file in self._newest_first():
            for physical_offset in file.find(hash_, begin, end):
                found[physical_offset] = None
                if len(found) >= wanted:
                    return list(found)
        return list(found)

    def _newest_first(self) -> list[IndexFile]:
        """The files there are now; one that cannot be mapped (being made, or of another size) is left out."""
        names = self.forget_gone()
        for name in names:
            if name not in self._files:
                try:
                    self._files[name] = IndexFile(
                        self._folder / name, self._slots, self._items, writable=False
                    )
                except (FileNotFoundError, StoreDamaged):
                    continue
        return [self._files[name] for name in reversed(names) if name in self._files]

    def forget_gone(self) -> list[str]:
        """Let go of files that were deleted; return the names of those that are there."""
        names = index_names(self._folder)
        for gone in self._files.keys() - set(names):
            del self._files[gone]
        return names

    def close(self) -> None:
        """Forget all maps."""
        self._files.clear()
