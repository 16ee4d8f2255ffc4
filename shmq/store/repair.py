"""storeRepair: make a stopped store whole again, as far as it can be, and keep what was replaced.

    what the check finds        what is done
    segment                     one that was cut, or is missing between others, is filled with zeros: damage
    record                      one changed byte is put back; anything else is replaced (`quarantine.py`)
    unit, queue offset, files   units are written anew from the log
    table                       a checkpoint or identity gets its one changed byte back; a table is taken as
                                it is when it can be read, else from its backup
    index                       the file and all later ones go; the next start builds them anew
    checksums                   what the side files do not say any more is summed anew

Anything else (positions, what a crash left behind the log's end) is the next start's business: recovery.
Under the store lock and the appenders' lock, so never beside a broker. If it dies, it can be run again.
Numpy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from shmq.base.clock import now_ms
from shmq.base.errors import Unavailable
from shmq.base.file_sums import FileState, announce, forget, last_sum
from shmq.base.files import SharedFileLock, StoreLock, write_durably
from shmq.model.delay import delay_levels
from shmq.model.record import parse_record
from shmq.model.unit import UNIT_BYTES
from shmq.protocol import fastjson
from shmq.store.aside import keep_aside
from shmq.store.changed_files import changed_files
from shmq.store.check import DEFAULT_DELAY_LEVELS, Finding
from shmq.store.checkpoint import FIELDS_BYTES, Checkpoint
from shmq.store.checksum_check import Piece, SegmentChecksums, changed_byte
from shmq.store.checksums import PIECE_BYTES, entry_of, summed_end
from shmq.store.config_tables import load_topics
from shmq.store.index_file import index_names
from shmq.store.index_sums import changed_index_files, drop_behind_gap
from shmq.store.log_bounds import flushed_end
from shmq.store.log_walk import LogWalk
from shmq.store.mapped_file import MappedFile
from shmq.store.names import StoreLayout
from shmq.store.pending_damage import finish_pending
from shmq.store.quarantine import Quarantine
from shmq.store.queue_repair import QueueRepair, find_queues
from shmq.store.queue_set import QueueSet
from shmq.store.run_marks import Identity, LastRun, read_marks
from shmq.store.sparse_files import sync_path, sync_paths
from shmq.store.store_view import layout_of

ACTIONS = {
    "segment": "fill it up, or make one, with zeros; for each message that is lost a record stands in "
    "(all gone: put aside what is left, for an empty log)",
    "record": "keep its bytes aside; put back the one byte that changed, or let a record stand in for it",
    "unit": "write it anew from the log",
    "queue offset": "number its queue's units by the log",
    "queue files": "make them anew from the log",
    "table": "take it as it is if it can be read, else put back what was there",
    "checkpoint": "put back what was there, if its sum tells",
    "index": "remove it and the later ones; the next start builds them anew",
    "checksums": "sum the log anew there",
}
"""What is done about a finding of each rule; the others are left to the next start."""


def action_for(finding: Finding) -> str:
    """What a repair does about a finding, in a few words."""
    return ACTIONS.get(finding.rule, "nothing: the next start recovers")


def repair_store(root: Path, *, levels: str = DEFAULT_DELAY_LEVELS) -> None:
    """Repair the store at `root`, which the caller has `alone`. OSError when the disk refuses."""
    layout = layout_of(root)
    _mend_tables(layout)
    if _give_up_log(layout):
        return
    _fill_segments(layout)
    finish_pending(layout)
    _mend_log_and_queues(layout, levels)
    _drop_index(layout)
    for start in layout.segments():
        _sum_gaps(layout, start)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold both locks of the store at `root`; Unavailable while a broker has it."""
    layout = layout_of(root)
    lock, appenders = StoreLock(layout.lock), SharedFileLock(layout.appenders_lock)
    try:
        lock.acquire()
        if not appenders.exclusive(nonblocking=True):
            raise Unavailable(f"processes of a broker still append to {layout.root}: stop them first")
        yield
    finally:
        appenders.release()
        lock.release()


# ---- small files


