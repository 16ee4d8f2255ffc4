"""Rebalancer: which queues one consumer owns, kept in step with the group's members and the topics' routes.

Every member asks a broker for the sorted client ids and computes its own share by the same strategy
(`model/allocation.py`); nobody hands out queues. Run by the instance's rebalance thread only, so rounds never
overlap; `owned` is replaced, never changed in place, and may be read by any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from shmq.base import log
from shmq.base.errors import ShmqError
from shmq.client.consumer_config import ConsumerConfig
from shmq.client.instance import ClientInstance
from shmq.client.process_queue import ProcessQueue
from shmq.client.pulled_message import PulledMessage
from shmq.client.subscriptions import Subscriptions
from shmq.model.consumer_group import MessageModel
from shmq.model.message_queue import MessageQueue
from shmq.model.names import is_retry_topic

Owned = ProcessQueue[PulledMessage]

_LOG = log.get(__name__)


class QueueOwner(Protocol):
    """The consumer behind a rebalancer."""

    def queue_dropped(self, queue: MessageQueue, held: Owned) -> None:
        """A queue is given away: commit its offset and forget it. `held.dropped` is set already."""

    def first_offset(self, queue: MessageQueue) -> int:
        """Return where to begin a queue just taken; an error leaves the queue for the next round."""

    def queue_taken(self, queue: MessageQueue, held: Owned, offset: int) -> None:
        """A queue is ours now: begin at `offset`."""

    def queues_changed(self, topic: str, everyones: Sequence[MessageQueue], mine: set[MessageQueue]) -> None:
        """The share of a topic has changed; called after the queues were dropped and taken."""


class Rebalancer:
    """The owned queues of one consumer."""

    def __init__(
        self,
        instance: ClientInstance,
        group: str,
        config: ConsumerConfig,
        subscriptions: Subscriptions,
        owner: QueueOwner,
        *,
        pulls_itself: bool,
    ) -> None:
        """`pulls_itself`: the consumer has a pull loop, so a queue without pulls is a defect."""
        self._instance = instance
        self._group = group
        self._config = config
        self._subscriptions = subscriptions
        self._owner = owner
        self._pulls_itself = pulls_itself
        self.owned: dict[MessageQueue, Owned] = {}
        self._listed: dict[str, list[str]] = {}
        """Broker name -> the group's sorted client ids as that broker said in this round."""

    def run(self) -> bool:
        """Balance every subscribed topic; False when something has to be tried again soon."""
        balanced = True
        self._listed = {}
        topics = self._subscriptions.topics
        for topic in sorted(topics):
            try:
                balanced &= self._balance_topic(topic)
            except ShmqError as error:
                log.event(_LOG, logging.WARNING, "rebalance_skipped", topic=topic, reason=error)
                balanced = False
        for queue in [queue for queue in self.owned if queue.topic not in topics]:
            self.drop(queue)
        return balanced

    def _balance_topic(self, topic: str) -> bool:
        queues = self._instance.routes.subscribe_queues(topic)
        if not queues:
            # A retry topic comes into being with the group's first failure; waiting for it is no defect.
            return is_retry_topic(topic)
        if self._config.message_model is MessageModel.BROADCASTING:
            mine = queues
        else:
            client_id = self._instance.client_id
            ids = self._member_ids(topic, queues)
            if not ids:
                return False
            mine = self._config.allocate_message_queue_strategy(client_id, queues, ids)
            if client_id not in ids:
                return False  # the broker does not know us yet: keep what we have until it does
        return self._apply(topic, queues, set(mine))

    def _member_ids(self, topic: str, queues: Sequence[MessageQueue]) -> list[str]:
        """Return the group's sorted client ids from a broker of the topic; empty: keep the assignment."""
        for name in sorted({queue.broker_name for queue in queues}):
            if name in self._listed:
                return self._listed[name]
            try:
                link = self._instance.routes.reading_link(name, 0)
                link.duplex()  # the broker must have heard of us before it is asked who is there
                self._listed[name] = sorted(self._instance.calls.consumer_ids(self._group, link))
                return self._listed[name]
            except ShmqError as error:
                log.event(_LOG, logging.INFO, "members_unknown", group=self._group, topic=topic, reason=error)
        return []

    def _apply(self, topic: str, everyones: Sequence[MessageQueue], mine: set[MessageQueue]) -> bool:
        """Drop what is no longer ours, take what is new."""
        changed = False
        for queue, held in list(self.owned.items()):
            stale = self._pulls_itself and held.pull_expired
            if queue.topic == topic and (queue not in mine or held.dropped or stale):
                if stale:
                    log.event(_LOG, logging.ERROR, "queue_not_pulled", queue=queue, group=self._group)
                self.drop(queue)
                changed = True
        complete = True
        for queue in sorted(mine - self.owned.keys()):
            try:
                offset = self._owner.first_offset(queue)
            except ShmqError as error:
                log.event(_LOG, logging.WARNING, "queue_not_taken", queue=queue, reason=error)
                complete = False
                continue
            held = ProcessQueue[PulledMessage]()
            self.owned = {**self.owned, queue: held}
            self._owner.queue_taken(queue, held, offset)
            changed = True
        if changed:
            self._owner.queues_changed(topic, everyones, mine & self.owned.keys())
        return complete

    def take_exactly(self, queues: set[MessageQueue]) -> bool:
        """Own these queues and no others, whatever the group does (manual assignment)."""
        complete = True
        for topic in sorted({queue.topic for queue in (*queues, *self.owned)}):
            mine = {queue for queue in queues if queue.topic == topic}
            complete &= self._apply(topic, sorted(mine), mine)
        return complete

    def replace(self, queue: MessageQueue, held: Owned) -> bool:
        """Begin an owned queue anew with an empty process queue; False when it is not owned any more."""
        before = self.owned.get(queue)
        if before is None:
            return False
        before.dropped = True
        self.owned = {**self.owned, queue: held}
        return True

    def drop(self, queue: MessageQueue) -> None:
        """Give a queue away."""
        held = self.owned.get(queue)
        if held is None:
            return
        held.dropped = True
        self._owner.queue_dropped(queue, held)
        self.owned = {other: kept for other, kept in self.owned.items() if other != queue}

    def drop_all(self) -> None:
        """Give every queue away, at shutdown."""
        for queue in list(self.owned):
            self.drop(queue)
