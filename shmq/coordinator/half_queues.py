"""HalfQueues: what lies in the half queue and the op queue, read from the files.

Everything published counts, on the disk or not: what is decided is decided before a flush, too. Coordinator's
loop only.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Iterator

from shmq.base.errors import Bug, MessageIllegal, Unavailable
from shmq.broker.half_message import HalfMessage, half_of
from shmq.broker.queues import Queues
from shmq.model.damaged_record import DAMAGED_TAGS_CODE
from shmq.model.names import TRANSACTION_HALF_TOPIC, TRANSACTION_OP_HALF_TOPIC
from shmq.model.properties import TRANSACTION_PREPARED_QUEUE_OFFSET
from shmq.model.record import RecordFields, parse_record
from shmq.model.sys_flag import TRANSACTION_COMMIT, TRANSACTION_MASK
from shmq.model.transaction import op_offsets
from shmq.shm.page_layout import MIN_OFFSET, WRITE_POSITION
from shmq.shm.queue_table import QueueRef
from shmq.store.consume_queue import FILLER_SIZE
from shmq.store.message_store import MessageStore
from shmq.store.promised import is_promised

_MARK_OF_COPY = TRANSACTION_PREPARED_QUEUE_OFFSET.encode()


def _fields_of(record: memoryview | None) -> RecordFields | None:
    """Take a record apart; None without one, or when it is damaged: that must not stop a coordinator."""
    with contextlib.suppress(MessageIllegal):
        return parse_record(record) if record is not None else None
    return None


class HalfQueues:
    """Both queues; the topics exist."""

    def __init__(self, store: MessageStore, queues: Queues) -> None:
        """Find the queues."""
        self._store = store
        self._queues = queues
        self._words = store.page.words
        self.half = self.own(TRANSACTION_HALF_TOPIC)
        self.op = self.own(TRANSACTION_OP_HALF_TOPIC)

    def own(self, topic: str) -> QueueRef:
        """The one queue of a system topic."""
        queue = self._queues.ref(topic, 0)
        if queue is None:
            raise Bug(f"system topic {topic} has no queue")
        return queue

    def max(self, queue: QueueRef) -> int:
        """A queue's end."""
        return self._store.table.max(queue.slot)

    def within(self, queue: QueueRef, queue_offset: int) -> int:
        """The nearest offset that the queue has."""
        return min(max(queue_offset, self._store.min(queue)), self.max(queue))

    def read(self, queue_offset: int, *, may_wait: bool = False) -> HalfMessage | None:
        """One half message; None when its record is gone or makes no sense.

        `may_wait`: the caller can try again. Unavailable then: it is damaged and being looked at.
        """
        record = self._record(self.half, queue_offset)
        if record is not None and self._is_promised(record, self.half, queue_offset):
            try:
                return half_of(record)
            except MessageIllegal:
                return None
        if may_wait and self._is_message(queue_offset):
            self._store.doubt(self.half, queue_offset)
        return None

    def place_of(self, queue_offset: int) -> int | None:
        """Where in the log the half queue says that a half message is; None when it does not say."""
        with contextlib.suppress(FileNotFoundError):
            unit = self._store.queues.unit(self.half, queue_offset)
            return unit.physical_offset if unit.size != FILLER_SIZE else None
        return None

    def _is_message(self, queue_offset: int) -> bool:
        """Whether the half queue's unit is one of a message that should be there."""
        with contextlib.suppress(FileNotFoundError):
            unit = self._store.queues.unit(self.half, queue_offset)
            return unit.size != FILLER_SIZE and unit.tags_code != DAMAGED_TAGS_CODE
        return False

    def named(self, queue_offset: int, physical_offset: int) -> HalfMessage | None:
        """The half message at both offsets, which must agree. Unavailable: it is being looked at."""
        if not self._store.min(self.half) <= queue_offset < self.max(self.half):
            return None
        half = self.read(queue_offset, may_wait=True)
        return half if half is not None and half.fields.physical_offset == physical_offset else None

    def marked_by(self, op_offset: int) -> list[int]:
        """The half messages that an op message marks as decided; none when it is damaged.

        Unavailable: it is being looked at.
        """
        record = self._record(self.op, op_offset)
        if record is None:
            return []
        if not self._is_promised(record, self.op, op_offset):
            self._store.doubt(self.op, op_offset)
            return []
        fields = parse_record(record)
        return op_offsets(record[fields.body_at : fields.body_at + fields.body_length])

    def marked_since(self, op_offset: int) -> set[int]:
        """The half messages that this and later op messages mark, without those that are being looked at."""
        marked: set[int] = set()
        for op in range(op_offset, self.max(self.op)):
            with contextlib.suppress(Unavailable):
                marked.update(self.marked_by(op))
        return marked

    def is_needed(self, op_offset: int, base: int) -> bool:
        """Whether a start needs an op message: it marks a half message from `base` on, or may do so."""
        try:
            return any(offset >= base for offset in self.marked_by(op_offset))
        except Unavailable:
            return True

    def copies_since(self, base: int) -> Iterator[tuple[int, int]]:
        """(first, own queue offset) of every copy of a half message from `base` on that can be read."""
        for queue_offset in range(base, self.max(self.half)):
            record = self._record(self.half, queue_offset)
            if record is None or _MARK_OF_COPY not in bytes(record):  # most: not taken apart
                continue
            half = self.read(queue_offset)
            if half is not None and half.first != queue_offset:
                yield half.first, queue_offset

    def last_commits(self, since: int) -> Iterator[int]:
        """Queue offsets of the half messages whose commit is the last record of some queue.

        Only of those committed behind the log offset `since`: what is older is not looked at.
        """
        for topic in self._queues.topics():
            for queue in self._queues.refs(topic):
                high = self.max(queue)
                if high == self._store.min(queue) or self._log_offset(queue, high - 1) < since:
                    continue
                fields = _fields_of(self._record(queue, high - 1))
                if fields is not None and fields.sys_flag & TRANSACTION_MASK == TRANSACTION_COMMIT:
                    yield self._at(fields.prepared_transaction_offset)

    def _at(self, log_offset: int) -> int:
        """The queue offset of the half message at that log offset; the next one's when it is none."""
        stored = range(self._store.min(self.half), self.max(self.half))
        return stored.start + bisect_left(stored, log_offset, key=lambda at: self._log_offset(self.half, at))

    def _log_offset(self, queue: QueueRef, queue_offset: int) -> int:
        """Where in the log a message is; -1 when its unit is gone."""
        try:
            return self._store.queues.unit(queue, queue_offset).physical_offset
        except FileNotFoundError:
            return -1

    def is_commit_of(self, half: HalfMessage, queue: QueueRef, queue_offset: int) -> bool:
        """Whether that message of `queue` is what the commit of `half` has stored."""
        fields = _fields_of(self._record(queue, queue_offset))
        if fields is None:
            return False
        is_commit = fields.sys_flag & TRANSACTION_MASK == TRANSACTION_COMMIT
        return is_commit and fields.prepared_transaction_offset == half.fields.physical_offset

    def _is_promised(self, record: memoryview, queue: QueueRef, queue_offset: int) -> bool:
        """Whether a record is what its unit promises: no damage shall be taken for somebody's will."""
        position = self._log_offset(queue, queue_offset)
        return is_promised(record, position, queue.queue_id, queue_offset)

    def _record(self, queue: QueueRef, queue_offset: int) -> memoryview | None:
        try:
            unit = self._store.queues.unit(queue, queue_offset)
        except FileNotFoundError:
            return None
        if unit.size == FILLER_SIZE or unit.tags_code == DAMAGED_TAGS_CODE:
            return None
        words = self._words
        return self._store.log.record_at(unit.physical_offset, words[MIN_OFFSET], words[WRITE_POSITION])
