"""What a client leaves out while its consumers rest, and when it asks all the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from shmq.client.links import BrokerLink
from shmq.client.rest import ASK_MAX_S, ASK_S, NAMED_S, SIGN_S, STILL_S, Rest
from shmq.client.routes import Routes

HERE, THERE = (cast(BrokerLink, name) for name in ("here", "there"))


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Consumer:
    """A consumer that reads some topics and rests on others."""

    def __init__(self, reads: str, rests: str = "", waited: Mapping[Any, float] | None = None) -> None:
        self.reads, self.rests, self.waited = set(reads), set(rests), waited or {}

    def subscribed_topics(self) -> set[str]:
        return self.reads

    def resting_topics(self) -> set[str]:
        return self.rests

    def waited_s(self, link: BrokerLink) -> float:
        return self.waited.get(link, -math.inf)


class Asked:
    """Routes as far as a rest asks for them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked_s: dict[str, float] = {}
        self.brokers: dict[str, set[str]] = {}
        self.next_brokers: dict[str, set[str]] = {}

    def age_s(self, topic: str) -> float:
        return self.clock.now_s - self.asked_s.get(topic, -math.inf)

    def readable_at(self, topic: str) -> set[str]:
        return self.brokers.get(topic, {"here"})

    def refresh_each(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self.asked_s[topic] = self.clock.now_s
            self.brokers[topic] = self.next_brokers.get(topic, {"here"})


class World:
    """A rest with its surroundings."""

    def __init__(self, *consumers: Consumer, published: str = "") -> None:
        self.clock = Clock()
        self.consumers, self.published = list(consumers), set(published)
        self.routes = Asked(self.clock)
        self.balances = 0
        self.rest = Rest(
            cast(Routes, self.routes),
            lambda: self.consumers,
            lambda: set(self.published),
            self._balance,
            self.clock,
        )

    def _balance(self) -> None:
        self.balances += 1


def test_routes_of_topics_are_asked_for_as_long_as_anybody_needs_them() -> None:
    assert World(Consumer("ab", "ab")).rest.topics() == {"a", "b"}
    assert World(Consumer("ab", "a")).rest.topics() == {"a"}
    assert World(Consumer("ab", "ab"), Consumer("b")).rest.topics() == {"a"}
    assert World(Consumer("ab", "ab"), published="a").rest.topics() == {"b"}
    assert World(published="a").rest.topics() == set()


def test_routes_are_known_for_five_minutes_and_asked_for_after_two_when_a_wait_is_over() -> None:
    world = World(Consumer("ab", "a"))
    assert world.rest.told_topics() == set(), "never asked yet"
    assert world.rest.wait_ended(None) <= world.clock.now_s
    assert world.rest.ask() == math.inf and set(world.routes.asked_s) == {"a"}
    assert world.rest.told_topics() == {"a"} and not world.balances
    world.clock.now_s += ASK_S - 1
    world.rest.ask()
    assert world.routes.age_s("a") == ASK_S - 1
    world.clock.now_s += 1
    world.routes.next_brokers = {"a": {"here", "there"}}
    world.rest.ask()
    assert world.routes.age_s("a") == 0 and world.balances == 1, "a further broker"
    world.clock.now_s += ASK_MAX_S
    assert world.rest.told_topics() == set()


def test_a_changed_topic_is_asked_for_when_name_servers_know_whatever_else_is_asked() -> None:
    world = World(Consumer("ab", "ab"))
    world.rest.ask()
    due_s = world.rest.wait_ended(["a"])
    assert due_s == world.clock.now_s + NAMED_S and world.balances == 1
    assert world.rest.wait_ended([]) == due_s, "the group alone"
    world.clock.now_s += NAMED_S / 2
    assert world.rest.wait_ended(None) <= world.clock.now_s, "another consumer's"
    assert world.rest.ask() == due_s and world.routes.age_s("a") == NAMED_S / 2, "too early for that"
    world.clock.now_s = due_s
    balances = world.balances
    assert world.rest.ask() == math.inf and world.routes.age_s("a") == 0 < world.routes.age_s("b")
    assert world.balances == balances + 1


def test_members_are_asked_for_unless_all_rest_and_the_last_answer_is_young() -> None:
    world = World(Consumer("ab", "ab"), Consumer("c", "c"))
    assert not world.rest.may_skip_balance(), "never asked yet"
    world.rest.balanced()
    assert world.rest.may_skip_balance()
    world.consumers.append(Consumer("d"))
    assert not world.rest.may_skip_balance()
    world.consumers.pop()
    world.clock.now_s += ASK_MAX_S - 1
    assert world.rest.may_skip_balance()
    world.clock.now_s += 1
    assert not world.rest.may_skip_balance()


def test_a_wait_stands_for_the_heartbeat_that_the_same_broker_took() -> None:
    world = World()
    rest = world.rest
    world.consumers.append(Consumer("a", "a", {HERE: world.clock.now_s}))
    assert not rest.may_skip_beat(HERE, b"one"), "not told yet"
    rest.told(HERE, b"one")
    assert rest.may_skip_beat(HERE, b"one")
    assert not rest.may_skip_beat(HERE, b"two"), "something new to say"
    rest.told(THERE, b"one")
    assert not rest.may_skip_beat(THERE, b"one"), "no wait there"
    rest.forget(HERE)
    assert not rest.may_skip_beat(HERE, b"one"), "another connection"
    rest.told(HERE, b"one")
    world.consumers.clear()
    assert not rest.may_skip_beat(HERE, b"one")


def test_a_sign_of_life_and_a_heartbeat_grow_old() -> None:
    world = World(Consumer("a", "a", {HERE: Clock().now_s}))
    (consumer,), rest = world.consumers, world.rest
    rest.told(HERE, b"one")
    world.clock.now_s += SIGN_S
    assert not rest.may_skip_beat(HERE, b"one")
    consumer.waited = {HERE: world.clock.now_s}
    assert rest.may_skip_beat(HERE, b"one")
    world.clock.now_s += ASK_MAX_S - SIGN_S
    consumer.waited = {HERE: world.clock.now_s}
    assert not rest.may_skip_beat(HERE, b"one")


def test_a_process_that_stood_still_notices() -> None:
    world = World()
    for passed_s, is_well in ((30, True), (STILL_S, False), (30, True)):
        world.clock.now_s += passed_s
        assert world.rest.look() is is_well
