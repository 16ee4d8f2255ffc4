"""What the worker's handlers may use, and the ways a handler may answer.

A handler is ``handle(ctx, connection, command, header) -> Command | None``. It returns the reply, returns
None when the reply comes later (or never, for a oneway), raises a ShmqError that becomes a response code
and a sentence, or raises ``Ask``: it needs something only the coordinator can provide. The worker gets it
and calls the same handler again. Handlers run in the worker's event loop, never block, and reach clients
only through ``Connection.send``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from shmq.base.clock import Clock
from shmq.base.errors import ShmqError
from shmq.broker.broker_view import BrokerView
from shmq.broker.memory_reach import MemoryReach
from shmq.broker.producer_rows import ProducerFinder
from shmq.broker.pull_holds import PullHolds
from shmq.model.settings import BrokerSettings
from shmq.model.wait_for import Wait
from shmq.shm.directory import DirectoryView
from shmq.shm.offset_slots import OffsetSlots
from shmq.store.append_request import AppendOutcome, AppendRequest
from shmq.store.message_store import MessageStore


class AppendReply(Protocol):
    """The answer to a send, given when its outcome is known."""

    wait: Wait
    """What the sender waits for."""

    def settle(self, outcome: AppendOutcome, code: int) -> None:
        """Answer a stored send: SUCCESS or FLUSH_DISK_TIMEOUT."""

    def refuse(self, error: ShmqError) -> None:
        """Answer a send that was not stored."""


class Appends(Protocol):
    """Where sends go: appended together at the end of the turn."""

    def add(self, request: AppendRequest, reply: AppendReply) -> None:
        """Append and answer through ``reply``; raises SystemBusy when too much is waiting."""


class WorkerStats(Protocol):
    """What one worker tells the coordinator's statistics, collected over about a second."""

    def put(self, topic: str, messages: int, size: int) -> None:
        """Count stored messages and their record bytes."""

    def put_failed(self) -> None:
        """Count a refused or failed send."""

    def got(self, topic: str, group: str, messages: int, size: int) -> None:
        """Count messages handed to a consumer group."""

    def pulled(self, found: bool) -> None:
        """Count a pull by its outcome."""


Verdicts = bytes
"""A byte for each record a filter function was asked about: 0 no, anything else is wanted."""

Then = Callable[[Verdicts | ShmqError], None]


class Functions(Protocol):
    """The worker's filter functions."""

    def judge(self, name: str, records: Sequence[bytes], then: Then) -> None:
        """Ask a function; ``then`` gets verdicts of at least the first record, or an error."""


@dataclass(frozen=True, slots=True)
class NeedTopic:
    """The topic is unknown here: resolve it, creating it from ``default_topic`` when ``create``."""

    topic: str
    default_topic: str = ""
    queue_nums: int = 0
    sys_flag: int = 0
    create: bool = False


@dataclass(frozen=True, slots=True)
class NeedGroup:
    """The consumer group is unknown here."""

    group: str


@dataclass(frozen=True, slots=True)
class NeedOffsetSlots:
    """The page holds no offset slots for this group and topic yet."""

    group: str
    topic: str


@dataclass(frozen=True, slots=True)
class NeedProducerRow:
    """The page has no row for this idempotent producer yet."""

    producer_id: int


Need = NeedTopic | NeedGroup | NeedOffsetSlots | NeedProducerRow


class Ask(Exception):
    """Not an error: the handler cannot go on before the coordinator has provided ``need``."""

    def __init__(self, need: Need) -> None:
        """Name what is missing; equal needs of many requests are asked for once."""
        super().__init__(need)
        self.need = need


@dataclass(slots=True)
class WorkerContext:
    """One per worker; handlers get it with every call.

    store_host, store_host_hex   this broker's address as records hold it, and as offset message ids do
    needs_slave                  SYNC_MASTER: a stored send is not a plain success without a slave
    count(name, n)               adds to this worker's page counters
    reset_taken(group, topic, queue_id, offset)   tells the coordinator that a pull was told of a reset
    waits(connection_id, waits)  tells it that a client waits for messages, and lives; or waits no more
    wake_by(deadline_ms)         makes the worker look at its holds by then
    share_core(connection_id, cpu)   has the worker run on a client's core; -1: anywhere. False: it does not
    """

    settings: BrokerSettings
    store: MessageStore
    memory: MemoryReach
    view: BrokerView
    directory: DirectoryView
    offsets: OffsetSlots
    producers: ProducerFinder
    appends: Appends
    holds: PullHolds
    functions: Functions
    stats: WorkerStats
    clock: Clock
    store_host: bytes
    store_host_hex: str
    needs_slave: bool
    count: Callable[[str, int], None]
    reset_taken: Callable[[str, str, int, int], None]
    waits: Callable[[int, bool], None]
    wake_by: Callable[[int], None]
    share_core: Callable[[int, int], bool]
