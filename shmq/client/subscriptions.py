"""Subscriptions: what one consumer reads, by topic. Guarded by its own lock; any thread."""

from __future__ import annotations

import threading

from shmq.base.clock import now_ms
from shmq.model.names import check_topic, with_namespace
from shmq.model.subscription import SubscriptionData, Wanted, build_subscription


class Subscriptions:
    """The topics of one consumer and the expression of each."""

    def __init__(self, namespace: str | None = None) -> None:
        """Start with none; topics are taken with and without the namespace, and kept with it."""
        self._namespace = namespace
        self._lock = threading.Lock()
        self._by_topic: dict[str, SubscriptionData] = {}

    def build(self, topic: str, expression: Wanted) -> SubscriptionData:
        """Return what `put` would take; SubscriptionParseFailed for an expression that names no tag."""
        check_topic(topic)
        return build_subscription(with_namespace(self._namespace, topic), expression, now_ms())

    def put(self, subscription: SubscriptionData) -> None:
        """Subscribe, replacing what was there; brokers take the newest version as the group's."""
        with self._lock:
            held = self._by_topic.get(subscription.topic)
            if held is not None:
                subscription.sub_version = max(subscription.sub_version, held.sub_version + 1)
            self._by_topic[subscription.topic] = subscription

    def put_if_absent(self, topic: str, expression: Wanted) -> bool:
        """Subscribe unless there is a subscription already; True when it was new."""
        if with_namespace(self._namespace, topic) in self._by_topic:
            return False
        self.put(self.build(topic, expression))
        return True

    def remove(self, topic: str) -> None:
        """Unsubscribe; its queues are given back at the next rebalance."""
        with self._lock:
            self._by_topic.pop(with_namespace(self._namespace, topic), None)

    def get(self, topic: str) -> SubscriptionData | None:
        """Return one topic's subscription."""
        return self._by_topic.get(topic)

    def renew_version(self, topic: str) -> None:
        """Give a topic a newer version, after its queues changed: brokers take the newest as the group's."""
        with self._lock:
            held = self._by_topic.get(topic)
            if held is not None:
                held.sub_version = max(now_ms(), held.sub_version + 1)

    @property
    def topics(self) -> set[str]:
        """Return the topics."""
        return set(self._by_topic)

    @property
    def all(self) -> list[SubscriptionData]:
        """Return every subscription."""
        with self._lock:
            return list(self._by_topic.values())
