"""A topic with numbered messages, as tests of consuming read it."""

from __future__ import annotations

from shmq import Message, MessageQueue, Producer
from shmq.embedded import Broker


def filled(broker: Broker, topic: str, count: int, **message: object) -> MessageQueue:
    """A topic with one queue and messages 0, 1, 2 ... in it."""
    with Producer("Filling", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, 1)
        queue = producer.fetch_publish_message_queues(topic)[0]
        for number in range(count):
            producer.send(Message(topic, b"%d" % number, **message), queue=queue)  # type: ignore[arg-type]
    return queue
