"""What the coordinator's handlers may use, and how they are listed.

A coordinator handler is `async def handle(ctx, call, command, header) -> Command | None`: it returns the
reply, returns None for a oneway, or raises a ShmqError that becomes a response code and a sentence. The
requests of one worker start in the order they were forwarded. Everything runs in the coordinator's event
loop; between two awaits nothing else does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from shmq.base.clock import Clock
from shmq.broker.client_key import ClientKey
from shmq.broker.clients import ClientTable
from shmq.broker.consumer_offsets import ConsumerOffsets
from shmq.broker.filter_registry import FilterRegistry
from shmq.broker.group_states import GroupStates
from shmq.broker.groups import GroupRegistry
from shmq.broker.half_message import HalfMessage
from shmq.broker.live_settings import LiveSettings
from shmq.broker.offset_resets import OffsetResets
from shmq.broker.queue_locks import QueueLocks
from shmq.broker.queues import Queues
from shmq.broker.stats import BrokerStats
from shmq.broker.topics import TopicRegistry
from shmq.broker.waiting_message import WaitingMessage
from shmq.model.topic_config import TopicConfig
from shmq.model.transaction import LocalTransactionState
from shmq.protocol.command import Command
from shmq.store.append_request import AppendOutcome
from shmq.store.message_store import MessageStore

R = TypeVar("R")


@dataclass(slots=True)
class Note:
    """A note for the worker that holds the client: see `protocol.internal`, kept notes."""

    key: str
    content: bytes | None
    until_ms: int


@dataclass(slots=True)
class Call:
    """One forwarded request: whose it is, and what its worker shall keep."""

    key: ClientKey
    peer: str
    note: Note | None = None

    def keep(self, key: str, content: bytes | None, until_ms: int = 0) -> None:
        """Have the worker keep `content` under `key` for the next coordinator; None drops it."""
        self.note = Note(key, content, until_ms)


class Announcements(Protocol):
    """How others learn of changes; each returns when those who must know, know (or after its limit)."""

    async def topic_changed(self, config: TopicConfig) -> None:
        """Tell workers and name servers of a new or changed topic."""

    async def topic_deleted(self, topic: str) -> None:
        """Tell workers that a topic is gone (operators delete it at name servers themselves)."""

    async def group_changed(self, group: str, *, members_only: bool = False) -> None:
        """Tell workers the state of a group, or that it is gone; its settings changed, or only members."""

    async def membership_changed(self, group: str, *, members_only: bool = True) -> None:
        """Clients joined or left a group: tell the workers, then its members."""

    def members_changed(self, group: str) -> None:
        """Push 40 to every member of a group, if its settings and its message model want it."""

    async def setting_changed(self, key: str, value: str) -> None:
        """Tell workers of a changed setting."""


class Changes(Protocol):
    """Changes of one registry; those that are asked for at the same time share one write of its file."""

    async def make(self, change: Callable[[], R]) -> R:
        """Return what `change` returns, when that is durable; raise what it raises, or why it was undone."""


class ClientCalls(Protocol):
    """Requests from the broker to a client."""

    def is_ours(self, key: ClientKey) -> bool:
        """Tell whether a client is shmq's own."""

    def push(self, key: ClientKey, request: Command) -> None:
        """Send a oneway request."""

    async def call(self, key: ClientKey, request: Command, limit_ms: int) -> Command:
        """Send a request and await the client's answer; TimeoutError, or ConsumerNotOnline when it left."""


class OpenTransactions(Protocol):
    """The transactions without an outcome (`coordinator/transactions.py`)."""

    @property
    def open_count(self) -> int:
        """How many there are."""

    async def end(
        self,
        group: str,
        queue_offset: int,
        physical_offset: int,
        state: LocalTransactionState,
        *,
        from_check: bool,
    ) -> None:
        """Commit or roll back the half message at these offsets; returns when that is in the log."""

    def is_pending(self, first: int) -> bool:
        """Whether the half message with that first offset, or a copy of it, is open."""

    def resume(self, half: HalfMessage) -> AppendOutcome | None:
        """Open one again that was given up; None when no segment is ready."""


class WaitingMessages(Protocol):
    """The messages that wait for their moment (`coordinator/timer_changes.py`)."""

    def find(self, message_id: str, topic: str = "") -> WaitingMessage:
        """The one with a unique key or offset id."""

    def waiting(self, first: int, count: int, topic: str = "") -> tuple[list[WaitingMessage], int]:
        """A page of all, and the offset to go on with, -1 at the end."""

    def cancel(self, topic: str, key: str, due_ms: int) -> int:
        """Take one back; the log position that must be durable for it."""

    def reschedule(self, topic: str, key: str, due_ms: int, new_ms: int) -> int:
        """Put one off; the log position that must be durable for it."""

    def figures(self) -> dict[str, int]:
        """How many wait, and how far behind their delivery is, by RocketMQ's keys."""

    async def durable(self, end: int) -> None:
        """Return when the log is as durable up to there as the broker promises."""


class StoreCleaning(Protocol):
    """What operators may ask of retention (`coordinator/retention.py`); it is done after the answer."""

    def delete_expired(self) -> None:
        """Delete expired segments now, whatever the hour."""

    def delete_queue_files(self) -> None:
        """Remove ConsumeQueue files in front of the log now."""


@dataclass(slots=True)
class CoordinatorContext:
    """One per coordinator; handlers get it with every call."""

    settings: LiveSettings
    clock: Clock
    topics: TopicRegistry
    groups: GroupRegistry
    group_states: GroupStates
    clients: ClientTable
    locks: QueueLocks
    offsets: ConsumerOffsets
    filters: FilterRegistry
    resets: OffsetResets
    queues: Queues
    stats: BrokerStats
    topic_changes: Changes
    group_changes: Changes
    announce: Announcements
    calls: ClientCalls
    store: MessageStore
    transactions: OpenTransactions
    timers: WaitingMessages
    retention: StoreCleaning
    broker_addr: str
    """`ip:port` as name servers know it."""
    settled: Callable[[], Awaitable[None]]
    """Returns when every live worker has told again which clients and locks it holds: what membership and
    locks are answered from is complete only then."""
