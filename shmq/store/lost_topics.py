"""Making `config/topics.json` again when it is gone with its backup: from the ConsumeQueues that are there.

Without a row a topic would be nobody's: its messages are in the log, and no client would find them. What the
queues' folders tell is the topics' names and how many queues were written to; permissions and attributes are
RocketMQ's defaults. System topics are the coordinator's to make. Recovery only, under the store lock.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from pathlib import Path

from shmq.base import log
from shmq.base.file_sums import announce
from shmq.base.files import write_durably
from shmq.model.names import is_system_topic
from shmq.store.names import StoreLayout
from shmq.store.queue_repair import find_queues

_logger = log.get(__name__)


def restore_topics(layout: StoreLayout, changed: Collection[Path]) -> None:
    """Write topics.json when it is among the `changed` files and gone, and so is its backup.

    Nothing is written when no topic is found. OSError when the disk refuses.
    """
    path = layout.config / "topics.json"
    if path not in changed or path.exists() or path.with_name(path.name + ".bak").exists():
        return
    counts: dict[str, int] = {}
    for topic, queue_id in find_queues(layout):
        if not is_system_topic(topic):
            counts[topic] = max(counts.get(topic, 0), queue_id + 1)
    if not counts:
        return
    rows = {
        topic: {"topicName": topic, "readQueueNums": count, "writeQueueNums": count, "perm": 6}
        for topic, count in counts.items()
    }
    content = json.dumps({"topicConfigTable": rows}, indent=1).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    announce(layout.checksums, path, content)
    write_durably(path, content, backup=False)
    log.event(_logger, logging.CRITICAL, "topics_found_again", topics=len(rows), settings="defaults")
