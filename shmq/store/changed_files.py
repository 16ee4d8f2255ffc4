"""The store's small files against their sums (`base/file_sums.py`): tables, offsets, checkpoint, identity.

Used by recovery, before it believes them, and by the check. No numpy here.
"""

from __future__ import annotations

import logging
from pathlib import Path

from shmq.base import log
from shmq.base.file_sums import FileState, judge, sum_path
from shmq.store.aside import keep_aside
from shmq.store.checkpoint import FIELDS_BYTES
from shmq.store.index_sums import is_index_sum
from shmq.store.names import StoreLayout

_logger = log.get(__name__)


def changed_files(layout: StoreLayout) -> dict[Path, FileState]:
    """The files that are not what was written last, and what is wrong with each."""
    found = {path: judge(layout.checksums, path, length) for path, length in _summed(layout)}
    return {path: state for path, state in found.items() if state not in (FileState.RIGHT, FileState.UNKNOWN)}


def _summed(layout: StoreLayout) -> list[tuple[Path, int | None]]:
    """The files that have a sum, with how many bytes of each count (None: all)."""
    files: list[tuple[Path, int | None]] = [(layout.checkpoint, FIELDS_BYTES), (layout.identity, None)]
    fixed = {sum_path(layout.checksums, path).name for path, _ in files}
    names = sorted(path.name for path in layout.checksums.glob("*.sum"))
    names = [name for name in names if name not in fixed and not is_index_sum(name)]
    files += [(layout.config / name.removesuffix(".sum"), None) for name in names]
    return files


def report_changed(layout: StoreLayout) -> list[Path]:
    """Tell of every changed file, and put a checkpoint aside that nobody wrote.

    Nothing in it can be believed. Everything else is used as it is: it may have been edited. Of a file that
    is gone there is its backup at best; topics are found again by their ConsumeQueues. Recovery only, under
    the store lock.
    """
    changed = changed_files(layout)
    for path, state in changed.items():
        if state is FileState.MISSING:
            backup = path.with_name(path.name + ".bak")
            instead = backup.name if backup.exists() else "nothing"
            log.event(_logger, logging.CRITICAL, "file_missing", file=path, instead=instead)
        else:
            log.event(_logger, logging.WARNING, "file_changed", file=path, reason=state.value)
    if changed.get(layout.checkpoint) is FileState.CHANGED and layout.checkpoint.exists():
        keep_aside(layout, layout.checkpoint.name, layout.checkpoint.read_bytes())
        layout.checkpoint.unlink()
    return list(changed)


def forget_sums(layout: StoreLayout) -> None:
    """Remove all sums of small files: another engine writes none, so its content would look changed."""
    for path in layout.checksums.glob("*.sum"):
        path.unlink()
