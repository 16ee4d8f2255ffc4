"""What recovery needs of `config/*.json`: which queues topics have, and the consumer offsets.

The coordinator owns the files (RocketMQ's shapes, ConfigManager.java); they are only read here, once, before
it lives. A file that is missing or unreadable is replaced by its `.bak`; both missing is an empty table. No
numpy here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shmq.model.names import SCHEDULE_GROUP, SCHEDULE_TOPIC
from shmq.protocol import fastjson
from shmq.store.names import StoreLayout

DELETED_TOPICS = "shmqDeletedTopics"
ENDING_TOPICS = "shmqEndingTopics"


@dataclass(slots=True)
class TopicTable:
    """Topics by name with their number of queues, and the last maxima of deleted ones by queue id.

    `lows` may name a topic that lives: it was made again, and its queues go on from these maxima. `ending`
    are topics whose deletion did not come to know its last maxima: their queues are recovered, so that the
    coordinator finds the maxima on the page when it finishes the deletion.
    """

    queue_counts: dict[str, int] = field(default_factory=dict)
    lows: dict[str, list[int]] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)

    def is_deleted(self, topic: str) -> bool:
        """Whether the topic was deleted and not made again: its records are nobody's."""
        return topic in self.lows and topic not in self.queue_counts and topic not in self.ending

    def low(self, topic: str, queue_id: int) -> int:
        """The queue offset below which the queue's records belong to an earlier topic of that name."""
        lows = self.lows.get(topic, ())
        return lows[queue_id] if queue_id < len(lows) else 0


def load_topics(layout: StoreLayout) -> TopicTable:
    """Read topics.json."""
    found = _load(layout.config / "topics.json")
    table = TopicTable()
    for topic, members in _table(found, "topicConfigTable"):
        if isinstance(members, dict):
            counts = (members.get("readQueueNums", 16), members.get("writeQueueNums", 16))
            table.queue_counts[topic] = max((n for n in counts if isinstance(n, int)), default=0)
    for topic, maxima in _table(found, DELETED_TOPICS):
        if isinstance(maxima, list):
            table.lows[topic] = [int(n) for n in maxima]
    ending = found.get(ENDING_TOPICS)
    table.ending = {str(topic) for topic in ending} if isinstance(ending, list) else set()
    return table


def load_consumer_offsets(layout: StoreLayout) -> dict[tuple[str, str], dict[int, int]]:
    """Read consumerOffset.json: (group, topic) -> queue id -> next queue offset.

    Those of the delay levels, from their own file, under the broker's own group.
    """
    offsets: dict[tuple[str, str], dict[int, int]] = {}
    for name, by_queue in _table(_load(layout.config / "consumerOffset.json"), "offsetTable"):
        topic, separator, group = name.partition("@")
        if separator and isinstance(by_queue, dict):
            numbers = {int(q): n for q, n in by_queue.items() if str(q).isdecimal() and isinstance(n, int)}
            offsets[group, topic] = numbers
    offsets.pop((SCHEDULE_GROUP, SCHEDULE_TOPIC), None)
    if delays := load_delay_offsets(layout):
        offsets[SCHEDULE_GROUP, SCHEDULE_TOPIC] = delays
    return offsets


def load_delay_offsets(layout: StoreLayout) -> dict[int, int]:
    """Read delayOffset.json: queue id of a delay level (level - 1) -> next queue offset to deliver."""
    table = _table(_load(layout.config / "delayOffset.json"), "offsetTable")
    levels = [(int(level), offset) for level, offset in table if level.isdecimal()]
    return {level - 1: offset for level, offset in levels if level and isinstance(offset, int)}


def _table(found: Mapping[str, Any], member: str) -> list[tuple[str, Any]]:
    table = found.get(member)
    return [(str(name), value) for name, value in table.items()] if isinstance(table, dict) else []


def _load(path: Path) -> Mapping[str, Any]:
    """The object in `path`, or in its backup."""
    for candidate in (path, path.with_name(path.name + ".bak")):
        try:
            found = fastjson.loads(candidate.read_bytes())
        except (FileNotFoundError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}
