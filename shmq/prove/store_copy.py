"""Copies a store to try things on, without touching it: its broker may run meanwhile.

The order makes the copy one that a crash could have left: first what says how far everything is (`abort`,
identity, checkpoint, tables), then ConsumeQueues and indexes, then the log, which therefore holds at least
what the others speak of. Of the log only the newest segments are copied: nothing is ever written to the
others, and a store whose oldest segments are gone is an ordinary one (retention). Holes stay holes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from shmq.store.names import StoreLayout, parse_file_name
from shmq.store.sparse_files import first_written
from shmq.store.store_view import layout_of
from shmq.store.write_recorder import written_extents

_FIRST = ("abort", "shmq", "checkpoint", "config")
_THEN = ("consumequeue", "index", "commitlog")


def copy_store(source: Path, target: Path, segments_max: int) -> StoreLayout:
    """Copy the store at `source`, with its newest `segments_max` segments, into the new folder `target`.

    Returns the layout of the copy. OSError when there is no room.
    """
    layout = layout_of(source)
    kept = set(newest_segments(layout, segments_max))
    target.mkdir(parents=True)
    for name in (*_FIRST, *_THEN):
        _copy(source / name, target / name, kept if name == "commitlog" else None)
    return layout_of(target)


def newest_segments(layout: StoreLayout, count: int) -> list[int]:
    """The last `count` segments that hold anything, and the empty ones that are ready behind them."""
    starts = layout.segments()
    used = len(starts)
    while used > 1 and first_written(layout.segment_path(starts[used - 1]), 0) is None:
        used -= 1
    return starts[max(0, used - count) :]


def store_bytes(source: Path, segments_max: int) -> int:
    """About how much disk the copy will need."""
    layout = layout_of(source)
    kept = newest_segments(layout, segments_max)
    old = {layout.segment_path(start) for start in layout.segments() if start not in kept}
    found = 0
    for root, _, names in os.walk(source):
        for path in (Path(root) / name for name in names):
            with contextlib.suppress(FileNotFoundError):
                found += 0 if path in old else path.stat().st_blocks * 512
    return found


def _copy(source: Path, target: Path, segments: set[int] | None) -> None:
    """Copy a file, or a folder and what is in it; what vanished meanwhile is left out."""
    if source.is_dir():
        target.mkdir()
        for entry in sorted(source.iterdir()):
            if segments is None or parse_file_name(entry.name) in segments:
                _copy(entry, target / entry.name, None)
        return
    with contextlib.suppress(FileNotFoundError):
        _copy_file(source, target)


def _copy_file(source: Path, target: Path) -> None:
    from_fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        to_fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(from_fd).st_size
            os.ftruncate(to_fd, size)
            for position, length in written_extents(from_fd):
                piece = os.pread(from_fd, min(length, size - position), position)
                if piece.strip(b"\0"):
                    os.pwrite(to_fd, piece, position)
        finally:
            os.close(to_fd)
    finally:
        os.close(from_fd)
