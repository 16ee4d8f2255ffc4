"""ProcessQueue: the commit offset never passes a message that is still in hand."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from shmq.base.clock import now_ms
from shmq.client.process_queue import PULL_EXPIRED_MS, ProcessQueue


@dataclass(frozen=True)
class Stub:
    queue_offset: int
    store_size: int = 100


def filled(*offsets: int) -> ProcessQueue[Stub]:
    queue: ProcessQueue[Stub] = ProcessQueue()
    queue.put([Stub(offset) for offset in offsets])
    return queue


def test_a_slow_head_holds_the_offset_back() -> None:
    queue = filled(5, 6, 7)
    assert queue.remove([Stub(6), Stub(7)]) == 5
    assert queue.remove([Stub(5)]) == 8
    assert (queue.message_count, queue.message_bytes) == (0, 0)


def test_counts_span_and_head() -> None:
    queue = filled(10, 11, 2010)
    assert (queue.message_count, queue.message_bytes, queue.span) == (3, 300, 2000)
    assert queue.head(2) == [Stub(10), Stub(11)]
    queue.clear()
    assert (queue.message_count, queue.span) == (0, 0)


def test_a_message_put_twice_counts_once() -> None:
    queue = filled(1, 2)
    queue.put([Stub(2)])
    assert (queue.message_count, queue.message_bytes) == (2, 200)


def test_nothing_to_commit_before_the_first_message() -> None:
    assert ProcessQueue[Stub]().remove([]) == -1


def test_a_queue_nobody_pulls_is_noticed() -> None:
    queue = filled(1)
    assert not queue.pull_expired
    queue.last_pull_ms -= PULL_EXPIRED_MS + 1
    assert queue.pull_expired
    queue.waits_until_ms = now_ms() + 10_000
    assert not queue.pull_expired, "a wait is under way"
    queue.waits_until_ms = now_ms() - 1
    assert queue.pull_expired


@given(st.permutations(list(range(12))))
def test_the_offset_is_the_smallest_left_whatever_the_order_of_removal(order: list[int]) -> None:
    queue = filled(*range(12))
    left = set(range(12))
    for offset in order:
        left.discard(offset)
        assert queue.remove([Stub(offset)]) == min(left, default=12)
