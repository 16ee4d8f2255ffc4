"""Where each consumer group goes on: offset slots on the control page, and `config/consumerOffset.json`.

Workers store commits into the slots, one word each; the coordinator makes slots, exports them to RocketMQ's
file every `flushConsumerOffsetInterval` and at its end, and changes them for operators (reset, clone,
delete). Recovery fills a new page from the file. Coordinator's loop only; `export` waits for the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from shmq.base.clock import SYSTEM_CLOCK, Clock
from shmq.base.errors import NoPermission
from shmq.broker.config_file import ConfigFile
from shmq.model.data_version import DataVersion
from shmq.model.names import BROKER_GROUPS, SCHEDULE_GROUP, TRANSACTION_GROUP
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage
from shmq.shm.directory import DirectoryView, DirectoryWriter
from shmq.shm.offset_slots import NO_OFFSET, OffsetSlots


class QueueProgress(NamedTuple):
    """How far a group is in one queue; -1 for what was never stored."""

    queue_id: int
    committed: int
    pulled: int


class ConsumerOffsets:
    """All consumer offsets of this broker."""

    def __init__(
        self, file: ConfigFile, page: ControlPage, directory: DirectoryView, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Use the slots of `page`; nothing is read from the file but its version."""
        self._file = file
        self._page = page
        self._directory = directory
        self._writer = DirectoryWriter(page)
        self._slots = OffsetSlots(page)
        self._clock = clock
        found = file.load()
        self._version = DataVersion.from_json(found.get("dataVersion"))
        self._found = _own_rows(found.get("offsetTable"))
        self._held: dict[str, dict[int, int]] = {}
        self._exported: tuple[list[int], dict[str, dict[int, int]]] | None = None
        self._written: dict[str, dict[int, int]] | None = None if found else {}
        """What the file says, once that is known: a store without offsets needs none."""

    # -- slots --

    def ensure(self, group: str, topic: str, queues: int) -> None:
        """Make sure the group has slots for queues 0.. of the topic. SystemBusy when the page has no room."""
        self._directory.catch_up()
        known = len(self._directory.offset_slots(group, topic))
        if known < queues:
            self._writer.add_offsets(group, topic, known, queues - known)
            self._directory.catch_up()

    def slots(self, group: str, topic: str) -> list[int | None]:
        """The group's slots in the topic, by queue id."""
        self._directory.catch_up()
        return self._directory.offset_slots(group, topic)

    def progress(self, group: str, topic: str) -> list[QueueProgress]:
        """The group's queues of the topic in which it has stored or pulled something."""
        self._directory.catch_up()
        found = [
            QueueProgress(queue_id, self._slots.committed(slot), self._slots.pulled(slot))
            for queue_id, slot in enumerate(self._directory.offset_slots(group, topic))
            if slot is not None
        ]
        return [row for row in found if row.committed != NO_OFFSET or row.pulled != NO_OFFSET]

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """The group's stored offsets of the topic by queue id."""
        return {
            row.queue_id: row.committed for row in self.progress(group, topic) if row.committed != NO_OFFSET
        }

    def commit(self, group: str, topic: str, offsets: dict[int, int]) -> None:
        """An operator sets offsets, forwards or backwards; NoPermission for the broker's own."""
        if group in BROKER_GROUPS:
            raise NoPermission(f"the offsets of {group} are the broker's own")
        self.ensure(group, topic, max(offsets, default=-1) + 1)
        slots = self._directory.offset_slots(group, topic)
        for queue_id, offset in offsets.items():
            slot = slots[queue_id]
            assert slot is not None
            self._slots.commit(slot, offset)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every (group, topic) with a stored offset, ordered."""
        self._directory.catch_up()
        groups = sorted(pair for pair in self._directory.offset_groups() if pair[0] not in BROKER_GROUPS)
        return (pair for pair in groups if self.committed(*pair))

    def topics_of(self, group: str) -> list[str]:
        """Topics in which the group has stored offsets."""
        return [topic for of_group, topic in self.pairs() if of_group == group]

    def groups_of(self, topic: str) -> list[str]:
        """Groups that have stored offsets in the topic."""
        return [group for group, of_topic in self.pairs() if of_topic == topic]

    # -- operators --

    def clone(self, source: str, target: str, topic: str | None) -> list[str]:
        """Give `target` the offsets of `source`, in one topic or in all; returns the topics copied."""
        topics = [topic] if topic else self.topics_of(source)
        copied = [name for name in topics if self.committed(source, name)]
        for name in copied:
            self.commit(target, name, self.committed(source, name))
        return copied

    def drop_group(self, group: str) -> None:
        """Forget the offsets of a deleted group."""
        self._drop([pair for pair in self._directory.offset_groups() if pair[0] == group])

    def drop_topic(self, topic: str) -> None:
        """Forget all offsets in a deleted topic."""
        self._drop([pair for pair in self._directory.offset_groups() if pair[1] == topic])

    def _drop(self, pairs: list[tuple[str, str]]) -> None:
        for group, topic in pairs:
            for slot in self._directory.offset_slots(group, topic):
                if slot is not None:
                    self._slots.reset(slot)

    # -- the file --

    def hold(self, group: str, topic: str, offset: int | None = None) -> int:
        """Have the file say `offset` for queue 0 of that pair, whatever its slot holds; return it.

        For the broker's own cursors, which may be ahead of the disk. None: what the file said at the start.
        """
        name = f"{topic}@{group}"
        if offset is None:
            offset = self._found.get(name, 0)
        self._held[name] = {0: offset}
        return offset

    def export(self) -> bool:
        """Write consumerOffset.json if a stored offset moved since the last time; True when it was."""
        self._directory.catch_up()
        words = self._all_words()
        held = dict(self._held)
        if (words, held) == self._exported:
            return False
        table = {name: offsets for name, offsets in held.items() if any(offsets.values())}
        for group, topic in self._directory.offset_groups():
            if group == SCHEDULE_GROUP or f"{topic}@{group}" in held:
                continue  # in a file of its own (`delay_cursors.py`), or not what the slot says
            slots = self._directory.offset_slots(group, topic)
            offsets = {
                queue_id: words[slot * at.OFFSET_WORDS + at.OFFSET_COMMITTED]
                for queue_id, slot in enumerate(slots)
                if slot is not None
            }
            stored = {queue_id: offset for queue_id, offset in offsets.items() if offset != NO_OFFSET}
            if stored:
                table[f"{topic}@{group}"] = stored
        is_news = table != self._written
        if is_news:
            self._version = self._version.next(self._clock.now_ms())
            self._file.save(self._to_json(table))
            self._written = table
        self._exported = (words, held)
        return is_news

    def _all_words(self) -> list[int]:
        """All used slots in one copy: comparing and reading them word by word would stop the loop."""
        first = self._page.offset_slots_start
        used = self._page.words[at.OFFSET_SLOTS_USED] * at.OFFSET_WORDS
        return self._page.words[first : first + used].tolist()

    def _to_json(self, table: dict[str, dict[int, int]]) -> dict[str, Any]:
        topics: dict[str, list[str]] = {}
        for name in sorted(table):
            topic, _, group = name.partition("@")
            topics.setdefault(group, []).append(topic)
        return {
            "dataVersion": self._version.to_json(),
            "groupTopicMap": dict(sorted(topics.items())),
            "offsetTable": dict(sorted(table.items())),
        }


def _own_rows(table: object) -> dict[str, int]:
    """What consumerOffset.json says of queue 0 of the broker's own pairs, by `topic@group`."""
    rows: dict[str, int] = {}
    for name, offsets in table.items() if isinstance(table, dict) else ():
        if str(name).endswith(f"@{TRANSACTION_GROUP}") and isinstance(offsets, dict):
            rows[name] = next((n for q, n in offsets.items() if str(q) == "0" and isinstance(n, int)), 0)
    return rows
