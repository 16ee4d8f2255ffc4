"""After a failed fdatasync: bring what is only in memory to the disk, or refuse.

The kernel may have marked pages clean that never reached the disk, so syncing again proves nothing. Here
every byte of the log that was not known to be flushed is copied aside, its pages are dropped from the cache,
the bytes are written again, synced, dropped again and read back from the disk. ConsumeQueue pages are only
dropped: what is missing then is rebuilt from the log.

Run by recovery, alone on the store, when the last run's page says FLUSH_FAILED and the host was not restarted
since. If it dies, the copy is still there, and the next start does it again from the copy. No numpy here.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from shmq.base import faults, log
from shmq.base.errors import StoreDamaged
from shmq.base.files import fsync_folder
from shmq.store.names import StoreLayout, file_starts

PIECE_BYTES = 1 << 20

_logger = log.get(__name__)

faults.declare(
    {
        "unflushed.copied": "what may not be on the disk is aside, durably; nothing else was done",
        "unflushed.dropped": "memory has forgotten the log's pages: only the copy is sure to have them",
        "unflushed.written": "they are written again, not synced",
        "unflushed.compared": "the disk has them, the copy is still there",
    }
)


def rewrite_unflushed(layout: StoreLayout, run: int, begin: int, end: int) -> None:
    """Make `[begin, end)` of the log durable by writing it anew. StoreDamaged when the disk still refuses.

    `run` is the page id of the run that failed: a copy of another run is never taken for this one's.
    """
    starts = [s for s in layout.segments() if s < end and s + layout.segment_bytes > begin]
    for start in starts:
        low, high = max(begin, start) - start, min(end, start + layout.segment_bytes) - start
        aside = layout.identity.parent / f"unflushed-{run}-{start + low}"
        try:
            _copy_aside(layout.segment_path(start), aside, low, high)
            faults.reach("unflushed.copied")
            _rewrite(layout.segment_path(start), aside, low)
            faults.reach("unflushed.compared")
        except OSError as error:
            raise StoreDamaged(
                f"{layout.segment_path(start)} cannot be written ({error.strerror}): the disk failed and "
                f"still does. What may not be on it is in memory, and in {aside} if that could be written"
            ) from error
        aside.unlink()
    log.event(_logger, logging.WARNING, "unflushed_rewritten", begin=begin, end=end)


def drop_queue_caches(layout: StoreLayout) -> None:
    """Forget cached pages of all ConsumeQueue files, so that what is compared next is what the disk has."""
    for topic in layout.consume_queue.iterdir() if layout.consume_queue.is_dir() else ():
        for queue in topic.iterdir():
            for start in file_starts(queue):
                path = layout.queue_file_path(topic.name, int(queue.name), start)
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(fd)


def _copy_aside(segment: Path, aside: Path, low: int, high: int) -> None:
    """Copy `[low, high)` of the segment, as memory has it, into a file of its own.

    A whole copy is not made twice.
    """
    if aside.exists() and aside.stat().st_size == high - low:
        return
    temp = aside.with_name(aside.name + ".tmp")
    with open(segment, "rb") as source, open(temp, "wb") as target:
        source.seek(low)
        for position in range(low, high, PIECE_BYTES):
            target.write(source.read(min(PIECE_BYTES, high - position)))
        target.flush()
        os.fsync(target.fileno())
    temp.replace(aside)
    fsync_folder(aside.parent)


def _rewrite(segment: Path, aside: Path, low: int) -> None:
    """Write the copy over the segment, sync, and compare with what the disk then has.

    OSError when it differs.
    """
    fd = os.open(segment, os.O_RDWR | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fdatasync(fd)  # hear of errors before this: only the sync after the writes counts
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        faults.reach("unflushed.dropped")
        with open(aside, "rb") as source:
            position = low
            while piece := source.read(PIECE_BYTES):
                os.pwrite(fd, piece, position)
                position += len(piece)
            faults.reach("unflushed.written")
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            source.seek(0)
            position = low
            while piece := source.read(PIECE_BYTES):
                if os.pread(fd, len(piece), position) != piece:
                    raise OSError(5, "what was written does not read back")
                position += len(piece)
    finally:
        os.close(fd)
