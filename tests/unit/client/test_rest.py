"""What a client leaves out while its consumers rest, and when it asks all the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from shmq.client.links import BrokerLink
from shmq.client.rest import ASK_MAX_S, SIGN_S, Rest

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


def test_routes_of_topics_are_asked_for_as_long_as_anybody_needs_them() -> None:
    assert Rest.topics([Consumer("ab", "ab")], set()) == {"a", "b"}
    assert Rest.topics([Consumer("ab", "a")], set()) == {"a"}
    assert Rest.topics([Consumer("ab", "ab"), Consumer("b")], set()) == {"a"}
    assert Rest.topics([Consumer("ab", "ab")], {"a"}) == {"b"}
    assert Rest.topics([], {"a"}) == set()


def test_members_are_asked_for_unless_all_rest_and_the_last_answer_is_young() -> None:
    clock = Clock()
    rest = Rest(clock)
    resting = [Consumer("ab", "ab"), Consumer("c", "c")]
    assert not rest.may_skip_balance(resting), "never asked yet"
    rest.balanced()
    assert rest.may_skip_balance(resting)
    assert not rest.may_skip_balance([*resting, Consumer("d")])
    clock.now_s += ASK_MAX_S - 1
    assert rest.may_skip_balance(resting)
    clock.now_s += 1
    assert not rest.may_skip_balance(resting)


def test_a_wait_stands_for_the_heartbeat_that_the_same_broker_took() -> None:
    clock = Clock()
    rest = Rest(clock)
    waits = [Consumer("a", "a", {HERE: clock.now_s})]
    assert not rest.may_skip_beat(HERE, b"one", waits), "not told yet"
    rest.told(HERE, b"one")
    assert rest.may_skip_beat(HERE, b"one", waits)
    assert not rest.may_skip_beat(HERE, b"two", waits), "something new to say"
    assert not rest.may_skip_beat(THERE, b"one", waits)
    rest.told(THERE, b"one")
    assert not rest.may_skip_beat(THERE, b"one", waits), "no wait there"
    assert not rest.may_skip_beat(HERE, b"one", [])
    rest.forget(HERE)
    assert not rest.may_skip_beat(HERE, b"one", waits), "another connection"


def test_a_sign_of_life_and_a_heartbeat_grow_old() -> None:
    clock = Clock()
    rest = Rest(clock)
    consumer = Consumer("a", "a", {HERE: clock.now_s})
    rest.told(HERE, b"one")
    clock.now_s += SIGN_S
    assert not rest.may_skip_beat(HERE, b"one", [consumer])
    consumer.waited = {HERE: clock.now_s}
    assert rest.may_skip_beat(HERE, b"one", [consumer])
    clock.now_s += ASK_MAX_S - SIGN_S
    consumer.waited = {HERE: clock.now_s}
    assert not rest.may_skip_beat(HERE, b"one", [consumer])


def test_a_process_that_stood_still_notices() -> None:
    clock = Clock()
    rest = Rest(clock)
    clock.now_s += 30
    assert rest.look()
    clock.now_s += SIGN_S
    assert not rest.look()
    clock.now_s += 30
    assert rest.look()
