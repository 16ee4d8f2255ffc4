"""Every fault point of the broker, and how a test brings a real process there. Data only.

A row is (point, scene, passing): in that scene the so many-th passing of the point is a death. The scenes are
in `tests/process/test_fault_points.py`, which visits every row, and fails when a point that the package
declares is in no row.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Scene(Enum):
    """What goes on when the process dies."""

    APPENDERS = "two appender processes over one store; one dies inside a claim"
    LOAD = "a broker with producers, commits, topics made and deleted, keys, delays"
    SYNC = "the same with SYNC_FLUSH and zeroing"
    REPAIR_UNDOES = "the same; a worker died with its claim PREPARED; twice"
    REPAIR_APPLIES = "the same; a worker died with its claim COMMITTED; twice"
    FIRST_START = "the first start of a broker, twice"
    KEPT_PAGE = "a start after kill -9 of everything under load, twice"
    LOST_PAGE = "the same, and /dev/shm is empty, as after power loss; twice"
    STOP = "a clean stop after load"


USUAL = 25
"""The passing at which an appender dies."""
PLACES = 8
"""So many in a row are each place of a claim: an appender's turns have at most so many requests."""


class Row(NamedTuple):
    """One way to one point."""

    point: str
    scene: Scene
    passing: int = 1


def _rows(scene: Scene, *points: str | tuple[str, int]) -> list[Row]:
    named = [(point, 1) if isinstance(point, str) else point for point in points]
    return [Row(point, scene, passing) for point, passing in named]


ROWS = [
    *_rows(
        Scene.APPENDERS,
        ("append.before_acquire", 25),
        ("append.wanting", 25),
        ("append.semaphore_taken", 25),
        ("append.holding", 25),
        ("append.acquired", 25),
        ("claim.planned", 25),
        ("journal.entry_written", 25),
        ("journal.entries_written", 25),
        ("journal.prepared", 25),
        ("claim.half_filled", 25),
        ("claim.blank_written", 2),
        ("claim.bytes_written", 25),
        ("claim.unit_written", 25),
        ("claim.units_written", 25),
        ("journal.committed", 25),
        ("journal.position_stored", 25),
        ("journal.max_stored", 25),
        ("journal.maxima_stored", 25),
        ("journal.words_stored", 25),
        ("journal.emptied", 25),
        ("append.before_release", 25),
        ("append.released", 25),
        ("append.rung", 25),
        ("append.idle", 25),
    ),
    *(
        Row(point, Scene.APPENDERS, passing)
        for point in (
            "journal.entry_written",
            "claim.half_filled",
            "claim.unit_written",
            "journal.max_stored",
        )
        for passing in range(USUAL + 1, USUAL + PLACES)
    ),
    *_rows(
        Scene.LOAD,
        # workers
        ("worker.before_reply", 30),
        ("offset.stored", 3),
        # the coordinator
        ("topic.saved", 4),
        ("topic.made", 4),
        ("directory.queues_taken", 12),
        ("directory.offsets_taken", 2),
        ("directory.entry_written", 12),
        ("delete.before_claim", 2),
        ("delete.retired", 2),
        ("delete.saved", 2),
        ("delete.unlinked", 2),
        ("file.temp_written", 12),
        ("file.backup_kept", 12),
        ("file.renamed", 12),
        "index.file_made",
        ("index.items_written", 2),
        ("index.slots_written", 2),
        ("index.header_written", 2),
        ("delay.due", 2),
        "producer.row_ended",
        # the supervisor
        ("flush.before_sync", 2),
        ("flush.synced", 2),
        ("flush.locked", 2),
        ("checksums.written", 2),
        ("checkpoint.queues_synced", 2),
        ("checkpoint.written", 2),
        ("segment.allocated", 2),
        ("segment.named", 2),
    ),
    *_rows(
        Scene.SYNC,
        ("worker.flushed", 20),
        ("flush.before_sync", 20),
        ("flush.synced", 20),
        ("turn_flush.before_sync", 10),
        ("turn_flush.synced", 10),
        ("turn_flush.locked", 10),
        ("turn_flush.published", 10),
        ("segment.zeroed", 6),  # the first few are on the way up
    ),
    *_rows(
        Scene.REPAIR_UNDOES,
        "repair.quiesced",
        "repair.still",
        "repair.log_zeroed",
        "repair.units_zeroed",
        "repair.journal_emptied",
        "repair.slots_cleared",
        "repair.semaphore_drained",
        "repair.semaphore_free",
        "repair.resumed",
    ),
    *_rows(Scene.REPAIR_APPLIES, "repair.applied"),
    *_rows(
        Scene.FIRST_START,
        "start.locked_out",
        "recovery.began",
        "recovery.page_removed",
        "recovery.page_chosen",
        "file.temp_written",
        "file.renamed",
        "recovery.abort_written",
        "recovery.identity_written",
        "recovery.marked",
        "start.recovered",
        "tree.spawned",
        "tree.slot_filled",
        "child.before_go",
        "child.may_append",
    ),
    *_rows(
        Scene.KEPT_PAGE,
        "start.locked_out",
        "repair.still",
        "start.repaired",
        "recovery.began",
        "recovery.page_chosen",
        "recovery.abort_written",
        "recovery.marked",
        "start.recovered",
        "tree.slot_filled",
    ),
    *_rows(
        Scene.LOST_PAGE,
        "recovery.began",
        "recovery.page_removed",
        "recovery.walked",
        "recovery.segment_gone",
        "recovery.log_zeroed",
        "recovery.log_cut",
        "recovery.queue_cut",
        "recovery.files_true",
        "recovery.page_made",
        "recovery.page_filled",
        "checkpoint.written",
        "recovery.page_chosen",
        "recovery.abort_written",
        "recovery.identity_written",
        "recovery.marked",
    ),
    *_rows(
        Scene.STOP,
        "checkpoint.queues_synced",
        "stop.identity_written",
        "stop.abort_removed",
        "stop.page_retired",
    ),
]

