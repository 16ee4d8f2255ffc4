"""The start of a store: decides how much has to be checked, and makes the control page true.

    EMPTY   no log: a new page of zeros. No numpy, may run in the supervisor itself
    FAST    every process died, the host lives: the kept page is true once crash repair has run; its
            unflushed part is checked record by record against log and ConsumeQueues
    CLEAN   the last run stopped cleanly: queue maxima are looked up, nothing is walked
    FULL    everything else: `full_recovery.py`

A kept page is used only when nobody else can have touched the store since: same boot of the host, same page
id as in `abort`, state OK, an empty journal, the right files. A page that is replaced is first RETIRED, so
that whoever still maps it opens again. `abort` and the identity are written before the store may change.

Runs under the store lock and LOCK_EX of `appenders.lock`, in a child of the supervisor, or inline when
`is_empty`. numpy is imported only when there is something to check. If it dies, the next start begins anew.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shmq.base import faults, log
from shmq.base.clock import monotonic_ms
from shmq.base.errors import ConfigFault, ShmqError, StoreDamaged
from shmq.base.runtime_dir import page_name
from shmq.model.settings import BrokerSettings
from shmq.shm.append_journal import AppendJournal
from shmq.shm.append_lock import unlink_semaphores
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.page_layout import FLUSHED_POSITION, MIN_OFFSET, VISIBLE_WORD, WRITE_POSITION
from shmq.shm.producer_table import ProducerTable
from shmq.store.changed_files import forget_sums, report_changed
from shmq.store.checkpoint import Checkpoint
from shmq.store.checksums import cut_back, remove_all_checksums
from shmq.store.config_tables import load_consumer_offsets, load_topics
from shmq.store.damage_table import DamageTable
from shmq.store.flush_repair import drop_queue_caches, rewrite_unflushed
from shmq.store.names import StoreLayout
from shmq.store.page_fill import fill_offsets, fill_positions, fill_queues, offsets_of, visible_word
from shmq.store.producer_file import restore_producers
from shmq.store.run_marks import LastRun, Marks, is_of_these_files, mark_running, read_marks

Progress = Callable[[int, int, int], None]

_logger = log.get(__name__)

faults.declare(
    {
        "recovery.began": "the marks are read, nothing was changed",
        "recovery.page_removed": "the old page is retired and has no name any more, no file was touched",
        "recovery.files_true": "log and ConsumeQueues are cut and synced, there is no page",
        "recovery.page_made": "the new page has its name and nothing in it",
        "recovery.page_filled": "the new page tells everything, the checkpoint is the old one",
        "recovery.page_chosen": "page and checkpoint are true, the marks tell of the run before",
        "recovery.marked": "the marks tell of this run, the page is still RECOVERING, or OK if it was kept",
    }
)


_WHY = {
    LastRun.NONE: "there is no store yet",
    LastRun.CLEAN: "the last run stopped cleanly",
    LastRun.CRASHED: "the last run was killed or its host went down, and no control page of it can be used",
    LastRun.FOREIGN: "another engine has written the store, or it comes from elsewhere",
}
"""Why a start recovers from the files."""


class RecoveryMode(enum.Enum):
    """How a start was done."""

    EMPTY = "empty"
    FAST = "fast"
    READ_ONLY = "read only"
    CLEAN = "clean"
    FULL = "full"


_WHY_KEPT = {
    RecoveryMode.FAST: "the control page of the last run was kept: what may not be on the disk was checked",
    RecoveryMode.READ_ONLY: "the disk refused in the last run and still does",
}
"""Why a start goes on with the page of the run before it."""


@dataclass(slots=True)
class RecoveryReport:
    """What a start found and did; `damaged` are (position, bytes) of the log that hold no sound record."""

    mode: RecoveryMode
    page_name: str
    why: str = ""
    page_id: int = 0
    min_offset: int = 0
    write_position: int = 0
    walked_from: int = 0
    records: int = 0
    units_written: int = 0
    bytes_cut: int = 0
    queues: int = 0
    offsets_clamped: int = 0
    rebuilt: bool = False
    damaged: list[tuple[int, int]] = field(default_factory=list)
    took_ms: int = 0


def is_empty(root: Path, settings: BrokerSettings) -> bool:
    """Whether there is no store yet: then `open_or_recover` is quick and needs no child process."""
    return read_marks(StoreLayout.of(root, settings)).last_run is LastRun.NONE


def open_or_recover(
    root: Path,
    settings: BrokerSettings,
    adopt: bool = False,
    *,
    owner_pid: int | None = None,
    progress: Progress | None = None,
) -> RecoveryReport:
    """Make the store at `root` and its control page ready for appenders.

    `adopt` opens a store that was never shmq's; without it that is a ConfigFault. One that was, and that
    another engine changed since, is recovered whole. `owner_pid` goes into `abort` (default: the parent, as
    this runs in its child). Crash repair has already been done on a kept page that is of these files. Raises
    StoreDamaged when the files cannot be a store of these settings, Unavailable when /dev/shm has no room.
    """
    began = monotonic_ms()
    layout = StoreLayout.of(root, settings)
    marks = read_marks(layout)
    if marks.last_run is LastRun.FOREIGN:
        if marks.identity is None and not adopt:
            raise ConfigFault(
                f"the store {root} was written by another engine (Apache RocketMQ?): shmq leaves it alone. "
                "Stop that engine and start once with --adopt to take the store over, or use another "
                "storePathRootDir"
            )
        log.event(_logger, logging.WARNING, "written_by_another_engine", store=root)
        forget_sums(layout)
    elif changed := report_changed(layout):
        from shmq.store.lost_topics import restore_topics

        restore_topics(layout, changed)
    layout.make_folders()
    faults.reach("recovery.began")
    _finish_damage(layout)
    name = page_name(root)
    kept = _attach_kept(name)
    report = (
        _fast(layout, settings, name, kept, marks)
        or _unwritable(layout, name, kept, marks)
        or _anew(layout, settings, name, kept, marks, progress)
    )
    report.why = _WHY_KEPT.get(report.mode, _WHY[marks.last_run])
    if report.rebuilt:
        report.why += "; no checkpoint, or queues that do not fit the log: all of it was read"
    if kept is not None:
        kept.close()
    page = ControlPage.attach(name)
    faults.reach("recovery.page_chosen")
    if report.mode is not RecoveryMode.READ_ONLY:
        mark_running(layout, os.getppid() if owner_pid is None else owner_pid, page)
        faults.reach("recovery.marked")
        page.state = PageState.OK
    report.page_id = page.page_id
    page.close()
    report.took_ms = monotonic_ms() - began
    log.event(
        _logger,
        logging.WARNING if report.damaged or report.bytes_cut else logging.INFO,
        "store_recovered",
        **{name: getattr(report, name) for name in RecoveryReport.__dataclass_fields__ if name != "damaged"},
        damaged=len(report.damaged),
    )
    return report


def _finish_damage(layout: StoreLayout) -> None:
    """Deal with damage that the last run had marked, or whose replacement a crash has cut short."""
    if not DamageTable(layout).pending:
        return
    from shmq.store.pending_damage import finish_pending

    try:
        finish_pending(layout)
    except OSError as error:  # what is marked is passed over by readers all the same
        log.event(_logger, logging.ERROR, "damage_left", error=error)


def _attach_kept(name: str) -> ControlPage | None:
    """The page of the last run, when there is one that this program can read."""
    with contextlib.suppress(ShmqError):
        return ControlPage.attach(name)
    return None


# ---- a kept page


def _fast(
    layout: StoreLayout, settings: BrokerSettings, name: str, kept: ControlPage | None, marks: Marks
) -> RecoveryReport | None:
    """Go on with the kept page when everything speaks for it, else None."""
    if kept is None or marks.last_run is not LastRun.CRASHED:
        return None
    usable = is_of_these_files(kept, layout, marks) and kept.state is PageState.OK
    fits = (
        kept.queue_slots == settings.queue_slots
        and kept.offset_slots == settings.offset_slots
        and kept.producer_slots == settings.producer_slots
    )
    if not (usable and fits and AppendJournal(kept).empty()):
        return None
    from shmq.store.fast_restart import page_agrees
    from shmq.store.index_restart import index_again

    began_at = min(kept.words[FLUSHED_POSITION], Checkpoint.load(layout.checkpoint).confirm_offset)
    if not page_agrees(layout, settings, load_topics(layout), kept, began_at):
        log.event(_logger, logging.WARNING, "kept_page_disagrees", checked_from=began_at)
        return None
    index_again(layout, settings, kept)
    kept.words[VISIBLE_WORD] = visible_word(settings)
    return RecoveryReport(
        RecoveryMode.FAST, name, write_position=kept.words[WRITE_POSITION], walked_from=began_at
    )


def _unwritable(
    layout: StoreLayout, name: str, kept: ControlPage | None, marks: Marks
) -> RecoveryReport | None:
    """After a failed fdatasync: bring what is only in memory to the disk; then None.

    When the disk still refuses, the kept page goes on as it is, for reading what is surely on the disk. Its
    marks stay those of the run that failed, so the next start tries again.
    """
    failed = kept is not None and kept.state in (PageState.FLUSH_FAILED, PageState.READ_ONLY)
    if kept is None or not failed or not is_of_these_files(kept, layout, marks):
        return None
    flushed, end = int(kept.words[FLUSHED_POSITION]), int(kept.words[WRITE_POSITION])
    try:
        rewrite_unflushed(layout, kept.page_id, flushed, end)
    except StoreDamaged as fault:
        log.event(_logger, logging.CRITICAL, "store_read_only", reason=fault, readable_below=flushed)
        kept.words[VISIBLE_WORD] = FLUSHED_POSITION
        kept.state = PageState.READ_ONLY
        return RecoveryReport(
            RecoveryMode.READ_ONLY, name, min_offset=int(kept.words[MIN_OFFSET]), write_position=flushed
        )
    drop_queue_caches(layout)
    return None


# ---- a new page


def _anew(
    layout: StoreLayout,
    settings: BrokerSettings,
    name: str,
    kept: ControlPage | None,
    marks: Marks,
    progress: Progress | None,
) -> RecoveryReport:
    """Recover from the files, then make and fill a new page."""
    current = kept if kept is not None and is_of_these_files(kept, layout, marks) else None
    known_flushed = int(current.words[FLUSHED_POSITION]) if current is not None else 0
    known_begin = int(current.words[MIN_OFFSET]) if current is not None else None
    offsets = load_consumer_offsets(layout)
    if current is not None and current.state is not PageState.RECOVERING:
        offsets.update(offsets_of(current))  # up to some seconds newer than the file
    if kept is not None:
        kept.retire()
    unlink_semaphores(name)
    ControlPage.unlink(name)
    faults.reach("recovery.page_removed")
    if marks.last_run is LastRun.NONE:
        page = _new_page(layout, settings, name)
        fill_positions(page, settings, low=0, end=0, indexed=0, last_store_time=0)
        page.close()
        return RecoveryReport(RecoveryMode.EMPTY, name)
    from shmq.store.full_recovery import FullRecovery
    from shmq.store.index_restart import indexed_position

    trusted = Checkpoint.load(layout.checkpoint).confirm_offset
    if marks.last_run is LastRun.FOREIGN:
        remove_all_checksums(layout)
    topics = load_topics(layout)
    found = FullRecovery(
        layout,
        settings,
        topics,
        marks,
        known_flushed=known_flushed,
        known_begin=known_begin,
        progress=progress,
    ).run()
    bounds = {(q.topic, q.queue_id): (q.minimum, q.maximum) for q in found.queues}
    faults.reach("recovery.files_true")
    page = _new_page(layout, settings, name)
    faults.reach("recovery.page_made")
    fill_queues(page, bounds, topics)
    clamped = fill_offsets(page, offsets, bounds, topics)
    fill_positions(
        page,
        settings,
        low=found.min_offset,
        end=found.write_position,
        indexed=indexed_position(layout, settings, marks, found.min_offset, found.write_position),
        last_store_time=found.last_store_time,
    )
    low, end = found.min_offset, found.write_position
    restore_producers(layout, ProducerTable(page), low, found.walked_from, end)
    page.close()
    faults.reach("recovery.page_filled")
    cut_back(layout, min(trusted, found.write_position), found.write_position)
    _save_checkpoint(layout, found.write_position, found.last_store_time)
    walked = found.rebuilt or found.records or marks.last_run is not LastRun.CLEAN
    return RecoveryReport(
        RecoveryMode.FULL if walked else RecoveryMode.CLEAN,
        name,
        min_offset=found.min_offset,
        write_position=found.write_position,
        walked_from=found.walked_from,
        records=found.records,
        units_written=found.units_written,
        bytes_cut=found.bytes_cut,
        queues=len(found.queues),
        offsets_clamped=clamped,
        rebuilt=found.rebuilt,
        damaged=found.damaged,
    )


def _new_page(layout: StoreLayout, settings: BrokerSettings, name: str) -> ControlPage:
    found = layout.root.stat()
    return ControlPage.create(
        name,
        queue_slots=settings.queue_slots,
        offset_slots=settings.offset_slots,
        producer_slots=settings.producer_slots,
        store_identity=(found.st_dev << 32 ^ found.st_ino) & (2**62 - 1),
    )


def _save_checkpoint(layout: StoreLayout, end: int, last_store_time: int) -> None:
    """Everything below `end` has just been synced: say so, for a start after the next power cut."""
    checkpoint = Checkpoint.load(layout.checkpoint)
    checkpoint.confirm_offset = end
    checkpoint.index_timestamp = max(0, min(checkpoint.index_timestamp, last_store_time))
    checkpoint.master_flushed_offset = max(0, min(checkpoint.master_flushed_offset, end))
    if last_store_time:
        checkpoint.physic_timestamp = checkpoint.logics_timestamp = last_store_time
    checkpoint.save(layout.checkpoint)
