"""Who ran on a store last, and how that run ended: the files `abort` and `shmq/identity.json`.

    abort           exists while a broker runs. shmq writes `<pid> <page id>`, Apache RocketMQ only `<pid>`
                    (DefaultMessageStore.java); whoever ends cleanly removes it
    identity.json   shmq's own note: {"engine", "page_id", "running", "checkpoint", "write_position", ...}

Together they answer two questions at a start. Was the last run shmq's? Yes, when `abort` has our form. Else
no, when there is no identity or another `abort`, when the note says "running" but `abort` is gone, or when
the checkpoint is not the one the last clean stop wrote. Did it end cleanly? Yes, when `abort` is absent.
Order of writing: start: abort, then identity "running"; clean stop: identity "stopped", then abort removed.
So a crash between two writes reads as a crash of ours.

A third question is whether a kept control page speaks of these very files. An older backup of the same run
has the same marks as the page, but not their inodes and change times, which nobody can set: the page keeps
both as RUN_STAMP, and the inode of the newest segment. A page that differs is not believed in anything, not
even repaired: what its journal would undo may be a record that another engine wrote since.

Written by recovery and by the supervisor's clean stop, under the store lock. No numpy here.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json
from dataclasses import asdict, dataclass

from shmq.base import faults
from shmq.base.file_sums import FileState, announce, judge
from shmq.base.files import fsync_folder, write_durably
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView
from shmq.shm.page_layout import (
    INDEXED_POSITION,
    LAST_STORE_TIME,
    MIN_OFFSET,
    RUN_STAMP,
    SEGMENT_INODE,
    WRITE_POSITION,
)
from shmq.shm.queue_table import QueueTable
from shmq.store.checkpoint import FIELDS_BYTES, Checkpoint
from shmq.store.config_tables import load_topics
from shmq.store.names import StoreLayout

ENGINE = "shmq"

faults.declare(
    {
        "recovery.abort_written": "abort names this run, identity.json the one before it",
        "recovery.identity_written": "both marks name this run, the page does not know them yet",
        "stop.identity_written": "identity.json says how the run ended, abort is still there",
        "stop.abort_removed": "abort is gone, perhaps not durably; the page is still there",
    }
)


class LastRun(enum.Enum):
    """What the marks say about the run before this one."""

    NONE = "none"
    """There is no store yet."""
    CLEAN = "clean"
    """shmq stopped and everything is on the disk."""
    CRASHED = "crashed"
    """shmq died."""
    FOREIGN = "foreign"
    """Another engine wrote here, or the store came from elsewhere."""


@dataclass(slots=True)
class Identity:
    """shmq's note. Positions are those of the clean stop, -1 while running."""

    engine: str = ENGINE
    page_id: int = 0
    running: bool = False
    checkpoint: str = ""
    write_position: int = -1
    indexed_position: int = -1
    last_store_time: int = 0
    units: int = 0
    min_offset: int = -1
    minima: int = 0
    segment_bytes: int = 0

    @classmethod
    def of_stop(cls, layout: StoreLayout, page: ControlPage) -> Identity:
        """The note of a clean stop, from the page as the last appender left it.

        `units` and `minima` are the sums of the maxima and minima of all queues that were ever written to,
        `min_offset` is where the log begins: by them the next start sees whether files were taken away.
        """
        words, table, directory, topics = (
            page.words,
            QueueTable(page),
            DirectoryView(page),
            load_topics(layout),
        )
        queues = [queue for topic in directory.topics() for queue in directory.queues(topic)]
        used = [q for q in queues if table.max(q.slot) > topics.low(q.topic, q.queue_id)]
        return cls(
            page_id=page.page_id,
            write_position=words[WRITE_POSITION],
            indexed_position=words[INDEXED_POSITION],
            last_store_time=words[LAST_STORE_TIME],
            units=sum(table.max(q.slot) for q in used),
            min_offset=words[MIN_OFFSET],
            minima=sum(table.min(q.slot) for q in used),
            segment_bytes=layout.segment_bytes,
        )

    @classmethod
    def load(cls, layout: StoreLayout) -> Identity | None:
        """Read it; None when it is missing or not ours."""
        try:
            found = json.loads(layout.identity.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(found, dict) or found.get("engine") != ENGINE:
            return None
        known = {key: value for key, value in found.items() if key in cls.__dataclass_fields__}
        return cls(**known)

    def save(self, layout: StoreLayout) -> None:
        """Write it durably."""
        layout.identity.parent.mkdir(parents=True, exist_ok=True)
        data = json.dumps(asdict(self)).encode()
        announce(layout.checksums, layout.identity, data)
        write_durably(layout.identity, data, backup=False)


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks as found.

    `abort_page_id` is the page of the run that `abort` tells of, 0 when it tells of none.
    """

    last_run: LastRun
    identity: Identity | None
    abort_page_id: int


def read_marks(layout: StoreLayout) -> Marks:
    """Judge the run before this one."""
    identity = Identity.load(layout)
    try:
        abort: list[str] | None = layout.abort.read_text().split()
    except FileNotFoundError:
        abort = None
    if not layout.segments() and abort is None and identity is None:
        return Marks(LastRun.NONE, None, 0)
    page_id = int(abort[1]) if abort is not None and len(abort) == 2 and abort[1].isdecimal() else 0
    if _is_lost(layout) and (page_id or abort is None):
        return Marks(LastRun.CRASHED, Identity(), 0)  # ours, but nothing it says can be believed
    if page_id:
        return Marks(LastRun.CRASHED, identity, page_id)
    if identity is None or abort is not None:
        return Marks(LastRun.FOREIGN, identity, 0)
    same = Checkpoint.load(layout.checkpoint).encode().hex() == identity.checkpoint
    return Marks(LastRun.CLEAN if same and not identity.running else LastRun.FOREIGN, identity, 0)


def _is_lost(layout: StoreLayout) -> bool:
    """Whether our note was damaged or taken away, but nobody else has written the store since: another engine
    would have changed the checkpoint."""
    state = judge(layout.checksums, layout.identity)
    if state is FileState.MISSING:
        return judge(layout.checksums, layout.checkpoint, FIELDS_BYTES) is FileState.RIGHT
    return state is FileState.CHANGED


def mark_running(layout: StoreLayout, pid: int, page: ControlPage) -> None:
    """Note that `pid` runs on the page from now on. Before the first mutation of the store."""
    write_durably(layout.abort, f"{pid} {page.page_id}".encode(), backup=False)
    faults.reach("recovery.abort_written")
    Identity(page_id=page.page_id, running=True, segment_bytes=layout.segment_bytes).save(layout)
    faults.reach("recovery.identity_written")
    page.words[RUN_STAMP] = _stamp_of(layout)


def is_of_these_files(page: ControlPage, layout: StoreLayout, marks: Marks) -> bool:
    """Whether a kept page is that of the run the marks tell of, on these files and since this boot."""
    words = page.words
    return (
        page.same_boot
        and page.page_id == marks.abort_page_id
        and words[RUN_STAMP] == _stamp_of(layout)
        and words[SEGMENT_INODE] in _newest_inodes(layout)
    )


def _stamp_of(layout: StoreLayout) -> int:
    """The marks' inodes and change times as 63 bits; 0 when one is missing."""
    try:
        found = [path.stat() for path in (layout.abort, layout.identity)]
    except FileNotFoundError:
        return 0
    text = " ".join(f"{one.st_dev} {one.st_ino} {one.st_ctime_ns}" for one in found)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def _newest_inodes(layout: StoreLayout) -> list[int]:
    """What SEGMENT_INODE may be: none yet, the newest segment, or the one before it.

    The allocator stores it after the segment has its name, and may have died in between.
    """
    return [0, *(layout.segment_path(start).stat().st_ino for start in layout.segments()[-2:])]


def mark_stopped(layout: StoreLayout, identity: Identity) -> None:
    """Note a clean stop: everything below `identity.write_position` is on the disk. Removes `abort` last."""
    identity.running = False
    identity.checkpoint = Checkpoint.load(layout.checkpoint).encode().hex()
    identity.save(layout)
    faults.reach("stop.identity_written")
    with contextlib.suppress(FileNotFoundError):
        layout.abort.unlink()
    faults.reach("stop.abort_removed")
    fsync_folder(layout.root)
