"""Round robin and selectors."""

from __future__ import annotations

from collections import Counter

import pytest

from shmq.base.errors import ClientFault
from shmq.client.queue_selection import (
    RoundRobin,
    apply_selector,
    choose_queue,
    select_by_hash,
    select_by_random,
)
from shmq.model.message import Message
from shmq.model.message_queue import MessageQueue

MESSAGE = Message("T", b"x")


def queues(count: int) -> list[MessageQueue]:
    return [MessageQueue("T", "broker-a", n) for n in range(count)]


def test_one_thread_spreads_400_messages_evenly_over_4_queues() -> None:
    turn = RoundRobin()
    chosen = Counter(choose_queue(queues(4), turn, None).queue_id for _ in range(400))
    assert chosen == {0: 100, 1: 100, 2: 100, 3: 100}


@pytest.mark.parametrize(
    ("argument", "queue_id"),
    [(7, 7), (-7, 7), (15103111039, 8), ("order", 0), (2**31 - 1, 7), (-(2**31), 8)],
)
def test_hash_selector_follows_java(argument: object, queue_id: int) -> None:
    assert select_by_hash(queues(10), MESSAGE, argument).queue_id == queue_id


def test_equal_arguments_choose_the_same_queue() -> None:
    assert len({select_by_hash(queues(8), MESSAGE, "customer-17") for _ in range(20)}) == 1
    assert len({select_by_random(queues(8), MESSAGE, None) for _ in range(200)}) > 1


def test_a_selector_that_raises_or_returns_nothing_is_the_callers_fault() -> None:
    with pytest.raises(ClientFault, match="raised ZeroDivisionError") as caught:
        apply_selector(lambda *_: queues(1)[1 // 0], queues(1), MESSAGE, None)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(ClientFault, match="returned no queue"):
        apply_selector(lambda *_: None, queues(1), MESSAGE, None)
