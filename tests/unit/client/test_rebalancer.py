"""Rebalancer: taking and giving queues by the members' list, with brokers that fail or do not know us."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from shmq.client.consumer_config import ConsumerConfig
from shmq.client.errors import RemotingError
from shmq.client.process_queue import PULL_EXPIRED_MS
from shmq.client.rebalancer import Owned, Rebalancer
from shmq.client.subscriptions import Subscriptions
from shmq.model.consumer_group import MessageModel
from shmq.model.message_queue import MessageQueue

QUEUES = [MessageQueue("T", "broker-a", n) for n in range(8)]


class World:
    """A client instance, a broker and a consumer, as far as a rebalancer sees them."""

    def __init__(self, **settings: Any) -> None:
        self.ids: list[str] | Exception = ["me"]
        self.queues = {"T": QUEUES}
        self.log: list[str] = []
        self.asked = 0
        self.refuse: set[int] = set()
        self.changes: list[set[int]] = []
        self.subscriptions = Subscriptions()
        self.subscriptions.put_if_absent("T", "*")
        link = SimpleNamespace(duplex=lambda: None)
        instance = SimpleNamespace(
            client_id="me",
            routes=SimpleNamespace(
                subscribe_queues=lambda topic: self.queues.get(topic, []), reading_link=lambda name, at: link
            ),
            calls=SimpleNamespace(consumer_ids=lambda group, link: self.consumer_ids()),
        )
        config = ConsumerConfig(**settings)
        self.rebalancer = Rebalancer(
            instance,
            "G",
            config,
            self.subscriptions,
            self,
            pulls_itself=True,  # type: ignore[arg-type]
        )

    def consumer_ids(self) -> list[str]:
        self.asked += 1
        if isinstance(self.ids, Exception):
            raise self.ids
        return self.ids

    def first_offset(self, queue: MessageQueue) -> int:
        if queue.queue_id in self.refuse:
            raise RemotingError("no offset")
        return 100 + queue.queue_id

    def queue_taken(self, queue: MessageQueue, held: Owned, offset: int) -> None:
        self.log.append(f"take {queue.queue_id}@{offset}")

    def queue_dropped(self, queue: MessageQueue, held: Owned) -> None:
        assert held.dropped
        self.log.append(f"drop {queue.queue_id}")

    def queues_changed(self, topic: str, everyones: Sequence[MessageQueue], mine: set[MessageQueue]) -> None:
        self.changes.append({queue.queue_id for queue in mine})

    @property
    def owned(self) -> list[int]:
        return sorted(queue.queue_id for queue in self.rebalancer.owned)


def test_a_lone_member_takes_everything_once() -> None:
    world = World()
    assert world.rebalancer.run() and world.rebalancer.run()
    assert world.owned == list(range(8))
    assert world.log == [f"take {n}@{100 + n}" for n in range(8)] and len(world.changes) == 1


def test_queues_follow_the_members() -> None:
    world = World()
    world.rebalancer.run()
    world.ids = ["aa", "me", "zz"]
    assert world.rebalancer.run()
    assert world.owned == [3, 4, 5] and world.changes[-1] == {3, 4, 5}
    world.ids = ["me", "zz"]
    assert world.rebalancer.run()
    assert world.owned == [0, 1, 2, 3]


def test_a_broker_is_asked_for_the_members_once_a_round() -> None:
    world = World()
    world.queues["U"] = [MessageQueue("U", "broker-a", 0)]
    world.queues["V"] = [MessageQueue("V", "broker-b", 0)]
    world.subscriptions.put_if_absent("U", "*")
    world.subscriptions.put_if_absent("V", "*")
    world.rebalancer.run()
    assert world.asked == 2, "each of the two brokers"
    world.ids = ["aa", "me"]
    world.rebalancer.run()
    assert world.asked == 4 and len(world.owned) == 4, "and anew in the next round"


def test_a_failed_or_foreign_list_keeps_what_is_owned() -> None:
    world = World()
    world.rebalancer.run()
    for ids in (RemotingError("down"), [], ["somebody", "else"]):
        world.ids = ids
        assert not world.rebalancer.run()
        assert world.owned == list(range(8))


def test_a_queue_without_first_offset_waits_for_the_next_round() -> None:
    world = World()
    world.refuse = {2}
    assert not world.rebalancer.run() and 2 not in world.owned
    world.refuse = set()
    assert world.rebalancer.run() and 2 in world.owned


def test_unsubscribed_topics_are_released() -> None:
    world = World()
    world.rebalancer.run()
    world.subscriptions.remove("T")
    assert world.rebalancer.run() and world.owned == []


def test_dropped_and_stale_queues_are_taken_anew() -> None:
    world = World()
    world.rebalancer.run()
    world.rebalancer.owned[QUEUES[1]].dropped = True
    world.rebalancer.owned[QUEUES[5]].last_pull_ms -= PULL_EXPIRED_MS + 1
    world.log.clear()
    assert world.rebalancer.run()
    assert world.log == ["drop 1", "drop 5", "take 1@101", "take 5@105"]


def test_broadcasting_takes_every_queue_without_asking() -> None:
    world = World(message_model=MessageModel.BROADCASTING)
    world.ids = RemotingError("never asked")
    assert world.rebalancer.run() and world.owned == list(range(8))


def test_an_unknown_retry_topic_is_no_defect_but_another_unknown_topic_is() -> None:
    world = World()
    world.subscriptions.put_if_absent("%RETRY%G", "*")
    assert world.rebalancer.run()
    world.subscriptions.put_if_absent("Unknown", "*")
    assert not world.rebalancer.run()


def test_manual_assignment_owns_exactly_what_it_names() -> None:
    world = World()
    assert world.rebalancer.take_exactly({QUEUES[2], QUEUES[6]}) and world.owned == [2, 6]
    assert world.rebalancer.take_exactly({QUEUES[6]}) and world.owned == [6]
