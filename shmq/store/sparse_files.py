"""Files that are mostly holes: what was ever written in them, zeroing that, and making many of them durable.

Recovery, the check and the checkpointer call it. Holes, and blocks that were allocated but not written, are
skipped and not read: a file may be a gigabyte of them. No numpy here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from shmq.base.syncs import sync_file_system

PIECE_BYTES = 1 << 20
_ZEROS = bytes(PIECE_BYTES)

MANY = 64
"""From how many files on one sync of their whole file system is cheaper than one for each."""


def first_written(path: Path | str, position: int) -> int | None:
    """Where the first byte that is not zero lies at or behind `position`; None when there is none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for at, piece in _written_pieces(fd, position):
            return at + len(piece) - len(piece.lstrip(b"\0"))
    finally:
        os.close(fd)
    return None


def zero_written(path: Path | str, position: int) -> int:
    """Zero everything from `position` on that is not zero; return about how many bytes that were."""
    found = 0
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for at, piece in _written_pieces(fd, position):
            os.pwrite(fd, _ZEROS[: len(piece)], at)
            found += len(piece.strip(b"\0"))
    finally:
        os.close(fd)
    return found


def written_end(fd: int) -> int:
    """Where the holes at a file's end begin: nothing was ever written behind it."""
    end = position = 0
    while (position := _seek(fd, position, os.SEEK_DATA)) >= 0:
        end = position = _seek(fd, position, os.SEEK_HOLE)
    return end


def _written_pieces(fd: int, position: int) -> Iterator[tuple[int, bytes]]:
    """(position, bytes) of pieces that hold something else than zeros."""
    while (position := _seek(fd, position, os.SEEK_DATA)) >= 0:
        data_end = _seek(fd, position, os.SEEK_HOLE)
        while position < data_end:
            piece = os.pread(fd, min(PIECE_BYTES, data_end - position), position)
            if not piece:
                return
            if piece != _ZEROS[: len(piece)]:
                yield position, piece
            position += len(piece)


def _seek(fd: int, position: int, whence: int) -> int:
    """The next data or hole from `position` on, -1 when there is none."""
    try:
        return os.lseek(fd, position, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return -1
        raise


def sync_path(path: Path) -> None:
    """Make a file's content, or a folder's names, durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_paths(paths: Collection[Path], root: Path) -> None:
    """Make files and folders below `root` durable; those that are gone meanwhile are no loss. OSError.

    Many at once go by one `syncfs`: it also writes what others have on that file system, but ten thousand
    fdatasync calls with a journal commit each take half a minute.
    """
    if len(paths) >= MANY:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_file_system(fd)
        finally:
            os.close(fd)
        return
    for path in paths:
        try:
            sync_path(path)
        except FileNotFoundError:
            continue