def _mend_tables(layout: StoreLayout) -> None:
    for path, state in changed_files(layout).items():
        content = path.read_bytes() if path.exists() else b""
        own = path in (layout.checkpoint, layout.identity)
        if state in (FileState.CHANGED, FileState.MISSING) and (own or not _is_table(content)):
            _put_back(layout, path, content)
        elif state is FileState.SUM_DAMAGED:
            announce(layout.checksums, path, content[:FIELDS_BYTES] if path == layout.checkpoint else content)
        elif _is_table(content):
            announce(layout.checksums, path, content)


def _put_back(layout: StoreLayout, path: Path, content: bytes) -> None:
    """Undo what happened to a file: by its sum when one byte changed, else from its backup."""
    head, rest = content, b""
    if path == layout.checkpoint:
        head, rest = content[:FIELDS_BYTES], content[FIELDS_BYTES:]
    mended: bytes | None = None
    noted = last_sum(layout.checksums, path)
    if noted is not None and noted[1] == len(head):
        change = changed_byte(Piece(0, len(head), noted[0]), head)
        if change is not None:
            mended = head[: change.position] + bytes([change.was]) + head[change.position + 1 :] + rest
    backup = path.with_name(path.name + ".bak")
    if mended is None and path.parent == layout.config and backup.exists():
        mended = backup.read_bytes() if _is_table(backup.read_bytes()) else None
        if mended is not None:
            announce(layout.checksums, path, mended)
    if mended is not None:
        if content:
            keep_aside(layout, path.name, content)
        write_durably(path, mended, backup=False)
    elif not path.exists():
        forget(layout.checksums, path)


def _is_table(content: bytes) -> bool:
    """Whether a content is a JSON object."""
    try:
        return isinstance(fastjson.loads(content), dict)
    except ValueError:
        return False


# ---- log and queues


def _give_up_log(layout: StoreLayout) -> bool:
    """When all segments are lost, put aside what speaks of them, so that the next start begins an empty log.

    The tables stay.
    """
    if layout.segments() or not flushed_end(layout, read_marks(layout)):
        return False
    aside = layout.quarantine / f"log-lost-{now_ms()}"
    aside.mkdir(parents=True)
    gone = (layout.consume_queue, layout.index, layout.checksums, layout.checkpoint, layout.producers)
    timers = (layout.timer_wheel, layout.timer_log)
    for path in (*gone, *timers, layout.abort, layout.identity):  # what judges the store goes last
        if path.exists():
            path.rename(aside / path.name)
    for folder in (aside, layout.quarantine, layout.identity.parent, layout.root):
        sync_path(folder)
    return True


