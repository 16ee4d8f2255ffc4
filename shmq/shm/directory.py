"""Directory: which names the page's queue slots and offset slots belong to. Append-only, one writer, many
readers.

Entries lie one behind the other in the last part of the page, each padded to 8 bytes:

    kind u8 | group bytes u8 | topic bytes u16 | first queue id u32 | count u32 | first slot u32 | generation
    u64 group, topic in UTF-8

    TOPIC    queues [first queue id, +count) of the topic live in slots [first slot, +count) as long as the
    slots' generation
             is this one. More queues are another entry. A topic made again gets new entries, and later ones
             win.
    OFFSETS  the consumer offsets of (group, topic) for these queues are in these offset slots; generation is
    0.

The writer (the coordinator; recovery before it lives) fills in an entry, then stores DIRECTORY_LENGTH: one
word publishes it. A death before that store leaves nothing behind but unused slots. Nothing is ever changed
or removed: a deleted topic's slots have another generation. Full is an error until the page is made anew.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from shmq.base import faults
from shmq.base.errors import InvalidParameter, StoreDamaged, SystemBusy
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage
from shmq.shm.offset_slots import OffsetSlots
from shmq.shm.queue_table import QueueRef, QueueTable

TOPIC = 1
OFFSETS = 2

faults.declare(
    {
        "directory.queues_taken": "queue slots are given out, no entry names them",
        "directory.offsets_taken": "offset slots are given out, no entry names them",
        "directory.entry_written": "the entry's bytes are on the page, its length is not published",
    }
)

_HEAD = struct.Struct("<BBHIIIQ")
assert _HEAD.size == 24


class Entry(NamedTuple):
    """One directory entry; `group` is empty and `generation` counts in a TOPIC entry."""

    kind: int
    group: str
    topic: str
    first_queue_id: int
    queue_count: int
    first_slot: int
    generation: int


class Directory:
    """The log of entries: append on one side, catch up on the other; remembers how far it has read."""

    __slots__ = ("_capacity", "_raw", "_read", "_start", "_words")

    def __init__(self, page: ControlPage) -> None:
        """Look at the directory of `page`, nothing read yet."""
        self._raw = page.raw
        self._words = page.words
        self._start = page.directory_start
        self._capacity = page.directory_bytes
        self._read = 0

    def append(self, entry: Entry) -> None:
        """Publish one entry. The writer only. SystemBusy when the directory is full."""
        length = self._words[at.DIRECTORY_LENGTH]
        data = _encode(entry)
        if length + len(data) > self._capacity:
            raise SystemBusy(
                f"the directory of {self._capacity} bytes is full: too many topics and consumer groups "
                "were made since the broker's page was; restart the broker"
            )
        self._raw[self._start + length : self._start + length + len(data)] = data
        faults.reach("directory.entry_written")
        self._words[at.DIRECTORY_LENGTH] = length + len(data)

    def catch_up(self) -> list[Entry]:
        """Return the entries published since the last call; one load when there are none. Any process."""
        length = self._words[at.DIRECTORY_LENGTH]
        if length == self._read:
            return []
        data = bytes(self._raw[self._start + self._read : self._start + length])
        self._read = length
        return _decode(data)


def _encode(entry: Entry) -> bytes:
    """Return the bytes of an entry. InvalidParameter: a name too long for any valid request."""
    group, topic = entry.group.encode(), entry.topic.encode()
    if len(group) > 255 or len(topic) > 65535:
        raise InvalidParameter(f"group {entry.group!r} (at most 255 bytes) or topic name is too long")
    head = _HEAD.pack(
        entry.kind,
        len(group),
        len(topic),
        entry.first_queue_id,
        entry.queue_count,
        entry.first_slot,
        entry.generation,
    )
    data = head + group + topic
    return data + bytes(-len(data) % at.WORD_BYTES)


def _decode(data: bytes) -> list[Entry]:
    """Return the entries in `data`. StoreDamaged when they do not end where the published length says."""
    entries: list[Entry] = []
    position = 0
    while position < len(data):
        if position + _HEAD.size > len(data):
            raise StoreDamaged("the control page's directory is cut off inside an entry")
        kind, group_bytes, topic_bytes, *numbers = _HEAD.unpack_from(data, position)
        names = position + _HEAD.size
        end = names + group_bytes + topic_bytes
        if kind not in (TOPIC, OFFSETS) or end > len(data):
            raise StoreDamaged(f"the control page's directory has a bad entry at {position}")
        group = data[names : names + group_bytes].decode()
        topic = data[names + group_bytes : end].decode()
        entries.append(Entry(kind, group, topic, *numbers))
        position = end + -end % at.WORD_BYTES
    return entries


class DirectoryWriter:
    """Gives out slots, then names them. One per page: the coordinator's, or recovery's before it."""

    def __init__(self, page: ControlPage) -> None:
        """Write to the directory of `page`."""
        self._directory = Directory(page)
        self._queues = QueueTable(page)
        self._offsets = OffsetSlots(page)

    def add_queues(
        self, topic: str, first_queue_id: int, offsets: Sequence[tuple[int, int]]
    ) -> list[QueueRef]:
        """Make the queues `first_queue_id`.. of `topic` known, with these (min, max); SystemBusy when full.

        Everything else of the queue exists before (topics.json, its folder and first file): senders may use
        it at once.
        """
        first_slot, generation = self._queues.new_slots(offsets)
        faults.reach("directory.queues_taken")
        self._directory.append(Entry(TOPIC, "", topic, first_queue_id, len(offsets), first_slot, generation))
        return [QueueRef(topic, first_queue_id + n, first_slot + n, generation) for n in range(len(offsets))]

    def add_offsets(self, group: str, topic: str, first_queue_id: int, count: int) -> int:
        """Make offset slots, still without offsets, known and return the first; SystemBusy when full."""
        first_slot = self._offsets.new_slots(count)
        faults.reach("directory.offsets_taken")
        self._directory.append(Entry(OFFSETS, group, topic, first_queue_id, count, first_slot, 0))
        return first_slot


class DirectoryView:
    """The directory as dictionaries, in one process. `catch_up` once per turn keeps it current."""

    def __init__(self, page: ControlPage) -> None:
        """Read the whole directory of `page` as it is now."""
        self._directory = Directory(page)
        self._words = page.words
        self._topics: dict[str, list[QueueRef | None]] = {}
        self._offsets: dict[tuple[str, str], list[int | None]] = {}
        self.catch_up()

    def catch_up(self) -> bool:
        """Take in what was published since; True when there was something. One load when not."""
        entries = self._directory.catch_up()
        for entry in entries:
            if entry.kind == TOPIC:
                refs = self._topics.setdefault(entry.topic, [])
                _reserve(refs, entry.first_queue_id + entry.queue_count)
                for n in range(entry.queue_count):
                    queue_id = entry.first_queue_id + n
                    refs[queue_id] = QueueRef(entry.topic, queue_id, entry.first_slot + n, entry.generation)
            else:
                slots = self._offsets.setdefault((entry.group, entry.topic), [])
                _reserve(slots, entry.first_queue_id + entry.queue_count)
                for n in range(entry.queue_count):
                    slots[entry.first_queue_id + n] = entry.first_slot + n
        return bool(entries)

    def queue(self, topic: str, queue_id: int) -> QueueRef | None:
        """Return the living queue, or None when it is unknown or deleted."""
        refs = self._topics.get(topic)
        if refs is None or not 0 <= queue_id < len(refs):
            return None
        ref = refs[queue_id]
        if ref is None or self._words[at.QUEUE_TABLE + ref.slot * at.QUEUE_WORDS] != ref.generation:
            return None
        return ref

    def queues(self, topic: str) -> list[QueueRef]:
        """Return the living queues of `topic` by queue id; empty when the topic is unknown or deleted."""
        found = (self.queue(topic, queue_id) for queue_id in range(len(self._topics.get(topic, ()))))
        return [ref for ref in found if ref is not None]

    def topics(self) -> list[str]:
        """Return the names of all topics with a living queue."""
        return [
            topic
            for topic, refs in self._topics.items()
            if any(self.queue(topic, queue_id) for queue_id in range(len(refs)))
        ]

    def offset_slot(self, group: str, topic: str, queue_id: int) -> int | None:
        """Return the offset slot of the group for that queue, or None when it has none yet."""
        slots = self._offsets.get((group, topic))
        if slots is None or not 0 <= queue_id < len(slots):
            return None
        return slots[queue_id]

    def offset_slots(self, group: str, topic: str) -> list[int | None]:
        """Return the group's offset slots for the topic by queue id."""
        return list(self._offsets.get((group, topic), ()))

    def offset_groups(self) -> list[tuple[str, str]]:
        """Return every (group, topic) that has offset slots."""
        return list(self._offsets)


def _reserve(items: list[QueueRef | None] | list[int | None], length: int) -> None:
    """Make `items` at least `length` long; gaps are None."""
    items.extend([None] * (length - len(items)))
