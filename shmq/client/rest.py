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
Apache RocketMQ's brokers know no such wait: there nobody rests. Used by the instance's threads; `_lock`
guards the topics that have changed, the other values are plain stores.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from shmq.client.links import BrokerLink
from shmq.client.routes import Routes
from shmq.model.names import is_retry_topic

ASK_S = 200.0
"""With waits of two minutes that is when every second one ends."""
ASK_MAX_S = 600.0
NAMED_S = 1.5
"""After a topic changed its broker tells the name servers within a second."""
SIGN_S = 150.0
"""A wait lasts two minutes, and while it lasts its client lives. Brokers forget those that neither wait
nor beat for `channelExpiredTimeout`, 120 s."""
STILL_S = 75.0
"""Rounds of heartbeats so far apart: a broker may have forgotten us."""


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

    def __init__(
        self,
        routes: Routes,
        consumers: Callable[[], Sequence[Rester]],
        published: Callable[[], set[str]],
        rebalance: Callable[[], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nobody rests yet. `published` are the topics producers send to; `rebalance` has it done soon."""
        self._routes = routes
        self._consumers = consumers
        self._published = published
        self._rebalance = rebalance
        self._now_s = monotonic_s
        self._balanced_s = -math.inf
        self._looked_s = monotonic_s()
        self._told: dict[BrokerLink, tuple[bytes, float]] = {}
        """The last heartbeat that each broker took, and when."""
        self._lock = threading.Lock()
        self._changed: dict[str, float] = {}
        """Topics that brokers say have changed, and when name servers will know."""

    # Routes

    def topics(self) -> set[str]:
        """Return the topics whose changes brokers tell of."""
        resting: set[str] = set()
        awake = self._published()
        for consumer in self._consumers():
            rests = consumer.resting_topics()
            resting |= rests
            awake |= consumer.subscribed_topics() - rests
        return resting - awake

    def told_topics(self) -> set[str]:
        """Return the topics whose routes need not be asked for."""
        return {topic for topic in self.topics() if self._routes.age_s(topic) < ASK_MAX_S}

    def wait_ended(self, changed: Sequence[str] | None) -> float:
        """A wait has ended without messages: its time is over (None), or the group or these topics have
        changed. Return when to `ask` (monotonic seconds)."""
        if changed is None:
            return 0.0
        self._rebalance()
        named_s = self._now_s() + NAMED_S
        with self._lock:
            self._changed.update(dict.fromkeys(changed, named_s))
            return min(self._changed.values(), default=math.inf)

    def ask(self) -> float:
        """Ask name servers for what has changed, and for what was not asked for a while: brokers are awake
        anyway. Return when to ask again, infinity: when a wait ends."""
        now = self._now_s()
        with self._lock:
            ready = {topic for topic, named_s in self._changed.items() if named_s <= now}
            for topic in ready:
                del self._changed[topic]
            again_s = min(self._changed.values(), default=math.inf)
        # A further broker shows in the routes of what is subscribed to, before it needs a retry topic.
        asked = {topic for topic in self.topics() if not is_retry_topic(topic)}
        brokers = {topic: self._routes.readable_at(topic) for topic in asked}
        self._routes.refresh_each(ready | {topic for topic in asked if self._routes.age_s(topic) >= ASK_S})
        if ready or any(self._routes.readable_at(topic) != names for topic, names in brokers.items()):
            self._rebalance()
        return again_s

    # Members

    def balanced(self) -> None:
        """All consumers are being balanced."""
        self._balanced_s = self._now_s()

    def may_skip_balance(self) -> bool:
        """Tell whether nobody need ask who is in the groups."""
        if self._now_s() - self._balanced_s >= ASK_MAX_S:
            return False
        return all(
            consumer.subscribed_topics() <= consumer.resting_topics() for consumer in self._consumers()
        )

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
        return self._looked_s - before < STILL_S

    def may_skip_beat(self, link: BrokerLink, heartbeat: bytes) -> bool:
        """Tell whether a broker has had a sign of life lately that stands for this heartbeat."""
        said, told_s = self._told.get(link, (b"", 0.0))
        now = self._now_s()
        if said != heartbeat or now - told_s >= ASK_MAX_S:
            return False
        return any(now - consumer.waited_s(link) < SIGN_S for consumer in self._consumers())