def _fill_segments(layout: StoreLayout) -> None:
    """Give the log its full length again: zeros stand where a segment was cut or is missing."""
    starts = layout.segments()
    filled = False
    end = max(flushed_end(layout, read_marks(layout)), starts[-1] + 1 if starts else 0)
    for start in range(starts[0], end, layout.segment_bytes) if starts else ():
        fd = os.open(layout.segment_path(start), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(fd).st_size < layout.segment_bytes:
                os.posix_fallocate(fd, 0, layout.segment_bytes)
                os.fsync(fd)
                filled = True
        finally:
            os.close(fd)
    if filled:
        sync_path(layout.commit_log)


def _mend_log_and_queues(layout: StoreLayout, levels: str) -> None:
    """Walk the whole log, replace what is damaged in it, and make all units what it says."""
    starts = layout.segments()
    if not starts:
        return
    marks = read_marks(layout)
    end: int | None = None
    if marks.last_run is LastRun.CLEAN and marks.identity is not None:
        end = marks.identity.write_position
    known = max(Checkpoint.load(layout.checkpoint).confirm_offset, summed_end(layout) or 0, starts[0])
    _drop_headless(layout, delay_levels(levels), known if end is None else end)
    queues = QueueSet(layout, load_topics(layout), delay_levels(levels), own=True)
    queues.load(starts[0])
    walk = LogWalk(
        layout,
        queues,
        known if end is None else end,
        rebuilding=True,
        stop=end,
        check_all=True,
        mend=Quarantine(layout, "repair").replace,
    )
    walk.run(starts[0])
    unsynced: list[Path] = []
    for index, queue in enumerate(queues.queues):
        if end is not None:
            queue.cut(queues.maximum(index))
        unsynced += queue.unsynced()
    sync_paths(unsynced, layout.root)


def _drop_headless(layout: StoreLayout, levels: list[int], end: int) -> None:
    """Remove the files of queues that lost their first one, though the log still has its messages.

    The walk then makes all of them anew; while later files are there it takes the queue's begin from them.
    """
    queues = [QueueRepair(layout, topic, queue_id) for topic, queue_id in find_queues(layout)]
    headless = {(q.topic, q.queue_id): q for q in queues if q.load() and q.starts and q.starts[0] > 0}
    if not headless:
        return
    seen = QueueSet(layout, load_topics(layout), levels, own=True, on_difference=lambda *_: None)
    low = layout.segments()[0]
    seen.load(low)
    walk = LogWalk(layout, seen, end, rebuilding=True, stop=end)
    walk.run(low)
    for position in walk.misnumbered:
        start = layout.segment_start(position)
        segment = MappedFile(layout.segment_path(start), start, layout.segment_bytes, writable=False)
        fields = parse_record(segment.view, position - start)
        topic = str(segment.view[fields.topic_at : fields.topic_at + fields.topic_length], "utf-8", "replace")
        queue = headless.get((topic, fields.queue_id))
        if queue is not None and queue.starts and fields.queue_offset * UNIT_BYTES < queue.starts[0]:
            queue.remove()


def _drop_index(layout: StoreLayout) -> None:
    """Remove the first changed index file and what was built behind it; have the next start go on there."""
    was_gap = drop_behind_gap(layout)
    changed = changed_index_files(layout)
    if not changed and not was_gap:
        return
    identity = Identity.load(layout)
    if identity is not None and not identity.running:
        identity.indexed_position = -1
        identity.save(layout)
    for name in index_names(layout.index):
        path = layout.index / name
        if changed and name >= min(changed).name:
            path.unlink()
            forget(layout.checksums, path)
    sync_path(layout.index)


# ---- side files


def _sum_gaps(layout: StoreLayout, start: int) -> None:
    """Write a side file anew when it is broken or has gaps; what it still says is kept."""
    path = layout.checksum_path(start)
    sums = SegmentChecksums.load(layout, start)
    raw = path.read_bytes() if path.exists() else b""
    ends_of = dict(zip(sums.starts.tolist(), sums.ends.tolist(), strict=True))
    gaps = [(a, b) for a, b in pairwise(_edges(layout, start, ends_of)) if a not in ends_of]
    if not sums.broken and not gaps:
        return
    keep_aside(layout, f"{path.name}.checksums", raw)
    whole = [raw[at : at + 20] for at in range(0, len(raw) // 20 * 20, 20) if at not in sums.broken]
    rows = {int.from_bytes(entry[:8], "big"): entry for entry in whole}
    with open(layout.segment_path(start), "rb") as segment:
        for first, last in gaps:
            for at in _cuts(first, last):
                segment.seek(at - start)
                rows[at] = entry_of(at, segment.read(min(last, at - at % PIECE_BYTES + PIECE_BYTES) - at))
    write_durably(path, b"".join(rows[at] for at in sorted(rows)), backup=False)


def _edges(layout: StoreLayout, start: int, ends_of: dict[int, int]) -> list[int]:
    """Where pieces of a segment begin and end, with the segment's own ends where its neighbours have sums."""
    edges = {*ends_of, *ends_of.values()}
    names = {int(path.name) for path in layout.checksums.iterdir() if path.name.isdecimal()}
    if any(name < start for name in names):
        edges.add(start)
    if any(name > start for name in names):
        edges.add(start + layout.segment_bytes)
    marks = read_marks(layout)
    if marks.last_run is LastRun.CLEAN and marks.identity is not None and edges | names:
        edges.add(min(max(marks.identity.write_position, start), start + layout.segment_bytes))
    return sorted(edges)


def _cuts(first: int, last: int) -> list[int]:
    """Where the pieces of a gap begin."""
    return [first, *range(first - first % PIECE_BYTES + PIECE_BYTES, last, PIECE_BYTES)]
