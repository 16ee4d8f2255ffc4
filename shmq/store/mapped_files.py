"""A bounded set of mapped files: the least recently used one goes when there are too many.

Each map costs an entry in the kernel's list of maps (vm.max_map_count, 65,530 by default) and a descriptor,
which CPython keeps for it, and a store may have tens of thousands of ConsumeQueue files. Dropping one here
only drops our reference: views still in use keep their map.
"""

from __future__ import annotations

import resource
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from shmq.store.mapped_file import MappedFile

QUEUE_MAPS_MAX = 16_384
"""ConsumeQueue files one process keeps mapped: where each send goes to another queue, one that has to be
mapped again costs three sends."""

SEGMENT_MAPS_MAX = 1024
"""CommitLog segments one process keeps mapped."""

WRITER_QUEUES_SHARE, READER_QUEUES_SHARE, SEGMENTS_SHARE = 5 / 8, 1 / 4, 1 / 8
"""Of a process's descriptors. A writer is the broker's own, a reader may be anybody's."""

Key = TypeVar("Key", bound=Hashable)


def maps_max(most: int, share: float) -> int:
    """How many files to keep mapped: `most`, in a process with few descriptors only their `share`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else min(most, int(soft * share))


class MappedFiles(Generic[Key]):
    """Maps by key, made on first use. One thread of one process."""

    def __init__(self, opener: Callable[[Key], MappedFile], limit: int) -> None:
        """`opener` maps the file of a key and may raise what `MappedFile` raises.

        At most `limit` are kept, beside what was asked for to `stay`.
        """
        self._opener = opener
        self._limit = limit
        self._maps: OrderedDict[Key, MappedFile] = OrderedDict()

    def get(self, key: Key, *, stay: bool = False) -> MappedFile:
        """The map of `key`, opened when it is not there. Raises what the opener raises.

        None is dropped for one that is to `stay`: it is there until the next that need not is opened.
        """
        found = self._maps.get(key)
        if found is not None:
            self._maps.move_to_end(key)
            return found
        made = self._maps[key] = self._opener(key)
        if not stay:
            self.trim()
        return made

    def has(self, key: Key) -> bool:
        """Whether the file of `key` is mapped."""
        return key in self._maps

    def shrink(self) -> None:
        """Keep at most half of what is mapped now: descriptors or maps are used up. `trim` drops the rest."""
        self._limit = max(1, len(self._maps) // 2)

    def trim(self) -> None:
        """Drop those used least recently, down to the limit."""
        while len(self._maps) > self._limit:
            self._maps.popitem(last=False)

    def drop_where(self, unwanted: Callable[[Key], bool]) -> None:
        """Forget the maps whose key is `unwanted`, so that unlinked files can free their blocks."""
        for key in [key for key in self._maps if unwanted(key)]:
            del self._maps[key]

    def clear(self) -> None:
        """Forget all maps."""
        self._maps.clear()

    def __len__(self) -> int:
        """How many files are mapped."""
        return len(self._maps)
