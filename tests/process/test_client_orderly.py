"""Orderly push consumers on a real broker: one call at a time per queue, in order, whoever comes and goes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import defaultdict
from multiprocessing.queues import Queue as Results
from pathlib import Path

import pytest

from shmq import (
    ClientFault,
    ConsumeFromWhere,
    ConsumeOrderlyContext,
    ConsumeOrderlyStatus,
    Message,
    MessageExt,
    MessageModel,
    MessageQueue,
    Producer,
    PushConsumer,
    select_by_hash,
)
from shmq.client.orderly_locks import OrderlyLocks
from shmq.embedded import Broker
from tests.helpers.waiting import wait_until

SUCCESS = ConsumeOrderlyStatus.SUCCESS
SUSPEND = ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT
STEPS = (b"create", b"pay", b"push", b"finish")


def send(broker: Broker, topic: str, bodies: list[bytes], queues: int = 1) -> None:
    """Send into a new topic; the body's part before a blank chooses the queue."""
    with Producer("OrderlyTests", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic(topic, queues)
        for body in bodies:
            producer.send(Message(topic, body), selector=select_by_hash, argument=body.split()[0].decode())


def make(broker: Broker, topic: str, listener: object, **settings: object) -> PushConsumer:
    consumer = PushConsumer(
        f"{topic}Group",
        namesrv_addr=broker.namesrv_addr,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        **settings,
    )
    consumer.subscribe(topic)
    consumer.register_message_listener_orderly(listener)  # type: ignore[arg-type]
    return consumer


class Steps:
    """A listener that answers from a list, and notes what it was called with, when, and how often at once."""

    def __init__(self, *answers: object, manual: bool = False, pause_ms: int = -1) -> None:
        self.answers = list(answers)
        self.manual = manual
        self.pause_ms = pause_ms
        self.seen: list[tuple[bytes, int, float]] = []
        self.together = 0
        self.most = 0
        self.lock = threading.Lock()

    def __call__(self, messages: list[MessageExt], context: ConsumeOrderlyContext) -> object:
        with self.lock:
            self.together += 1
            self.most = max(self.most, self.together)
        context.auto_commit = not self.manual
        context.suspend_current_queue_time_millis = self.pause_ms
        (message,) = messages
        self.seen.append((bytes(message.body), message.reconsume_times, time.monotonic()))
        answer = self.answers.pop(0) if self.answers else SUCCESS
        with self.lock:
            self.together -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def bodies(self) -> list[bytes]:
        return [body for body, _, _ in self.seen]


def test_one_queue_is_consumed_in_order_by_one_call_at_a_time(shared_broker: Broker) -> None:
    """Checklist 164."""
    bodies = [b"x %d" % number for number in range(300)]
    send(shared_broker, "OrderlyOne", bodies)
    steps = Steps()
    with make(shared_broker, "OrderlyOne", steps) as consumer:
        wait_until(lambda: len(steps.seen) == 300, 20, "all are consumed")
        with pytest.raises(ClientFault, match="orderly"):
            _ = consumer.listener
    assert steps.bodies == bodies
    assert steps.most == 1


@pytest.mark.parametrize("bad", [SUSPEND, None, RuntimeError("no")], ids=["suspend", "nothing", "raised"])
def test_a_suspended_message_comes_again_before_any_later_one(shared_broker: Broker, bad: object) -> None:
    """Checklist 168, 169, 174: the same message first, after its pause, counted up."""
    topic = f"OrderlySuspend{type(bad).__name__}"
    send(shared_broker, topic, [b"x 1", b"x 2"])
    steps = Steps(bad, bad, pause_ms=100)
    with make(shared_broker, topic, steps):
        wait_until(lambda: len(steps.seen) == 4, 20, "both are consumed")
    assert [seen[:2] for seen in steps.seen] == [(b"x 1", 0), (b"x 1", 1), (b"x 1", 2), (b"x 2", 0)]
    assert steps.seen[1][2] - steps.seen[0][2] >= 0.1


def test_a_message_suspended_too_often_is_buried_and_the_queue_goes_on(shared_broker: Broker) -> None:
    """Checklist 170."""
    send(shared_broker, "OrderlyBad", [b"x 1", b"x 2"])
    steps = Steps(SUSPEND, SUSPEND, SUSPEND, pause_ms=10)
    with make(shared_broker, "OrderlyBad", steps, max_reconsume_times=2):
        wait_until(lambda: b"x 2" in steps.bodies, 20, "the queue goes on")
    assert steps.bodies == [b"x 1", b"x 1", b"x 1", b"x 2"]
    dead = PushConsumer(
        "OrderlyUndertaker",
        namesrv_addr=shared_broker.namesrv_addr,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    )
    dead.subscribe("%DLQ%OrderlyBadGroup")
    found = Steps()
    dead.register_message_listener_orderly(found)  # type: ignore[arg-type]
    with dead:
        wait_until(lambda: found.bodies == [b"x 1"], 20, "it is among the dead letters")


def test_without_auto_commit_only_commit_moves_the_offset(shared_broker: Broker) -> None:
    """Checklist 172, 173: SUCCESS alone is delivered again to the next member, ROLLBACK to this one."""
    status = ConsumeOrderlyStatus
    send(shared_broker, "OrderlyManual", [b"x %d" % number for number in range(5)])
    answers = [SUCCESS, status.COMMIT, SUCCESS, status.ROLLBACK, SUCCESS, SUCCESS, SUCCESS]
    steps = Steps(*answers, manual=True, pause_ms=10)
    with make(shared_broker, "OrderlyManual", steps):
        wait_until(lambda: len(steps.seen) == 7, 20, "everything was seen")
    assert steps.bodies == [b"x 0", b"x 1", b"x 2", b"x 3", b"x 2", b"x 3", b"x 4"]
    again = Steps()
    with make(shared_broker, "OrderlyManual", again):
        wait_until(lambda: len(again.seen) == 3, 20, "what was not committed comes again")
    assert again.bodies == [b"x 2", b"x 3", b"x 4"]


def test_a_queue_moves_only_after_its_running_call_has_ended(
    shared_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist 175: the new owner asks for the lock and is refused as long as the old one's call runs."""
    asked: list[tuple[str, bool]] = []
    original = OrderlyLocks.acquire

    def acquire(self: OrderlyLocks, queue: MessageQueue) -> bool:
        asked.append((self._instance.client_id, granted := original(self, queue)))
        return granted

    monkeypatch.setattr(OrderlyLocks, "acquire", acquire)
    send(shared_broker, "OrderlyMoves", [b"%d x" % number for number in range(8)], queues=2)
    may_end, running, overlaps = threading.Event(), set[int](), list[int]()

    def consume(messages: list[MessageExt], context: ConsumeOrderlyContext) -> ConsumeOrderlyStatus:
        queue_id = context.message_queue.queue_id
        if queue_id in running:
            overlaps.append(queue_id)
        running.add(queue_id)
        may_end.wait(30)
        running.discard(queue_id)
        return SUCCESS

    def owned(member: PushConsumer) -> list[MessageQueue]:
        return [queue for queue in member.assigned_queues if queue.topic == "OrderlyMoves"]

    with make(shared_broker, "OrderlyMoves", consume, instance_name="one") as old:
        wait_until(lambda: len(running) == 2, 20, "both queues are in a call")
        with make(shared_broker, "OrderlyMoves", consume, instance_name="two") as new:
            wait_until(lambda: len(owned(old)) == 1, 20, "the old member gave one away")
            asked.clear()
            wait_until(lambda: (new.client_id, False) in asked, 20, "the new member asks in vain")
            assert owned(new) == []
            may_end.set()
            wait_until(lambda: len(owned(new)) == 1, 20, "the queue is free")
    assert overlaps == []


def test_broadcasting_needs_no_lock(
    shared_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist 177: two members of one group have every queue."""
    monkeypatch.setenv("ROCKETMQ_LOCAL_OFFSET_STORE_DIR", str(tmp_path))
    send(shared_broker, "OrderlyAll", [b"x 1", b"x 2"])
    first, second = Steps(), Steps()
    settings = {"message_model": MessageModel.BROADCASTING}
    with (
        make(shared_broker, "OrderlyAll", first, instance_name="one", **settings),
        make(shared_broker, "OrderlyAll", second, instance_name="two", **settings),
    ):
        wait_until(lambda: first.bodies == second.bodies == [b"x 1", b"x 2"], 20, "both have both")


def _member(namesrv: str, topic: str, results: Results[tuple[int, bytes]]) -> None:
    """Consume orderly until killed, slowly enough that a kill finds work under way."""

    def consume(messages: list[MessageExt], context: ConsumeOrderlyContext) -> ConsumeOrderlyStatus:
        for message in messages:
            time.sleep(0.002)
            results.put((os.getpid(), bytes(message.body)))
        return SUCCESS

    consumer = PushConsumer(
        f"{topic}Group",
        namesrv_addr=namesrv,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    )
    consumer.subscribe(topic)
    consumer.register_message_listener_orderly(consume)
    with consumer:
        signal.pause()


@pytest.mark.long
def test_three_members_one_killed_keep_the_steps_of_every_order(shared_broker: Broker) -> None:
    """A killed member's queues are taken over where it had committed: steps may repeat, never overtake."""
    orders = 150
    bodies = [b"%d %s" % (order, step) for step in STEPS for order in range(orders)]
    send(shared_broker, "OrderlySteps", bodies, queues=6)
    spawn = multiprocessing.get_context("spawn")
    results: Results[tuple[int, bytes]] = spawn.Queue()
    arguments = (shared_broker.namesrv_addr, "OrderlySteps", results)
    members = [spawn.Process(target=_member, args=arguments, daemon=True) for _ in range(3)]
    seen: list[tuple[int, bytes]] = []

    def collect() -> set[bytes]:
        while not results.empty():
            seen.append(results.get())
        return {body for _, body in seen}

    try:
        for member in members:
            member.start()
        wait_until(lambda: len(collect()) > 50, 20, "work is under way")
        members[0].kill()
        wait_until(lambda: collect() == set(bodies), 100, "all steps of all orders are done")
    finally:
        for member in members:
            member.kill()
            member.join()
    reached: dict[bytes, int] = defaultdict(int)
    for _, body in seen:
        order, step = body.split()
        number = STEPS.index(step)
        assert number <= reached[order], f"{body!r} overtook an earlier step"
        reached[order] = max(reached[order], number + 1)
    assert set(reached.values()) == {len(STEPS)}
