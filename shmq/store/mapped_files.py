"""A bounded set of mapped files: the least recently used one goes when there are too many.

Each map costs a descriptor and an entry in the kernel's list of maps (vm.max_map_count, 65,530 by default),
and a store may have tens of thousands of ConsumeQueue files. Dropping one here only drops our reference:
views still in use keep their map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from shmq.store.mapped_file import MappedFile

QUEUE_MAPS_MAX = 2048
"""ConsumeQueue files one process keeps mapped."""

SEGMENT_MAPS_MAX = 1024
"""CommitLog segments one process keeps mapped."""

Key = TypeVar("Key", bound=Hashable)


class MappedFiles(Generic[Key]):
    """Maps by key, made on first use. One thread of one process."""

    def __init__(self, opener: Callable[[Key], MappedFile], limit: int) -> None:
        """`opener` maps the file of a key and may raise what `MappedFile` raises.

        At most `limit` are kept.
        """
        self._opener = opener
        self._limit = limit
        self._maps: OrderedDict[Key, MappedFile] = OrderedDict()

    def get(self, key: Key) -> MappedFile:
        """The map of `key`, opened when it is not there. Raises what the opener raises."""
        found = self._maps.get(key)
        if found is not None:
            self._maps.move_to_end(key)
            return found
        made = self._maps[key] = self._opener(key)
        if len(self._maps) > self._limit:
            self._maps.popitem(last=False)
        return made

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
