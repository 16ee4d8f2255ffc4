"""What a push consumer's pull loop does: flow control, pauses, errors, offsets out of range.

Each test names the line of the behaviour checklist it holds (docs/checklist.md); the broker is scripted.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from shmq import ConsumeConcurrentlyStatus, ConsumeFromWhere, MessageExt, PushConsumer
from shmq.protocol.codes import ResponseCode
from tests.helpers.stub_cluster import StubNameServer, refuses
from tests.helpers.stub_queue import StubQueueBroker
from tests.helpers.waiting import wait_until

MIB = 1 << 20
SETTLE_S = 0.4
"""Eight turns of the 50 ms wait: a loop that does not wait would pull dozens of times meanwhile."""


class Listener:
    """Counts messages; holds the calling threads while `gate` is closed."""

    def __init__(self, *, closed: bool = False) -> None:
        self.gate = threading.Event()
        self.offsets: list[int] = []
        if not closed:
            self.gate.set()

    def __call__(self, messages: list[MessageExt], context: object) -> ConsumeConcurrentlyStatus:
        self.gate.wait(20)
        self.offsets += [message.queue_offset for message in messages]
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS


@pytest.fixture
def broker() -> Iterator[StubQueueBroker]:
    """A broker with one queue of topic `T`."""
    with contextlib.closing(StubQueueBroker("broker-a")) as running:
        yield running


@contextlib.contextmanager
def _consuming(
    broker: StubQueueBroker, listener: Listener, expression: str = "*", **settings: object
) -> Iterator[PushConsumer]:
    with contextlib.closing(StubNameServer()) as namesrv:
        namesrv.add("T", broker, queues=1)
        consumer = PushConsumer(
            "ChecklistConsumer",
            namesrv_addr=namesrv.address,
            consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
            persist_consumer_offset_interval_ms=200,
            **settings,
        )
        consumer.subscribe("T", expression)
        consumer.register_message_listener(listener)
        try:
            with consumer:
                yield consumer
        finally:
            listener.gate.set()


def _stands_still(broker: StubQueueBroker) -> int:
    """Wait until no pull comes any more and return how many came."""
    wait_until(lambda: broker.pulls and time.monotonic() - broker.pulls[-1][0] > SETTLE_S, limit_s=10)
    return len(broker.pulls)


def test_129_a_queue_with_1000_messages_in_hand_is_pulled_and_with_more_is_not(
    broker: StubQueueBroker,
) -> None:
    broker.fill(1100)
    listener = Listener(closed=True)
    with _consuming(broker, listener, pull_batch_size=100):
        _stands_still(broker)
        # 1000 in hand are not too many: one more pull, which makes them 1100.
        assert [offset for _, offset in broker.pulls] == list(range(0, 1100, 100))
        listener.gate.set()
        wait_until(lambda: len(listener.offsets) == 1100, limit_s=20)


@pytest.mark.long
def test_130_a_queue_with_over_100_mib_in_hand_is_not_pulled(broker: StubQueueBroker) -> None:
    broker.fill(30, body_bytes=4 * MIB - 1024)
    listener = Listener(closed=True)
    with _consuming(broker, listener, pull_batch_size=1):
        _stands_still(broker)
        in_hand = broker.pulls[-1][1] + 1
        assert 25 <= in_hand <= 27
        listener.gate.set()
        wait_until(lambda: len(listener.offsets) == 30, limit_s=20)


@pytest.mark.long
def test_132_133_a_suspended_consumer_pulls_nothing_and_goes_on_when_resumed(
    broker: StubQueueBroker,
) -> None:
    broker.fill(5)
    listener = Listener()
    with _consuming(broker, listener) as consumer:
        wait_until(lambda: len(listener.offsets) == 5)
        consumer.suspend()
        _stands_still(broker)
        pulled = len(broker.pulls)
        broker.fill(5)
        time.sleep(SETTLE_S)  # the absence of pulls is what is tested
        assert len(broker.pulls) == pulled
        consumer.resume()
        resumed = time.monotonic()
        wait_until(lambda: len(broker.pulls) > pulled)
        assert broker.pulls[pulled][0] - resumed < 1.2
        wait_until(lambda: len(listener.offsets) == 10)


def test_132_messages_in_hand_are_consumed_after_suspend(broker: StubQueueBroker) -> None:
    broker.fill(5)
    listener = Listener(closed=True)
    with _consuming(broker, listener) as consumer:
        wait_until(lambda: len(broker.pulls) > 1)
        consumer.suspend()
        listener.gate.set()
        wait_until(lambda: len(listener.offsets) == 5)


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "least_s", "most_s"),
    [
        pytest.param(ResponseCode.FLOW_CONTROL, 0.015, 0.5, id="134-flow-control"),
        pytest.param(ResponseCode.SYSTEM_ERROR, 0.95, 2.0, id="135-error"),
        pytest.param(ResponseCode.SUBSCRIPTION_NOT_LATEST, 0.095, 0.8, id="135-not-latest"),
    ],
)
def test_134_135_the_next_pull_waits_as_long_as_the_refusal_asks(
    broker: StubQueueBroker, code: int, least_s: float, most_s: float
) -> None:
    broker.fill(1)
    broker.pull_script = [refuses(code)]
    listener = Listener()
    with _consuming(broker, listener):
        wait_until(lambda: listener.offsets, limit_s=10)
    (first, _), (second, _) = broker.pulls[:2]
    assert least_s <= second - first <= most_s


@pytest.mark.long
def test_136_pulls_are_at_least_the_pull_interval_apart(broker: StubQueueBroker) -> None:
    broker.fill(4)
    listener = Listener()
    with _consuming(broker, listener, pull_batch_size=1, pull_interval_ms=300):
        wait_until(lambda: len(listener.offsets) == 4, limit_s=10)
    moments = [moment for moment, _ in broker.pulls[:4]]
    assert all(later - earlier >= 0.29 for earlier, later in pairwise(moments))


def test_137_an_offset_above_the_maximum_continues_at_the_maximum(broker: StubQueueBroker) -> None:
    broker.fill(10)
    broker.committed = 500
    listener = Listener()
    with _consuming(broker, listener):
        wait_until(lambda: any(offset == 10 for _, offset in broker.pulls), limit_s=10)
        broker.fill(3)
        wait_until(lambda: len(listener.offsets) == 3, limit_s=10)
    assert broker.pulls[0][1] == 500
    assert listener.offsets == [10, 11, 12]


def test_138_an_offset_below_the_minimum_continues_there_and_loses_nothing_newer(
    broker: StubQueueBroker,
) -> None:
    broker.fill(20)
    broker.min_offset = 15
    broker.committed = 3
    listener = Listener()
    with _consuming(broker, listener):
        wait_until(lambda: len(listener.offsets) == 5, limit_s=10)
    assert broker.pulls[0][1] == 3
    assert sorted(listener.offsets) == [15, 16, 17, 18, 19]


def test_139_the_committed_offset_advances_over_messages_that_do_not_match(broker: StubQueueBroker) -> None:
    broker.fill(40, tag="TagB")
    listener = Listener()
    with _consuming(broker, listener, "TagA", post_subscription_when_pull=True):
        wait_until(lambda: broker.committed == 40, limit_s=10)
    assert listener.offsets == []
