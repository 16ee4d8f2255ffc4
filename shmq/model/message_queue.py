"""MessageQueue: one queue of one topic on one broker, the unit of ordering and of sharing among consumers."""

from typing import NamedTuple


class MessageQueue(NamedTuple):
    """A queue's full name. Sorts by topic, broker name, queue id, the order all clients must agree on."""

    topic: str
    broker_name: str
    queue_id: int

    def __str__(self) -> str:
        """Return RocketMQ's printed form; consistent-hash allocation hashes exactly this text."""
        return f"MessageQueue [topic={self.topic}, brokerName={self.broker_name}, queueId={self.queue_id}]"