DEFECTS = {"flush.acknowledge_early", "child.outlives_parent"}
"""Points that are no windows but defects to be switched on, to show that a test notices."""

RETENTION = "tests/process/test_retention.py"
TIMERS = "tests/process/test_timers.py"
QUARANTINE = "tests/unit/store/test_quarantine.py"
DAMAGE = "tests/process/test_damage.py"
RECOVERY = "tests/unit/store/test_recovery.py"
GARBAGE = "tests/unit/store/test_garbage.py"

ELSEWHERE: dict[str, str] = {
    "retention.min_stored": RETENTION,
    "retention.queue_min_stored": RETENTION,
    "retention.minima_stored": RETENTION,
    "retention.unlinked": RETENTION,
    "retention.folder_synced": RETENTION,
    "retention.queue_file_unlinked": RETENTION,
    "retention.index_file_unlinked": RETENTION,
    "transaction.ending": "tests/process/test_transaction_deaths.py",
    "transaction.ended": "tests/process/test_transaction_deaths.py",
    "transaction.putting_back": "tests/process/test_transaction_deaths.py",
    "transaction.put_back": "tests/process/test_transaction_deaths.py",
    "timer.taken": TIMERS,
    "timer.due": TIMERS,
    "timer.fired": TIMERS,
    "timer.moving": TIMERS,
    "timer.moved": TIMERS,
    "doubt.taken": DAMAGE,
    "doubt.noted": DAMAGE,
    "index.gap_dropped": GARBAGE,
    "index.gap_forgotten": GARBAGE,
    "unflushed.copied": RECOVERY,
    "unflushed.dropped": RECOVERY,
    "unflushed.written": RECOVERY,
    "unflushed.compared": RECOVERY,
    "quarantine.kept": QUARANTINE,
    "quarantine.noted": QUARANTINE,
    "quarantine.written": QUARANTINE,
    "quarantine.summed": QUARANTINE,
}
"""Points whose windows need a scene of their own: the file whose tests kill a process there."""
