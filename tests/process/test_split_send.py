"""A list of any length, topics and queues is sent as batches; order per queue, and what failed, are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shmq import Message, MessageQueue, Producer, PullConsumer
from shmq.embedded import Broker
from shmq.model.message import Message as AnyMessage


def bodies_of(broker: Broker, topic: str) -> dict[int, list[bytes]]:
    """The bodies of each queue in order."""
    found: dict[int, list[bytes]] = {}
    with PullConsumer("SplitReader", namesrv_addr=broker.namesrv_addr) as consumer:
        for queue in consumer.fetch_subscribe_message_queues(topic):
            offset, end = 0, consumer.max_offset(queue)
            while offset < end:
                result = consumer.pull(queue, "*", offset, 500)
                found.setdefault(queue.queue_id, []).extend(m.body for m in result.messages)
                offset = result.next_begin_offset
    return found


def by_first_byte(queues: Sequence[MessageQueue], message: AnyMessage, argument: Any) -> MessageQueue:
    return queues[message.body[0] % len(queues)]


def test_a_mixed_list_arrives_whole_and_in_order(shared_broker: Broker) -> None:
    with Producer("Split", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.create_topic("SplitA", 4)
        producer.create_topic("SplitB", 4)
        mixed = [Message("SplitA" if n % 3 else "SplitB", bytes([n % 4]) + b"%d" % n) for n in range(400)]
        mixed[100].delay_level = 1  # may not be part of a batch
        pieces = producer.send_split(mixed, selector=by_first_byte)
    assert all(piece.error is None and piece.result is not None for piece in pieces)
    assert sum(len(piece.messages) for piece in pieces) == 400
    assert len(pieces) == 8 + 2  # 8 queues; the delayed message cuts one of them in three
    for topic in ("SplitA", "SplitB"):
        for queue_id, bodies in bodies_of(shared_broker, topic).items():
            wanted = [
                m.body for m in mixed if m.topic == topic and m.body[0] == queue_id and not m.delay_level
            ]
            assert [body for body in bodies if body != mixed[100].body] == wanted


def test_a_long_list_becomes_several_batches(shared_broker: Broker) -> None:
    with Producer(
        "SplitLong", namesrv_addr=shared_broker.namesrv_addr, max_message_size=64 << 10
    ) as producer:
        producer.create_topic("SplitLong", 4)
        messages = [Message("SplitLong", b"%4d" % n + bytes(1000)) for n in range(300)]
        pieces = producer.send_split(messages)
    assert len(pieces) > 4 and len({piece.queue for piece in pieces}) == 1
    (bodies,) = bodies_of(shared_broker, "SplitLong").values()
    assert bodies == [message.body for message in messages]


def test_what_failed_is_told_and_nothing_overtakes_it(shared_broker: Broker) -> None:
    with Producer("SplitBad", namesrv_addr=shared_broker.namesrv_addr, max_message_size=64 << 10) as producer:
        producer.create_topic("SplitBad", 2)
        good = [Message("SplitBad", b"\x00good %d" % n) for n in range(3)]
        bad = Message("SplitBad", b"\x01" + bytes(100_000))
        behind = Message("SplitBad", b"\x01behind")
        pieces = producer.send_split([good[0], bad, good[1], behind, good[2]], selector=by_first_byte)
    outcomes = [(len(piece.messages), piece.queue.queue_id, piece.error is None) for piece in pieces]
    assert outcomes == [(3, 0, True), (1, 1, False), (1, 1, False)]
    assert "64" in str(pieces[1].error) or "65536" in str(pieces[1].error)
    assert bodies_of(shared_broker, "SplitBad") == {0: [message.body for message in good]}
    assert producer.send_split([]) == []
