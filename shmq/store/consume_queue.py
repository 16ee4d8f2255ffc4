"""Disk space for the units of one ConsumeQueue, made before anybody holds the AppendLock.

A queue's units form one stream of 20-byte units cut into files of one size. A file gets its full length at
once, but sparse, and disk blocks in windows just ahead of its last unit: a page first, then 64 KiB at a time,
so that ten thousand queues with ten messages each cost 40 MB and not 60 GB. A store into a page without
blocks on a full disk is SIGBUS, so the window is allocated first, and a full disk is an ordinary error of one
send.

When numbering does not begin at a file's first unit (the topic was made again, or older segments of the log
are gone), the units before it are fillers as RocketMQ writes them: offset 0, size 7FFFFFFF, tags code 0.

Called by workers, the coordinator and recovery, outside every lock. Doing it twice, or in two processes at
once, or dying in it, is harmless: lengths only grow, and fillers are only written over zeros.
"""

from __future__ import annotations

import errno
import os

from shmq.base.errors import ServiceNotAvailable
from shmq.model.unit import UNIT_BYTES, UNIT_STRUCT
from shmq.store.names import StoreLayout

FIRST_WINDOW_BYTES = 4096
WINDOW_BYTES = 64 << 10

USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Descriptors or maps, of this process or this host."""

FILLER_SIZE = 0x7FFFFFFF
"""The size field of a filler unit; no record is that large."""

FILLER = UNIT_STRUCT.pack(0, FILLER_SIZE, 0)


def make_room(layout: StoreLayout, topic: str, queue_id: int, first: int, end: int) -> int:
    """Give the units `[first, end)` files and disk blocks; return up to which unit there is room now.

    `first` is where the queue's next unit goes: nothing at or above it is touched, only allocated. Raises
    ServiceNotAvailable when the disk refuses, OSError when descriptors are `USED_UP`.
    """
    size = layout.queue_file_bytes
    position, wanted = first * UNIT_BYTES, max(end, first + 1) * UNIT_BYTES
    try:
        while position < wanted:
            start = position - position % size
            file_end = start + size
            window_end = min(file_end, start + _window_end(min(wanted, file_end) - start))
            _allocate(layout, topic, queue_id, start, position, window_end)
            position = window_end
    except OSError as error:
        if error.errno in USED_UP:
            raise
        raise ServiceNotAvailable(
            f"no disk space for queue {queue_id} of {topic}: {error.strerror}; "
            f"free some below {layout.root}, then send again"
        ) from error
    return position // UNIT_BYTES


def _window_end(position: int) -> int:
    """The end of the window that holds the byte before `position` of a file."""
    if position <= FIRST_WINDOW_BYTES:
        return FIRST_WINDOW_BYTES
    return -(-position // WINDOW_BYTES) * WINDOW_BYTES


def _allocate(
    layout: StoreLayout, topic: str, queue_id: int, start: int, position: int, window_end: int
) -> None:
    """Make the file at `start` if needed, at full length, and give `[position, window_end)` blocks."""
    path = layout.queue_file_path(topic, queue_id, start)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.fstat(fd).st_size < layout.queue_file_bytes:
            os.ftruncate(fd, layout.queue_file_bytes)
        if position > start:
            _fill_before(fd, position - start)
        os.posix_fallocate(fd, position - start, window_end - position)
    finally:
        os.close(fd)


def _fill_before(fd: int, position: int) -> None:
    """Write fillers over `[0, position)` of a file when no unit was ever written there."""
    if os.pread(fd, UNIT_BYTES, position - UNIT_BYTES) != bytes(UNIT_BYTES):
        return
    if os.pread(fd, position, 0).count(0) == position:
        os.posix_fallocate(fd, 0, position)
        os.pwrite(fd, FILLER * (position // UNIT_BYTES), 0)
