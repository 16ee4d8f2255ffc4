"""The topic registry: which topics exist, with what queues and permissions. Its file is `config/topics.json`.

Lives in the coordinator's loop, no locks; workers hear of changes over the internal socket and find queues
in the page's directory. Order of every change, so that a death at any point leaves something a start can
finish:

```text
create   topics.json durable -> queue slots and directory entry
delete   topics.json durable (topic under `shmqDeletedTopics` and `shmqEndingTopics`) -> slots retired by a
         claim -> topics.json durable again with the final maxima -> files unlinked
```
The file is written whole, so changes that are made `together` share one write.

`shmqDeletedTopics` (a member RocketMQ ignores, absent when empty) holds the last maximum of every queue of
a deleted topic: made again under that name, its queues go on from there, since their old records are still
in the log. Only topics named there are ever cleared away by a start. `shmqEndingTopics` names those whose
final maxima are not in the file yet: their queues still count, for a recovery without the page too.

Rules: Apache RocketMQ 5.3, TopicConfigManager.java.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from shmq.base import faults, log
from shmq.base.clock import SYSTEM_CLOCK, Clock
from shmq.base.errors import InvalidParameter, NoPermission, ServiceNotAvailable, TopicNotExist
from shmq.broker.config_file import ConfigFile
from shmq.broker.pretty_json import Prepared, prepared_row, prepared_table
from shmq.broker.system_topics import system_topics
from shmq.broker.topic_attributes import changed_attributes, check_attributes
from shmq.model import names
from shmq.model.broker_settings import BrokerSettings
from shmq.model.data_version import DataVersion
from shmq.model.topic_config import PERM_INHERIT, PERM_READ_WRITE, TopicConfig

QUEUE_NUMS_MAX = 65_535
PERM_MAX = 7
_DELETED = "shmqDeletedTopics"
_ENDING = "shmqEndingTopics"

_logger = log.get(__name__)

faults.declare(
    {
        "topic.saved": "topics.json with a new topic is durable, its queues are not made",
        "topic.made": "a new topic is durable and has its queues, no worker was told",
        "delete.saved": "topics.json tells the last maxima, the files are still there",
    }
)


class QueueSlots(Protocol):
    """The page's side of topics (`broker/queue_slots.py`; a dict in unit tests)."""

    def count(self, topic: str) -> int:
        """How many queues the topic has in the directory."""

    def reserve(self, queues: int) -> None:
        """Raise Unavailable unless so many queues can still be made."""

    def create(self, topic: str, first_queue_id: int, starts: Sequence[int]) -> None:
        """Add queues; `starts` is the first queue offset of each."""

    def retire(self, topic: str) -> list[int]:
        """End all queues of the topic, return their last maxima by queue id. May be repeated."""

    def remove_files(self, topic: str) -> None:
        """Remove the files of a topic whose queues have ended. May be repeated."""


