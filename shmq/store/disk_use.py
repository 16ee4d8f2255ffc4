"""How full a store's disk is, and how much of that is files which are deleted already but still held.

A file that was unlinked keeps its blocks as long as a process maps it or has it open. Such files are found
where the kernel lists them, in `/proc/<pid>/maps` and `/proc/<pid>/fd`, by their name below the store's root
and the mark "(deleted)": nothing has to be remembered over a restart. Processes of other users that this one
may not look into are not seen. Called by the coordinator (retention); no lock, nothing is changed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MARK = b" (deleted)"
_MAP_LINE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ [0-9a-f]+ \S+ \d+ +(/.*) \(deleted\)$", re.MULTILINE)
_BLOCK_BYTES = 512


class DiskUse(NamedTuple):
    """Bytes of a file system: what is used, and what an ordinary user can still have."""

    used: int
    usable: int

    @classmethod
    def of(cls, folder: Path) -> DiskUse:
        """Ask the file system of `folder`. OSError when it is gone."""
        disk = os.statvfs(folder)
        return cls((disk.f_blocks - disk.f_bfree) * disk.f_frsize, disk.f_bavail * disk.f_frsize)

    def percent(self, without: int = 0) -> int:
        """How much is used, in percent, rounded up as RocketMQ does (5.3, UtilAll.java).

        `without` bytes of it do not count: they become free by themselves.
        """
        used = max(0, self.used - without)
        return -(-100 * used // max(1, self.used + self.usable))


class HeldFile(NamedTuple):
    """A file that has no name any more and still costs `bytes` because `pids` have it."""

    path: str
    bytes: int
    pids: tuple[int, ...]


class HeldFiles:
    """The deleted files below one folder that somebody still has."""

    def __init__(self, root: Path) -> None:
        """Nothing is looked for yet."""
        self._root = os.fsencode(root.resolve()) + b"/"
        self.found: list[HeldFile] = []
        """As of the last look."""

    @property
    def cost(self) -> int:
        """The bytes of all of them, as of the last look."""
        return sum(held.bytes for held in self.found)

    def look(self) -> Iterator[None]:
        """Look at every process of this host; yields after each, for a caller that has other things to do."""
        sizes: dict[bytes, int] = {}
        pids: dict[bytes, set[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdecimal():
                for path, size in self._of_process(name):
                    sizes[path] = max(size, sizes.get(path, 0))
                    pids.setdefault(path, set()).add(int(name))
                yield
        self.found = [
            HeldFile(os.fsdecode(path), sizes[path], tuple(sorted(pids[path]))) for path in sorted(sizes)
        ]

    def _of_process(self, pid: str) -> Iterator[tuple[bytes, int]]:
        """(name it had, bytes) of each such file that a process maps or has open."""
        with contextlib.suppress(OSError):
            maps = Path(f"/proc/{pid}/maps").read_bytes()
            for match in _MAP_LINE.finditer(maps) if _MARK in maps else ():
                if match[3].startswith(self._root):
                    yield match[3], int(match[2], 16) - int(match[1], 16)
        folder = f"/proc/{pid}/fd"
        with contextlib.suppress(OSError):
            for fd in os.listdir(folder):
                with contextlib.suppress(OSError):
                    link = os.fsencode(os.readlink(f"{folder}/{fd}"))
                    if link.endswith(_MARK) and link.startswith(self._root):
                        yield link.removesuffix(_MARK), os.stat(f"{folder}/{fd}").st_blocks * _BLOCK_BYTES
