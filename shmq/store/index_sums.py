"""Sums of index files: of full ones when they are synced, of the newest one while no broker runs.

Kept like those of other files (`base/file_sums.py`), of as many bytes as are in use. A file that is being
filled has none: after anything but a clean stop it is built anew. No numpy here.
"""

from __future__ import annotations

from pathlib import Path

from shmq.base.file_sums import FileState, judge_prefix, note_prefix, sum_path
from shmq.store.index_file import HEADER, ITEM, NAME_DIGITS, SLOT_BYTES, IndexHeader, index_names
from shmq.store.names import StoreLayout


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


def forget_gone(layout: StoreLayout) -> None:
    """Remove the sums of index files that are there no more."""
    there = {sum_path(layout.checksums, layout.index / name).name for name in index_names(layout.index)}
    for path in layout.checksums.glob("*.sum"):
        if is_index_sum(path.name) and path.name not in there:
            path.unlink(missing_ok=True)
