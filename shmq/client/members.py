"""What a client instance asks of the producers and consumers that share it."""

from __future__ import annotations

from typing import Protocol

from shmq.client.links import BrokerLink
from shmq.model.message_ext import MessageExt
from shmq.protocol.bodies.heartbeat import ConsumerData
from shmq.protocol.command import Command


class ProducerMember(Protocol):
    """What the instance asks of a producer."""

    def publish_topics(self) -> set[str]:
        """Return the topics it sends to."""

    def check_transaction(self, link: BrokerLink, command: Command, message: MessageExt) -> None:
        """Find out what became of a transaction of its group, and tell that broker. Must not wait."""

    def after_fork(self) -> None:
        """In a forked child: forget what was under way in the parent; sends go on over new connections."""

    def shutdown(self) -> None:
        """Stop it."""


class ConsumerMember(Protocol):
    """What the instance asks of a consumer."""

    def heartbeat_data(self) -> ConsumerData:
        """Return what brokers are told about it."""

    def subscribed_topics(self) -> set[str]:
        """Return the topics it reads."""

    def resting_topics(self) -> set[str]:
        """Return the topics whose changes its brokers tell it of now; empty unless it rests."""

    def waited_s(self, link: BrokerLink) -> float:
        """Return when it sent its wait to a broker (monotonic seconds), minus infinity without one."""

    def rebalance(self) -> bool:
        """Take and give queues; False when something has to be tried again soon."""

    def persist_offsets(self) -> None:
        """Commit how far it is."""

    def broker_is_back(self) -> None:
        """A broker was connected to, for the first time or again."""

    def handle_request(self, link: BrokerLink, command: Command) -> Command | None:
        """Serve a request the broker pushed for its group; None when it is not its business or needs no
        answer."""

    def after_fork(self) -> None:
        """In a forked child: be stopped; the queues are the parent's."""

    def shutdown(self) -> None:
        """Stop it."""
