"""Looking at a whole broker of a test: everything in a topic, and who its coordinator is."""

from __future__ import annotations

import psutil

from shmq import MessageExt, PullConsumer, PullStatus
from shmq.embedded import Broker


def read_all(broker: Broker, topic: str) -> list[MessageExt]:
    """Everything in a topic, queue by queue."""
    found: list[MessageExt] = []
    with PullConsumer("TopicReader", namesrv_addr=broker.namesrv_addr) as reader:
        for queue in reader.fetch_subscribe_message_queues(topic):
            offset = 0
            while (result := reader.pull(queue, "*", offset, 32)).status is PullStatus.FOUND:
                found += result.messages
                offset = result.next_begin_offset
    return found


def coordinator_of(broker: Broker) -> int:
    """The pid of a broker's coordinator."""
    return process_of(broker, "coordinator")


def process_of(broker: Broker, name: str) -> int:
    """The pid of a broker's process: "coordinator", "worker 0" ..."""
    names = {child: child.cmdline() for child in psutil.Process(broker.pid).children(recursive=True)}
    (found,) = [child.pid for child, words in names.items() if name in " ".join(words)]
    return found
