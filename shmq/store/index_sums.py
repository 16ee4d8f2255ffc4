"""Sums of index files: of full ones when they are synced, of the newest one while no broker runs.

Kept like those of other files (`base/file_sums.py`), of as many bytes as are in use. A file that is being
filled has none: after anything but a clean stop it is built anew. No numpy here.
"""

from __future__ import annotations

import logging
from pathlib import Path

from shmq.base import faults, log
from shmq.base.file_sums import FileState, forget, judge_prefix, note_prefix
from shmq.store.index_file import HEADER, ITEM, NAME_DIGITS, SLOT_BYTES, IndexHeader, index_names
from shmq.store.names import StoreLayout

_logger = log.get(__name__)

faults.declare(
    {
        "index.gap_dropped": "index files behind one that was taken away are removed, their sums are there",
        "index.gap_forgotten": "their sums are gone as well, no page knows of it",
    }
)


def note_index(layout: StoreLayout, path: Path, slots: int) -> None:
    """Note what a file holds that nobody writes to any more. OSError when the disk refuses."""
    with open(path, "rb") as file:
        header = IndexHeader.decode(memoryview(file.read(HEADER.size)))
    used = HEADER.size + slots * SLOT_BYTES + header.index_count * ITEM.size
    note_prefix(layout.checksums, path, used)


def is_index_sum(name: str) -> bool:
    """Whether a file of the checksums' folder is the sum of an index file."""
    stem = name.removesuffix(".sum")
    return len(stem) == NAME_DIGITS and stem.isascii() and stem.isdecimal()


def changed_index_files(layout: StoreLayout) -> dict[Path, FileState]:
    """The index files that are not what was noted, oldest first."""
    paths = [layout.index / name for name in index_names(layout.index)]
    states = {path: judge_prefix(layout.checksums, path) for path in paths}
    return {
        path: state for path, state in states.items() if state not in (FileState.RIGHT, FileState.UNKNOWN)
    }


def gone_index_files(layout: StoreLayout) -> list[str]:
    """The names of index files that have a sum and are there no more, oldest first.

    Whoever removes a file for good forgets its sum before: these were taken away.
    """
    there = set(index_names(layout.index))
    summed = (path.name.removesuffix(".sum") for path in layout.checksums.glob("*.sum"))
    return sorted(name for name in summed if is_index_sum(name) and name not in there)


def drop_behind_gap(layout: StoreLayout) -> bool:
    """When an index file was taken away, remove the later ones, too: keys are only ever added behind the last
    one. True when there was such a gap. Recovery only.
    """
    gone = gone_index_files(layout)
    if not gone:
        return False
    log.event(_logger, logging.WARNING, "index_files_missing", first=gone[0], count=len(gone))
    for name in index_names(layout.index):
        if name > gone[0]:
            (layout.index / name).unlink()
            gone.append(name)
    faults.reach("index.gap_dropped")
    for name in reversed(gone):
        forget(layout.checksums, layout.index / name)
    faults.reach("index.gap_forgotten")
    return True
