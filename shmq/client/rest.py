"""Rest: what a client instance need not ask, because its brokers tell it.

A consumer that waits for all its queues together (`shared_waits.py`) hears of a change of their topics or of
its group at once, and each wait is a sign of life. While it rests its instance leaves out

    heartbeats               at a broker where a wait of ours came within `SIGN_S`, as long as they would say
                             what the last one said
    who is in the group      while all its consumers rest
    routes                   of topics that only resting consumers use

and asks for them all the same every `ASK_MAX_S`, as a signal alone is no promise. For the routes of what is
subscribed to it asks after `ASK_S`, as only name servers know of a further broker, and at the moment when a
wait's time is over: brokers end the waits of many clients together, so these questions come together, too.
Apache RocketMQ's brokers know no such wait: there nobody rests. Used by the instance's threads; the last
values are plain stores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from shmq.client.links import BrokerLink

ASK_S = 100.0
ASK_MAX_S = 300.0
SIGN_S = 75.0
"""Brokers forget a client after `channelExpiredTimeout`, 120 s; waits last 60 s."""


class Rester(Protocol):
    """What is asked of a consumer."""

    def subscribed_topics(self) -> set[str]:
        """Return the topics it reads."""

    def resting_topics(self) -> set[str]:
        """Return the topics whose changes its brokers tell it of now; empty unless it rests."""

    def waited_s(self, link: BrokerLink) -> float:
        """Return when it sent its wait to a broker (monotonic seconds), minus infinity without one."""


class Rest:
    """What one instance knows of its rest."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """Nobody rests yet."""
        self._now_s = monotonic_s
        self._balanced_s = 0.0
        self._looked_s = monotonic_s()
        self._told: dict[BrokerLink, tuple[bytes, float]] = {}
        """The last heartbeat that each broker took, and when."""

    # Routes

    @staticmethod
    def topics(consumers: Iterable[Rester], published: set[str]) -> set[str]:
        """Return the topics whose routes need not be asked for."""
        read: set[str] = set()
        awake: set[str] = set(published)
        for consumer in consumers:
            topics, resting = consumer.subscribed_topics(), consumer.resting_topics()
            read |= resting
            awake |= topics - resting
        return read - awake

    # Members

    def balanced(self) -> None:
        """All consumers have just been balanced."""
        self._balanced_s = self._now_s()

    def may_skip_balance(self, consumers: Iterable[Rester]) -> bool:
        """Tell whether nobody need ask who is in the groups."""
        if self._now_s() - self._balanced_s >= ASK_MAX_S:
            return False
        return all(consumer.subscribed_topics() <= consumer.resting_topics() for consumer in consumers)

    # Heartbeats

    def told(self, link: BrokerLink, heartbeat: bytes) -> None:
        """A broker has taken a heartbeat."""
        self._told[link] = heartbeat, self._now_s()

    def forget(self, link: BrokerLink) -> None:
        """The connection to a broker has ended: what it was told counts no more."""
        self._told.pop(link, None)

    def look(self) -> bool:
        """Begin a round of heartbeats; False when the last one is so long ago that this process stood
        still: brokers may have forgotten it, whatever came since."""
        before, self._looked_s = self._looked_s, self._now_s()
        return self._looked_s - before < SIGN_S

    def may_skip_beat(self, link: BrokerLink, heartbeat: bytes, consumers: Iterable[Rester]) -> bool:
        """Tell whether a broker has had a sign of life lately that stands for this heartbeat."""
        said, told_s = self._told.get(link, (b"", 0.0))
        now = self._now_s()
        if said != heartbeat or now - told_s >= ASK_MAX_S:
            return False
        return any(now - consumer.waited_s(link) < SIGN_S for consumer in consumers)
