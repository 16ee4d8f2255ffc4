"""All queues of a store during recovery, as arrays: which queue a record belongs to and which number it must
have.

Queues get a running index when they are first seen, on the disk or in the log. Records of deleted topics, and
those of an earlier topic of the same name, belong to no queue (index -1). Recovery only; numpy.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Callable

import numpy as np

from shmq.base import log
from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.delay import delay_ms, level_of
from shmq.model.names import SCHEDULE_TOPIC
from shmq.model.properties import DELAY, decode_properties
from shmq.model.unit_array import UNIT_DTYPE
from shmq.store.config_tables import TopicTable
from shmq.store.consume_queue import FILLER_SIZE
from shmq.store.log_scan import IntArray, Scan
from shmq.store.names import StoreLayout
from shmq.store.queue_repair import GAP_MAX, QueueRepair, find_queues, pack
from shmq.store.record_text import kinds, topic_kinds

_logger = log.get(__name__)


class UnitsMissing(Exception):
    """Units are not what the log says, or missing in front of where the walk began.

    Walk from the log's first byte.
    """


OnDifference = Callable[[QueueRepair, int, bytes], None]
"""Called with a queue, a queue offset and the units that should be there, and are not."""


class QueueSet:
    """Queues by index."""

    def __init__(
        self,
        layout: StoreLayout,
        topics: TopicTable,
        levels: list[int],
        *,
        own: bool,
        on_difference: OnDifference | None = None,
    ) -> None:
        """`own`: shmq wrote the store; another engine numbers a queue anew when its topic is made again.

        `on_difference`: units are only compared with the files, and this is told where they differ; without
        it they are written.
        """
        self._on_difference = on_difference
        self._layout = layout
        self._topics = topics
        self._levels = levels
        self._own = own
        self.queues: list[QueueRepair] = []
        self._next = np.zeros(64, np.int64)
        self._low = np.zeros(64, np.int64)
        self._by_key: dict[tuple[str, int], int] = {}
        self._topic_ids: dict[bytes, int] = {}
        self._topic_names: list[str | None] = []

    def load(self, position: int, log_begin: int | None = None) -> bool:
        """Find the queues on the disk and what each has below `position`. False: files had to be removed.

        `log_begin`: also those of queues whose first files seem to be missing, by where the log begins.
        """
        whole = True
        for topic, queue_id in find_queues(self._layout):
            queue = self.queues[self._index(topic, queue_id)]
            lowest = self._topics.low(topic, queue_id)
            if not queue.load() or (log_begin is not None and queue.lacks_its_begin(log_begin, lowest)):
                whole = False
                queue.starts = []
                if self._on_difference is None:
                    log.event(_logger, logging.WARNING, "queue_made_anew", topic=topic, queue_id=queue_id)
                    queue.remove()
            self._set_next(topic, queue_id, queue.count_below(position))
        return whole

    def _index(self, topic: str, queue_id: int) -> int:
        """The index of a queue; a new one when it is new."""
        index = self._by_key.setdefault((topic, queue_id), len(self.queues))
        if index == len(self.queues):
            self.queues.append(QueueRepair(self._layout, topic, queue_id))
            if index == len(self._next):
                self._next = np.concatenate((self._next, np.zeros_like(self._next)))
                self._low = np.concatenate((self._low, np.zeros_like(self._low)))
            self._low[index] = self._topics.low(topic, queue_id)
            self._set_next(topic, queue_id, 0)
        return index

    def _set_next(self, topic: str, queue_id: int, number: int) -> None:
        index = self._by_key[topic, queue_id]
        self._next[index] = max(number, int(self._low[index]))

    def indices(self, found: Scan, data: mmap.mmap) -> IntArray:
        """The queue index of each record, -1 for those that are nobody's."""
        firsts, like = topic_kinds(data, found.topic_starts, found.topic_ends)
        ids = [
            self._topic_id(data[int(found.topic_starts[i]) : int(found.topic_ends[i])])
            for i in firsts.tolist()
        ]
        codes = np.array(ids, np.int64)[like] << 32 | found.queue_ids
        firsts, like = kinds(codes)
        by_code = np.array([self._index_of_code(code) for code in codes[firsts].tolist()], np.int64)
        indices = by_code[like]
        indices[found.queue_offsets < self._low[indices]] = -1
        return indices

    def _topic_id(self, topic: bytes) -> int:
        """A running number for each name of a topic that was not deleted."""
        known = self._topic_ids.setdefault(topic, len(self._topic_names))
        if known == len(self._topic_names):
            name = str(topic, "utf-8", "replace")
            self._topic_names.append(None if self._topics.is_deleted(name) else name)
        return known

    def _index_of_code(self, code: int) -> int:
        name = self._topic_names[code >> 32]
        return -1 if name is None else self._index(name, code & 0xFFFFFFFF)

    def expected(self, indices: IntArray) -> IntArray:
        """The queue offset each record must have, given that those before it are accepted."""
        order = np.argsort(indices, kind="stable")
        ordered = indices[order]
        firsts = np.flatnonzero(np.diff(ordered, prepend=-1))
        lengths = np.diff(firsts, append=len(ordered))
        ranks = np.empty(len(indices), np.int64)
        ranks[order] = np.arange(len(ordered)) - np.repeat(firsts, lengths)
        return self._next[indices] + ranks

    def advance(self, indices: IntArray) -> None:
        """Count accepted records."""
        counts = np.bincount(indices, minlength=len(self._next))
        self._next += counts

    def jump(self, found: Scan, i: int, data: mmap.mmap) -> bool:
        """Let the queue of record `i` go on at that record's number; False when the record is to be left out.

        A higher number: units are missing for good. A lower one is an echo, unless another engine began to
        number the queue anew.
        """
        index, number = self._number_of(found, i, data)
        if number < self._next[index]:
            if self._own or number:
                return False
            self.queues[index].remove()
        self._next[index] = number
        return True

    def _number_of(self, found: Scan, i: int, data: mmap.mmap) -> tuple[int, int]:
        """The queue index and the queue offset of record `i`."""
        topic = data[int(found.topic_starts[i]) : int(found.topic_ends[i])]
        index = self._index_of_code(self._topic_ids[topic] << 32 | int(found.queue_ids[i]))
        return index, int(found.queue_offsets[i])

    def is_known_gap(self, found: Scan, i: int, data: mmap.mmap) -> bool:
        """Whether the units missing in front of record `i` say so: its queue lost them for good."""
        index, number = self._number_of(found, i, data)
        queue, first = self.queues[index], int(self._next[index])
        if number <= first or number - first > GAP_MAX or not queue.has(first, number):
            return False
        units = np.frombuffer(queue.read(first, number - first), UNIT_DTYPE)
        return bool(((units["size"] == FILLER_SIZE) | (units["tags_code"] == DAMAGED_TAGS_CODE)).all())

    def correct_delayed(
        self, indices: IntArray, codes: IntArray, found: Scan, counted: IntArray, data: mmap.mmap
    ) -> None:
        """Put the delivery time into the tags codes of delayed messages (Apache RocketMQ 5.3,
        CommitLog.java).
        """
        delayed = [i for (topic, _), i in self._by_key.items() if topic == SCHEDULE_TOPIC]
        for at in np.flatnonzero(np.isin(indices, delayed)) if delayed else ():
            record = int(counted[at])
            begin, end = int(found.property_starts[record]), int(found.ends[record])
            level = decode_properties(data[begin:end]).get(DELAY, "")
            if level_of(level) > 0:
                codes[at] = int(found.store_times[record]) + delay_ms(level_of(level), self._levels)

    def merge(
        self, indices: IntArray, numbers: IntArray, physical: IntArray, sizes: IntArray, codes: IntArray
    ) -> None:
        """Make the files agree with these units, or compare only; those of one queue are consecutive."""
        order = np.argsort(indices, kind="stable")
        ordered = indices[order]
        firsts = np.flatnonzero(np.diff(ordered, prepend=-1))
        for first, end in zip(firsts, np.append(firsts[1:], len(ordered)), strict=True):
            rows = order[first:end]
            queue = self.queues[int(ordered[first])]
            units = pack(physical[rows], sizes[rows], codes[rows])
            number = int(numbers[rows[0]])
            if self._on_difference is None:
                queue.merge(number, units)
            elif not queue.agrees(number, units):
                self._on_difference(queue, number, units)

    def units(self) -> int:
        """How many units all queues hold and held.

        The sum of their maxima, but for queues nobody wrote to.
        """
        used = len(self.queues)
        return int(self._next[:used][self._next[:used] > self._low[:used]].sum())

    def find(self, topic: str, queue_id: int) -> QueueRepair | None:
        """A queue by name; None when it has neither files nor records."""
        index = self._by_key.get((topic, queue_id))
        return None if index is None else self.queues[index]

    def maximum_of(self, topic: str, queue_id: int) -> int | None:
        """The maximum of a queue by name; None when it has neither files nor records."""
        index = self._by_key.get((topic, queue_id))
        return None if index is None else self.maximum(index)

    def maximum(self, index: int) -> int:
        """The queue's maximum when the walk is over."""
        return int(self._next[index])
