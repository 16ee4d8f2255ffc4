"""A segment whose file cannot be read everywhere: a copy in memory of the parts that are asked for.

A load from a mapped page that the disk cannot give is SIGBUS, the end of the process. So once a segment has
shown such a page, its bytes are read with `pread`, page by page, into memory of this process, where they can
be looked at like a map. A page that gives an error stays zero and is remembered. Any process; one thread.
"""

from __future__ import annotations

import logging
import mmap
import os
from pathlib import Path

from shmq.base import log
from shmq.store.mapped_file import MappedFile

_logger = log.get(__name__)


_careful = False


def read_carefully() -> None:
    """Let `map_segment` of this process look at every page first. Recovery, when it died of SIGBUS before."""
    global _careful
    _careful = True


def map_segment(path: Path, start: int, size: int) -> MappedFile:
    """A segment for reading all of it: mapped, or a copy if this process reads carefully and must.

    Raises what MappedFile raises.
    """
    segment = MappedFile(path, start, size, writable=False)
    if not _careful or segment.touch(0, size):
        return segment
    copy = CopiedSegment(path, start, size)
    copy.touch(0, size)
    return copy


class CopiedSegment(MappedFile):
    """Looks like the mapped file; `touch` copies what is about to be read. Nothing may be stored in it."""

    __slots__ = ("_copied", "_path", "_unreadable", "copied_bytes")

    def __init__(self, path: Path, start: int, size: int) -> None:
        """Copy nothing yet: memory is used for pages that were touched."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.map = mmap.mmap(-1, size, flags=flags)
        self.start = start
        self.size = size
        self.view = memoryview(self.map).toreadonly()
        self._path = path
        self._copied = bytearray(-(-size // mmap.PAGESIZE))
        self._unreadable: set[int] = set()
        self.copied_bytes = 0
        log.event(_logger, logging.ERROR, "segment_is_read_page_by_page", file=path)

    def touch(self, position: int, size: int) -> bool:
        """Copy what is missing of these bytes; False when the disk cannot give some of them: those are zero.

        OSError when the file is gone.
        """
        pages = range(position // mmap.PAGESIZE, -(-(position + size) // mmap.PAGESIZE))
        missing = [page for page in pages if not self._copied[page]]
        if missing:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                for page in missing:
                    self._copy(fd, page)
            finally:
                os.close(fd)
        return self._unreadable.isdisjoint(pages)

    def changed(self, position: int, size: int) -> None:
        """Copy these bytes anew: they were written to the file."""
        for page in range(position // mmap.PAGESIZE, -(-(position + size) // mmap.PAGESIZE)):
            self._copied[page] = 0
            self._unreadable.discard(page)
        self.touch(position, size)

    def _copy(self, fd: int, page: int) -> None:
        at = page * mmap.PAGESIZE
        wanted = min(mmap.PAGESIZE, self.size - at)
        data = b""
        try:
            data = os.pread(fd, wanted, at)
        except OSError as error:
            log.event(
                _logger,
                logging.ERROR,
                "page_unreadable",
                error=error,
                file=self._path,
                physical=self.start + at,
            )
        self.map[at : at + len(data)] = data
        if len(data) < wanted:
            self._unreadable.add(page)
        self._copied[page] = 1
        self.copied_bytes += wanted
