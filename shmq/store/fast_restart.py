"""Whether a kept control page still tells the truth: the check before a fast restart. Recovery child, numpy.

From the older of flushed position and checkpoint up to `write_position` every record must be sound, carry its
queue's next number, and have the unit that says so, and every queue must end at its maximum. What lies below
is on the disk and was true when it got there. Nothing is written.
"""

from __future__ import annotations

from shmq.base.errors import StoreDamaged
from shmq.model.delay import delay_levels
from shmq.model.settings import BrokerSettings
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView
from shmq.shm.page_layout import MIN_OFFSET, WRITE_POSITION
from shmq.shm.queue_table import QueueTable
from shmq.store.checksum_check import SegmentChecksums
from shmq.store.config_tables import TopicTable
from shmq.store.copied_segment import map_segment
from shmq.store.log_bounds import check_segments
from shmq.store.log_walk import LogWalk
from shmq.store.names import StoreLayout
from shmq.store.queue_repair import QueueRepair
from shmq.store.queue_set import QueueSet, UnitsMissing


def page_agrees(
    layout: StoreLayout, settings: BrokerSettings, topics: TopicTable, page: ControlPage, begin: int
) -> bool:
    """Check `[begin, write_position)` and all maxima against the files.

    False when anything is not as it must be.
    """
    end = int(page.words[WRITE_POSITION])
    try:
        starts = check_segments(layout)
        if end > (starts[-1] + layout.segment_bytes if starts else 0):
            return False
        if starts and page.words[MIN_OFFSET] < starts[0]:
            return False
        queues = QueueSet(
            layout, topics, delay_levels(settings.message_delay_level), own=True, on_difference=_differs
        )
        if not queues.load(begin):
            return False
        if not _sums_agree(layout, begin, end):
            return False
        walk = LogWalk(layout, queues, begin, rebuilding=False, check_bodies=settings.check_crc_on_recover)
        return walk.run(begin) == end and _queues_agree(queues, page)
    except (FileNotFoundError, StoreDamaged, UnitsMissing):
        return False


def _sums_agree(layout: StoreLayout, begin: int, end: int) -> bool:
    """Whether the walked part of the log has the sums of its side files."""
    for start in layout.segments():
        if start + layout.segment_bytes > begin and start < end:
            segment = map_segment(layout.segment_path(start), start, layout.segment_bytes)
            sums = SegmentChecksums.load(layout, start, begin)
            if sums.failing(segment.map, start, begin, end):
                return False
    return True


def _differs(queue: QueueRepair, number: int, units: bytes) -> None:
    """The files hold other units than the log asks for: the page cannot be trusted either."""
    raise UnitsMissing


def _queues_agree(queues: QueueSet, page: ControlPage) -> bool:
    """Whether every living queue's maximum is one behind its last unit, and its minimum has a file.

    One without files was never written.
    """
    table, directory = QueueTable(page), DirectoryView(page)
    for topic in directory.topics():
        for ref in directory.queues(topic):
            queue, low, high = queues.find(topic, ref.queue_id), table.min(ref.slot), table.max(ref.slot)
            if queue is None and low == high:
                continue
            if queue is None or queues.maximum_of(topic, ref.queue_id) != high:
                return False
            if low < high and not queue.has(low, low + 1):
                return False
    return True
