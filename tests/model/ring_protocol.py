"""A model of parking and ringing: one sleeper, one appender that publishes and may die, a supervisor that
then rings all.

A plain store of either side may stay in its core's buffer while that side loads on. The steps follow
`shmq/shm/rings.py` and `doorbell.py`: change them together. The promise: the sleeper never sleeps for ever
behind the published maximum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple


class Sleeper(Enum):
    CLEAR_BELL = auto()
    LOOK = auto()
    PARK = auto()
    FENCE = auto()
    LOOK_AGAIN = auto()
    SLEEP = auto()
    CLEAR_LATE = auto()
    UNPARK = auto()


class Appender(Enum):
    PUBLISH = auto()
    UNLOCK = auto()
    LOAD_RINGS = auto()
    RING = auto()
    GONE = auto()


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol; False leaves one out."""

    sleeper_fences: bool = True
    sleeper_looks_again: bool = True
    bell_cleared_before_look: bool = True
    appender_fences: bool = True
    death_rings_all: bool = True


class State(NamedTuple):
    sleeper: Sleeper
    seen: int
    park_buffered: int | None
    appender: Appender
    published_buffered: int | None
    publications_left: int
    owes_ring_all: bool
    parked: int
    published: int
    bell: int


FIRST = State(Sleeper.CLEAR_BELL, 0, None, Appender.PUBLISH, None, 2, False, 0, 0, 0)


def sleeper_steps(s: State, rules: Rules) -> Iterator[State]:
    if s.park_buffered is not None:
        yield s._replace(parked=s.park_buffered, park_buffered=None)
    fresh = s.published > s.seen
    match s.sleeper:
        case Sleeper.CLEAR_BELL:
            yield s._replace(sleeper=Sleeper.LOOK, bell=0)
        case Sleeper.LOOK:
            yield s._replace(seen=s.published) if fresh else s._replace(sleeper=Sleeper.PARK)
        case Sleeper.PARK:
            if rules.sleeper_fences:
                after = Sleeper.FENCE
            else:
                after = Sleeper.LOOK_AGAIN if rules.sleeper_looks_again else Sleeper.SLEEP
            if s.park_buffered is None:
                yield s._replace(sleeper=after, park_buffered=1)
        case Sleeper.FENCE:
            if s.park_buffered is None:
                yield s._replace(sleeper=Sleeper.LOOK_AGAIN if rules.sleeper_looks_again else Sleeper.SLEEP)
        case Sleeper.LOOK_AGAIN:
            sleep = Sleeper.SLEEP if rules.bell_cleared_before_look else Sleeper.CLEAR_LATE
            yield s._replace(sleeper=Sleeper.UNPARK if fresh else sleep)
        case Sleeper.SLEEP:
            if s.bell:
                yield s._replace(sleeper=Sleeper.UNPARK)
        case Sleeper.CLEAR_LATE:  # the wrong place: after the last look
            yield s._replace(sleeper=Sleeper.SLEEP, bell=0)
        case Sleeper.UNPARK:
            if s.park_buffered is None:
                yield s._replace(sleeper=Sleeper.CLEAR_BELL, park_buffered=0)


def appender_steps(s: State, rules: Rules) -> Iterator[State]:
    if s.published_buffered is not None:
        yield s._replace(published=s.published_buffered, published_buffered=None)
    match s.appender:
        case Appender.PUBLISH:
            if s.publications_left and s.published_buffered is None:
                yield s._replace(
                    appender=Appender.UNLOCK,
                    published_buffered=s.published + 1,
                    publications_left=s.publications_left - 1,
                )
        case Appender.UNLOCK:
            if s.published_buffered is None or not rules.appender_fences:
                yield s._replace(appender=Appender.LOAD_RINGS)
        case Appender.LOAD_RINGS:
            yield s._replace(appender=Appender.RING if s.parked else Appender.PUBLISH)
        case Appender.RING:
            yield s._replace(appender=Appender.PUBLISH, bell=1)
    if s.owes_ring_all and rules.death_rings_all:
        yield s._replace(owes_ring_all=False, bell=1)


def death(s: State) -> Iterator[State]:
    """The appender dies; what its core has stored becomes visible."""
    if s.appender not in (Appender.GONE, Appender.PUBLISH):
        published = s.published if s.published_buffered is None else s.published_buffered
        yield s._replace(
            appender=Appender.GONE, published=published, published_buffered=None, owes_ring_all=True
        )


def lost_wakeups(rules: Rules | None = None) -> tuple[int, list[State]]:
    """Visit every state; return their number and those in which the sleeper sleeps on old news for ever."""
    rules = rules or Rules()
    known, todo, lost = {FIRST}, [FIRST], []
    while todo:
        s = todo.pop()
        following = [*sleeper_steps(s, rules), *appender_steps(s, rules)]
        if not following and s.published > s.seen:
            lost.append(s)
        for n in (*following, *death(s)):
            if n not in known:
                known.add(n)
                todo.append(n)
    return len(known), lost
