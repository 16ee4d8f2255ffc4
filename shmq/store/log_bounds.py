"""The log's first and last file against what else is known of it: are segments missing, or cut?

A log may end earlier than what was written to it, never earlier than what was flushed: that was acknowledged.
The checkpoint, the note of a clean stop and the side files of the segments (`checksums.py`) each say how far
that is, independently of the segments. What is missing below is no torn tail, and a start that went on would
give its physical offsets and queue offsets to other messages: it is refused, until the files are back or
`storeRepair` has put something in their place. A log that begins later than it did has lost its oldest
messages as by retention, so that is told, and the rest served.

Recovery, check and repair; reads only. No numpy here.
"""

from __future__ import annotations

import logging

from shmq.base import log
from shmq.base.errors import StoreDamaged
from shmq.base.file_sums import FileState, judge
from shmq.store.checkpoint import FIELDS_BYTES, Checkpoint
from shmq.store.checksums import summed_end
from shmq.store.names import StoreLayout
from shmq.store.run_marks import Identity, LastRun, Marks

_MENDS = "shmq-admin storeRepair lets records stand in for the messages that were in it"

_logger = log.get(__name__)


def flushed_end(layout: StoreLayout, marks: Marks) -> int:
    """Up to where the log was on the disk, whatever is there now; 0 when nothing is known.

    Nothing is known of what another engine wrote or cut.
    """
    if marks.last_run is LastRun.FOREIGN:
        return 0
    ends = [summed_end(layout) or 0]
    if judge(layout.checksums, layout.checkpoint, FIELDS_BYTES) is FileState.RIGHT:
        ends.append(Checkpoint.load(layout.checkpoint).confirm_offset)
    if marks.last_run is LastRun.CLEAN and marks.identity is not None:
        ends.append(marks.identity.write_position)
    return max(ends)


def check_segments(layout: StoreLayout, flushed: int = 0) -> list[int]:
    """The starts of the log's segments. An empty last file is removed, as RocketMQ does.

    StoreDamaged when a file has another size than `mappedFileSizeCommitLog`, when one is missing in between,
    or when the last one ends below `flushed`.
    """
    starts = layout.segments()
    while starts and not layout.segment_path(starts[-1]).stat().st_size:
        layout.segment_path(starts.pop()).unlink()
    sizes = {start: layout.segment_path(start).stat().st_size for start in starts}
    wrong = [start for start in starts if sizes[start] != layout.segment_bytes]
    noted = Identity.load(layout) if wrong else None
    if wrong and (len(wrong) < len(starts) or (noted and noted.segment_bytes == layout.segment_bytes)):
        raise StoreDamaged(
            f"{layout.segment_path(wrong[0])} has {sizes[wrong[0]]} bytes instead of {layout.segment_bytes}: "
            f"it was cut. Put it back as it was; if that cannot be done, {_MENDS}"
        )
    if wrong:
        raise StoreDamaged(
            f"{layout.segment_path(wrong[0])} has {sizes[wrong[0]]} bytes, but mappedFileSizeCommitLog is "
            f"{layout.segment_bytes}: start with the size the store was made with"
        )
    for n, start in enumerate(starts):
        if start != starts[0] + n * layout.segment_bytes:
            raise StoreDamaged(
                f"{layout.commit_log}: the segment before {start} is missing. Put it back; if that cannot be "
                f"done, {_MENDS}"
            )
    end = starts[-1] + layout.segment_bytes if starts else 0
    if not starts and flushed:
        raise StoreDamaged(
            f"{layout.commit_log} holds no segment, but the log was on the disk up to {flushed}: is its "
            "disk mounted? Put the files back; if they are lost, shmq-admin storeRepair puts aside what is "
            "left of the store, and an empty log begins"
        )
    if end < flushed:
        raise StoreDamaged(
            f"{layout.commit_log} ends at {end}, but was on the disk up to {flushed}: its newest segments "
            f"are missing. Put them back; if that cannot be done, {_MENDS}"
        )
    return starts


def tell_of_lost_begin(begin: int, known: int) -> None:
    """Say so when the log, which begins at `begin`, is known to have begun earlier."""
    if known < begin:
        log.event(_logger, logging.CRITICAL, "log_begins_later", begins_at=begin, began_at=known)
