"""Which queue a message goes to: round robin, selectors, and the avoidance of slow brokers.

Round robin counts per thread from a random start, so one thread spreads 400 messages over 4 queues as 100
each (Apache RocketMQ 5.3, TopicPublishInfo.java, SelectMessageQueueByHash.java). Pure but for the counter.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from shmq.base.errors import ClientFault
from shmq.client.latency_faults import LatencyFaults
from shmq.model.message import Message
from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import java_hash

MessageQueueSelector = Callable[[Sequence[MessageQueue], Message, Any], MessageQueue | None]
"""Gets the publish list, the message and the caller's argument; returns one of the queues."""


class RoundRobin(threading.local):
    """This thread's turn for one topic."""

    def __init__(self) -> None:
        """Start somewhere at random, in each thread anew."""
        self.turn = random.randrange(1 << 20)

    def next(self) -> int:
        """Return the next turn."""
        self.turn += 1
        return self.turn


def choose_queue(queues: Sequence[MessageQueue], turn: RoundRobin, avoid_broker: str | None) -> MessageQueue:
    """Return the next queue; on a retry one of another broker than `avoid_broker`, when there is one."""
    if avoid_broker is not None:
        for _ in queues:
            queue = queues[turn.next() % len(queues)]
            if queue.broker_name != avoid_broker:
                return queue
    return queues[turn.next() % len(queues)]


def choose_tolerant(
    queues: Sequence[MessageQueue], turn: RoundRobin, avoid_broker: str | None, faults: LatencyFaults
) -> MessageQueue:
    """Return a queue of an available broker, else of a reachable one, else plain round robin."""
    for accepts in (faults.is_available, faults.is_reachable):
        for _ in queues:
            queue = queues[turn.next() % len(queues)]
            if queue.broker_name != avoid_broker and accepts(queue.broker_name):
                return queue
    return choose_queue(queues, turn, None)


def select_by_hash(queues: Sequence[MessageQueue], message: Message, argument: Any) -> MessageQueue:
    """Selector: the same argument always goes to the same queue (as long as their number stays)."""
    value = argument if isinstance(argument, int) else java_hash(str(argument))
    if not -(1 << 31) <= value < 1 << 31:
        value = _long_hash(value)
    return queues[abs(value) % len(queues)]


def _long_hash(value: int) -> int:
    """Return the 32-bit hash of a 64-bit integer: its halves, exclusive-or."""
    value &= (1 << 64) - 1
    folded = (value ^ value >> 32) & 0xFFFFFFFF
    return folded - (1 << 32) if folded & 1 << 31 else folded


def select_by_random(queues: Sequence[MessageQueue], message: Message, argument: Any) -> MessageQueue:
    """Selector: any queue, with the same chance."""
    return random.choice(queues)


def apply_selector(
    selector: MessageQueueSelector, queues: Sequence[MessageQueue], message: Message, argument: Any
) -> MessageQueue:
    """Ask a user's selector; ClientFault when it raises or returns no queue."""
    try:
        queue = selector(queues, message, argument)
    except Exception as error:
        raise ClientFault(f"the queue selector raised {error!r}: nothing was sent") from error
    if queue is None:
        raise ClientFault("the queue selector returned no queue: nothing was sent")
    return queue