class TopicRegistry:
    """All topics of this broker by name."""

    def __init__(
        self, file: ConfigFile, queues: QueueSlots, settings: BrokerSettings, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Read the file; `start` brings file and page together."""
        self._file = file
        self._queues = queues
        self._clock = clock
        self._auto_create = settings.auto_create_topic_enable
        self._system = system_topics(settings)
        found = file.load()
        table = found.get("topicConfigTable") or {}
        self._topics = {name: TopicConfig.from_json(members, name) for name, members in table.items()}
        deleted = found.get(_DELETED) or {}
        self._deleted = {name: [int(n) for n in maxima] for name, maxima in deleted.items()}
        self._ending = set(found.get(_ENDING) or ())
        self._rows: dict[str, tuple[TopicConfig, Prepared]] = {}
        self._waiting: list[TopicConfig] | None = None
        """Changed topics whose write comes at the end of `together`; None outside of it."""
        self._dirty = False
        self.data_version = DataVersion.from_json(found.get("dataVersion"))

    def start(self) -> None:
        """Register the system topics, finish interrupted deletions, give every topic its queues. Repeats."""
        missing = [config for config in self._system.values() if config.topic_name not in self._topics]
        if missing:
            with self._changing():
                self._topics.update((config.topic_name, config) for config in missing)
        for name in [name for name in self._deleted if name not in self._topics]:
            self._finish_delete(name)
        for config in self._topics.values():
            self._make_queues(config)

    # -- questions --

    def get(self, topic: str) -> TopicConfig | None:
        """The topic's settings, or None."""
        return self._topics.get(topic)

    def must_get(self, topic: str) -> TopicConfig:
        """The topic's settings; TopicNotExist."""
        config = self._topics.get(topic)
        if config is None:
            raise TopicNotExist(f"topic [{topic}] does not exist here: create it first (updateTopic)")
        return config

    def __iter__(self) -> Iterator[TopicConfig]:
        """All topics, ordered by name."""
        return iter([self._topics[name] for name in sorted(self._topics)])

    def __len__(self) -> int:
        """Count the topics, system topics included."""
        return len(self._topics)

    def is_system(self, topic: str) -> bool:
        """Tell whether a topic is the broker's own: no administrator creates or deletes it."""
        return topic in self._system or names.is_system_topic(topic)

    @property
    def system_topic_names(self) -> list[str]:
        """The names registered at start, ordered."""
        return sorted(self._system)

    # -- changes; each returns what changed, None or an empty list when nothing did --

    def update(self, wanted: TopicConfig, attribute_changes: str = "") -> TopicConfig | None:
        """An administrator creates or changes a topic (17, 18). InvalidParameter says what is allowed."""
        names.check_topic(wanted.topic_name)
        if self.is_system(wanted.topic_name):
            raise InvalidParameter(f"topic [{wanted.topic_name}] belongs to the broker and cannot be changed")
        _check_numbers(wanted)
        known = self._topics.get(wanted.topic_name)
        attributes = dict(known.attributes) if known is not None else {}
        attributes.update(wanted.attributes)
        attributes = changed_attributes(attributes, attribute_changes)
        check_attributes(attributes)
        return self._put(dataclasses.replace(wanted, attributes=attributes))

    def create_on_send(
        self, topic: str, default_topic: str, queue_nums: int, topic_sys_flag: int
    ) -> TopicConfig | None:
        """A send met an unknown topic: copy the template it names, if that may be inherited from.

        TopicNotExist when automatic creation is off, or the template is unknown or may not be inherited from.
        None: it exists already.
        """
        if topic in self._topics:
            return None
        names.check_topic(topic)
        if names.is_retry_topic(topic) or names.is_dlq_topic(topic):
            return self.create_retry_topic(topic, 1, topic_sys_flag)
        if self.is_system(topic) and topic != names.TRACE_TOPIC:  # clients make that one by tracing
            raise NoPermission(f"topic [{topic}] is reserved: choose another name")
        template = self._topics.get(default_topic)
        if template is None or (default_topic == names.AUTO_CREATE_TOPIC and not self._auto_create):
            raise TopicNotExist(
                f"topic [{topic}] does not exist and a send may not create it: create it with updateTopic, "
                "or let sends do so with autoCreateTopicEnable=true"
            )
        if not template.inherited:
            raise TopicNotExist(
                f"topic [{topic}] does not exist, and template [{default_topic}] may not be inherited from"
            )
        queues = max(1, min(queue_nums, template.write_queue_nums))
        return self._put(
            TopicConfig(
                topic,
                queues,
                queues,
                template.perm & ~PERM_INHERIT,
                template.topic_filter_type,
                topic_sys_flag,
            )
        )

    def create_retry_topic(self, topic: str, queue_nums: int, topic_sys_flag: int = 0) -> TopicConfig | None:
        """A group's retry or dead-letter topic, made on first use; None when it exists or needs no queue."""
        if topic in self._topics or queue_nums <= 0:
            return None
        names.check_topic(topic)
        return self._put(
            TopicConfig(topic, queue_nums, queue_nums, PERM_READ_WRITE, topic_sys_flag=topic_sys_flag)
        )

    def delete(self, topic: str) -> bool:
        """An administrator deletes a topic with its queues; False when it does not exist."""
        if not topic.strip():
            raise InvalidParameter("the topic name may not be blank")
        if self.is_system(topic):
            raise InvalidParameter(f"topic [{topic}] belongs to the broker and cannot be deleted")
        if topic not in self._topics:
            return False
        assert self._waiting is None, "a deletion ends the queues: it has a write of its own"
        with self._changing():
            del self._topics[topic]
            self._deleted.setdefault(topic, [])
            self._ending.add(topic)
        try:
            self._finish_delete(topic)
        except ServiceNotAvailable as error:
            log.event(_logger, logging.WARNING, "deletion_not_finished", topic=topic, reason=error)
        return True

    def end_unknown(self, topic: str) -> None:
        """End the queues of a topic that is in no table: recovery found its files, or they were restored."""
        assert topic not in self._topics
        with self._changing():
            self._deleted.setdefault(topic, [])
        self._finish_delete(topic)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Make the changes inside, then one new version of them durable; then new topics get their queues.

        ServiceNotAvailable undoes all of them. Nothing is written when nothing was changed. May be nested:
        the outermost writes.
        """
        if self._waiting is not None:
            yield
            return
        before = dict(self._topics), dict(self._deleted), set(self._ending), self.data_version
        self._dirty, self._waiting = False, []
        try:
            yield
            if self._dirty:
                self.data_version = self.data_version.next(self._clock.now_ms())
                self._write()
            changed = self._waiting
        except BaseException:
            self._topics, self._deleted, self._ending, self.data_version = before
            raise
        finally:
            self._waiting = None
        if changed:
            faults.reach("topic.saved")
        for config in changed:
            self._make_queues(config)
        if changed:
            faults.reach("topic.made")

    def touch(self) -> None:
        """Move the version without a change: a name server that holds this one would not look again."""
        with self._changing():
            pass

    def set_auto_create(self, enabled: bool) -> None:
        """An operator changed `autoCreateTopicEnable`."""
        self._auto_create = enabled

    # -- inside --

    def _put(self, config: TopicConfig) -> TopicConfig | None:
        if self._topics.get(config.topic_name) == config:
            return None
        waiting = self._waiting or []
        self._queues.reserve(sum(map(self._missing_queues, (*waiting, config))))
        with self._changing():
            self._topics[config.topic_name] = config
            self._ending.discard(config.topic_name)
            assert self._waiting is not None
            self._waiting.append(config)
        return config

    def _missing_queues(self, config: TopicConfig) -> int:
        return max(0, config.queue_nums - self._queues.count(config.topic_name))

    def _make_queues(self, config: TopicConfig) -> None:
        """Add the queues the page does not have yet; a topic made again goes on from its last maxima."""
        first = self._queues.count(config.topic_name)
        if first >= config.queue_nums:
            return
        last = self._deleted.get(config.topic_name, [])
        queue_ids = range(first, config.queue_nums)
        starts = [last[queue_id] if queue_id < len(last) else 0 for queue_id in queue_ids]
        self._queues.create(config.topic_name, first, starts)

    def _finish_delete(self, topic: str) -> None:
        """Retire the queues and remember their maxima, with those of the topic's earlier lives."""
        maxima = self._queues.retire(topic)
        known = self._deleted[topic]
        length = max(len(maxima), len(known))
        both = zip(maxima + [0] * (length - len(maxima)), known + [0] * (length - len(known)), strict=True)
        self._deleted[topic] = [max(pair) for pair in both]
        if not any(self._deleted[topic]):
            del self._deleted[topic]  # it never had a message: nothing to go on from
        self._ending.discard(topic)
        self._write()  # unchanged content is not written again
        faults.reach("delete.saved")
        self._queues.remove_files(topic)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Make one change, alone or `together` with others."""
        with self.together():
            yield
            self._dirty = True

    def _write(self) -> None:
        """Replace topics.json; the text of a topic that did not change is made only once."""
        deleted: dict[str, Any] = {_DELETED: dict(sorted(self._deleted.items()))} if self._deleted else {}
        if self._ending:
            deleted[_ENDING] = sorted(self._ending)
        rows = []
        for config in self:
            known = self._rows.get(config.topic_name)
            if known is None or known[0] is not config:  # a changed topic is another object
                row = prepared_row(config.topic_name, config.to_json(), 1)
                known = self._rows[config.topic_name] = (config, row)
            rows.append(known[1])
        if len(self._rows) > len(rows):
            self._rows = {name: row for name, row in self._rows.items() if name in self._topics}
        version = self.data_version.to_json()
        self._file.save({"dataVersion": version, **deleted, "topicConfigTable": prepared_table(rows, 1)})


def _check_numbers(config: TopicConfig) -> None:
    """Refuse queue numbers and permissions no topic can have."""
    for what, count in (
        ("readQueueNums", config.read_queue_nums),
        ("writeQueueNums", config.write_queue_nums),
    ):
        if not 1 <= count <= QUEUE_NUMS_MAX:
            raise InvalidParameter(f"{what}={count}: a topic has 1 to {QUEUE_NUMS_MAX} queues")
    if not 0 <= config.perm <= PERM_MAX:
        raise InvalidParameter(
            f"perm={config.perm}: allowed is 0..{PERM_MAX}, a sum of 4 read, 2 write and 1 inherit"
        )
