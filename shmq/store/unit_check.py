"""ConsumeQueue units against the log while a broker runs: a damaged unit is written anew.

A unit below its queue's maximum is stored by nobody any more, so whatever differs from what the record says
is damage: a position or a size that leads to no message of that number, or a tags code that is another. The
latter only where the log has sums: there the record is as we wrote it. One store of 20 bytes mends it.

Used by the scrub, in its thread. If it dies in between, the next look finds the same. Numpy.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import numpy as np

from shmq.base import log
from shmq.model.damaged_record import DAMAGED_MARK, DAMAGED_TAGS_CODE
from shmq.model.names import SCHEDULE_TOPIC
from shmq.model.record import PREPARED_TRANSACTION_OFFSET_AT
from shmq.model.sys_flag import TRANSACTION_COMMIT, TRANSACTION_MASK
from shmq.model.unit import UNIT_BYTES, UNIT_STRUCT
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView
from shmq.shm.queue_table import QueueRef, QueueTable
from shmq.store.config_tables import load_topics
from shmq.store.log_scan import IntArray, Scan, ScanEnd, overlapping, scan
from shmq.store.mapped_file import MappedFile
from shmq.store.names import StoreLayout, file_name
from shmq.store.promised import is_promised
from shmq.store.queue_repair import pack
from shmq.store.queue_set import QueueSet
from shmq.store.record_text import tags_codes

_TAGS_AT = 12

_logger = log.get(__name__)


class UnitCheck:
    """Compares the units of one store with its records."""

    def __init__(
        self, layout: StoreLayout, page: ControlPage, levels: list[int], count: Callable[[str, int], None]
    ) -> None:
        """Topics are those of now: make a new one now and then. `count` adds to a counter."""
        self._layout = layout
        self._count = count
        self._table = QueueTable(page)
        self._directory = DirectoryView(page)
        self._queues = QueueSet(layout, load_topics(layout), levels, own=True)

    def run(
        self,
        segment: MappedFile,
        begin: int,
        end: int,
        damaged: list[tuple[int, int]],
        summed: tuple[int, int],
    ) -> None:
        """Compare the units of the sound records in `[begin, end)` of a segment, and mend them.

        Records that reach into a `damaged` stretch tell nothing. `summed`: where the log has sums.
        """
        self._directory.catch_up()
        position = begin
        while position < end:
            base = segment.start
            found = scan(segment.map, position - base, end - base, base, check_bodies=False)
            self._compare(segment, found, damaged, summed)
            if found.end is ScanEnd.BLANK or base + found.stop <= position:
                return  # or an unsound record: who looked before has dealt with it
            position = base + found.stop

    def _compare(
        self, segment: MappedFile, found: Scan, damaged: list[tuple[int, int]], summed: tuple[int, int]
    ) -> None:
        if not len(found):
            return
        starts, ends = found.physical_offsets, found.physical_offsets + found.sizes
        transaction = found.sys_flags & TRANSACTION_MASK
        indices = self._queues.indices(found, segment.map)
        wanted = (indices >= 0) & ((transaction == 0) | (transaction == TRANSACTION_COMMIT))
        for low, high in damaged:
            wanted &= (ends <= low) | (starts >= high)
        rows = np.flatnonzero(wanted)
        if not len(rows):
            return
        codes = tags_codes(segment.map, found.property_starts[rows], found.ends[rows])
        self._queues.correct_delayed(indices[rows], codes, found, rows, segment.map)
        marks = overlapping(segment.map, ">i8")[found.starts[rows] + PREPARED_TRANSACTION_OFFSET_AT]
        codes[marks == DAMAGED_MARK] = DAMAGED_TAGS_CODE
        is_summed = (starts[rows] >= summed[0]) & (ends[rows] <= summed[1])
        numbers, queues = found.queue_offsets[rows], indices[rows]
        order = np.lexsort((numbers, queues))
        refs, is_stored = self._stored(queues[order], numbers[order])
        order = order[is_stored]
        if len(order):
            rows = rows[order]
            units = pack(starts[rows], found.sizes[rows], codes[order])
            self._compare_runs(refs, queues[order], numbers[order], units, is_summed[order])

    def _stored(self, queues: IntArray, numbers: IntArray) -> tuple[dict[int, QueueRef], np.ndarray]:
        """The queues of these units, by index, and which of the units are stored: those of queues that are
        there, from the minimum on and below the maximum. `queues` ascend."""
        firsts = np.flatnonzero(np.diff(queues, prepend=-1))
        low, high = np.zeros((2, len(firsts)), np.int64)
        refs: dict[int, QueueRef] = {}
        for n, index in enumerate(queues[firsts].tolist()):
            known = self._queues.queues[index]
            queue = self._directory.queue(known.topic, known.queue_id)
            if queue is not None:
                refs[index] = queue
                low[n], high[n] = self._table.min(queue.slot), self._table.max(queue.slot)
        counts = np.diff(firsts, append=len(queues))
        return refs, (numbers >= np.repeat(low, counts)) & (numbers < np.repeat(high, counts))

    def _compare_runs(
        self,
        refs: dict[int, QueueRef],
        queues: IntArray,
        numbers: IntArray,
        units: bytes,
        is_summed: np.ndarray,
    ) -> None:
        """Compare units, given by queue and number, as far as they lie side by side in a file at once.

        Where a log's messages are spread over thousands of queues, each of them is a run of its own.
        """
        file_bytes = self._layout.queue_file_bytes
        files = numbers // (file_bytes // UNIT_BYTES)
        breaks = (np.diff(queues) != 0) | (np.diff(numbers) != 1) | (np.diff(files) != 0)
        begins = [0, *(np.flatnonzero(breaks) + 1).tolist()]
        for begin, end in zip(begins, [*begins[1:], len(numbers)], strict=True):
            queue, first = refs[int(queues[begin])], int(numbers[begin])
            right = units[begin * UNIT_BYTES : end * UNIT_BYTES]
            at = first * UNIT_BYTES
            start = at - at % file_bytes
            folder = self._layout.queue_folder_text(queue.topic, queue.queue_id)
            try:
                fd = os.open(f"{folder}/{file_name(start)}", os.O_RDWR | os.O_CLOEXEC)
            except OSError:  # it is gone: only a start makes files
                continue
            try:
                found = os.pread(fd, len(right), at - start)
                if found != right and self._table.alive(queue):  # else the file is a new topic's by now
                    self._mend(queue, fd, start, first, found, right, is_summed[begin:end])
            finally:
                os.close(fd)

    def _mend(
        self,
        queue: QueueRef,
        fd: int,
        start: int,
        first: int,
        found: bytes,
        right: bytes,
        is_summed: np.ndarray,
    ) -> None:
        """Write those units of a file anew that are damaged."""
        for n in range(len(found) // UNIT_BYTES):
            is_now, should_be = (raw[n * UNIT_BYTES : (n + 1) * UNIT_BYTES] for raw in (found, right))
            if is_now == should_be or not self._is_damaged(
                queue, first + n, is_now, should_be, bool(is_summed[n])
            ):
                continue
            os.pwrite(fd, should_be, (first + n) * UNIT_BYTES - start)
            os.fdatasync(fd)
            self._count("units_mended", 1)
            log.event(
                _logger,
                logging.ERROR,
                "unit_mended",
                topic=queue.topic,
                queue_id=queue.queue_id,
                queue_offset=first + n,
                was=is_now.hex(),
            )

    def _is_damaged(
        self, queue: QueueRef, number: int, is_now: bytes, should_be: bytes, is_summed: bool
    ) -> bool:
        """Whether a unit that differs from its record is wrong, and not marked, nor of another record."""
        position, size, code = UNIT_STRUCT.unpack(is_now)
        if is_now[:_TAGS_AT] == should_be[:_TAGS_AT]:
            return code != DAMAGED_TAGS_CODE and is_summed and queue.topic != SCHEDULE_TOPIC
        start = self._layout.segment_start(position) if position >= 0 else -1
        try:
            with open(self._layout.segment_path(start), "rb") as segment:
                segment.seek(position - start)
                record = memoryview(segment.read(min(max(size, 0), self._layout.segment_bytes)))
        except OSError:
            return True
        return not is_promised(record, position, queue.queue_id, number)
