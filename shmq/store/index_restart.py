"""Where the key index goes on after a start, and what of it must go first. Recovery only.

A file that is not full was never synced: after anything but a clean stop it may be torn, and is removed, as
in RocketMQ (Apache RocketMQ 5.3, IndexService.java: those newer than the checkpoint's index time), and so is
the newest one always: its last key may be of the same millisecond as that of the file before it. But where
RocketMQ then loses the keys of records outside the range it scans, the builder here goes on from the last key
of the files that stay, or from the log's first byte.
"""

from __future__ import annotations

import struct
from pathlib import Path

from shmq.base.errors import StoreDamaged
from shmq.base.file_sums import forget
from shmq.model.record import record_size
from shmq.model.settings import BrokerSettings
from shmq.shm.control_page import ControlPage
from shmq.shm.page_layout import INDEXED_POSITION, MIN_OFFSET
from shmq.store.checkpoint import Checkpoint
from shmq.store.commit_log import CommitLog
from shmq.store.index_file import IndexFile, index_names
from shmq.store.index_sums import drop_behind_gap, gone_index_files
from shmq.store.names import StoreLayout
from shmq.store.run_marks import LastRun, Marks


def indexed_position(layout: StoreLayout, settings: BrokerSettings, marks: Marks, low: int, end: int) -> int:
    """The position from which keys are missing; removes index files that cannot be trusted."""
    is_complete = not gone_index_files(layout)
    if not is_complete:
        _forget_note(layout, marks)
        drop_behind_gap(layout)
    names = index_names(layout.index)
    trusted_ms = Checkpoint.load(layout.checkpoint).index_timestamp
    clean = marks.last_run is LastRun.CLEAN or (
        marks.last_run is LastRun.FOREIGN and not layout.abort.exists()
    )
    last_key = -1
    for name in names:
        path = layout.index / name
        try:
            header = IndexFile(
                path, settings.max_hash_slot_num, settings.max_index_num, writable=False
            ).header()
        except (StoreDamaged, struct.error):
            _forget_note(layout, marks)
            _remove(layout, path)
            is_complete = False
            continue
        trusted = clean or (name != names[-1] and header.end_timestamp <= trusted_ms)
        trusted &= header.makes_sense(settings.max_hash_slot_num, settings.max_index_num)
        if header.end_physical_offset >= end or not trusted:
            _forget_note(layout, marks)
            _remove(layout, path)
            is_complete = False
        elif header.index_count > 1:
            last_key = max(last_key, header.end_physical_offset)
    if last_key < low:
        return low
    noted = marks.identity.indexed_position if marks.identity is not None and clean and is_complete else -1
    return min(end, noted) if noted > last_key else _behind(layout, last_key, low, end)


def index_again(layout: StoreLayout, settings: BrokerSettings, page: ControlPage) -> None:
    """On a kept page: have the keys made again from where index files were taken away.

    The page knows before the files go: after a crash in between it is done again.
    """
    gone = gone_index_files(layout)
    if not gone:
        return
    low, end = int(page.words[MIN_OFFSET]), int(page.words[INDEXED_POSITION])
    last_key = -1
    for name in index_names(layout.index):
        if name < gone[0]:
            path, slots, items = layout.index / name, settings.max_hash_slot_num, settings.max_index_num
            header = IndexFile(path, slots, items, writable=False).header()
            last_key = max(last_key, header.end_physical_offset)
    page.words[INDEXED_POSITION] = low if last_key < low else _behind(layout, last_key, low, end)
    drop_behind_gap(layout)


def _forget_note(layout: StoreLayout, marks: Marks) -> None:
    """Before index files go: up to where a clean stop had indexed counts with all of them only, and a crash
    must not bring that back."""
    if marks.identity is not None and marks.identity.indexed_position >= 0:
        marks.identity.indexed_position = -1
        marks.identity.save(layout)


def _remove(layout: StoreLayout, path: Path) -> None:
    """Remove an index file for good."""
    forget(layout.checksums, path)
    path.unlink()


def _behind(layout: StoreLayout, position: int, low: int, end: int) -> int:
    """The end of the record at `position`; the log's first byte when there is none."""
    record = CommitLog(layout, writable=False).record_at(position, low, end)
    return low if record is None else position + record_size(record)
