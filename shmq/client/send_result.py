"""SendResult: what a producer gets back, and the receipt of what was really achieved for the message."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum

from shmq.model.message_queue import MessageQueue


class SendStatus(IntEnum):
    """The broker's verdict; all but SEND_OK mean stored on the master, with less than the full guarantee."""

    SEND_OK = 0
    FLUSH_DISK_TIMEOUT = 10
    SLAVE_NOT_AVAILABLE = 11
    FLUSH_SLAVE_TIMEOUT = 12


class LocalDurability(StrEnum):
    """Where the broker that answered keeps the message."""

    MEMORY = "MEMORY"
    PAGE_CACHE = "PAGE_CACHE"
    FLUSHED = "FLUSHED"


@dataclass(frozen=True, slots=True)
class Durability:
    """What was achieved: locally, on how many replicas, and how many of those have it on disk."""

    local: LocalDurability
    replicas: int = 0
    replicas_flushed: int = 0


PAGE_CACHE = Durability(LocalDurability.PAGE_CACHE)
FLUSHED = Durability(LocalDurability.FLUSHED)


class CommunicationMode(Enum):
    """How a message is sent; hooks see it."""

    SYNC = "SYNC"
    ASYNC = "ASYNC"
    ONEWAY = "ONEWAY"


@dataclass(slots=True)
class SendResult:
    """One acknowledged send.

    `msg_id` is the client's unique key (comma-joined for a batch), `offset_msg_id` the broker's id, also
    joined; `queue_offset` is the first message's. `durability` is None when the broker is not known to tell
    (Apache RocketMQ).
    """

    send_status: SendStatus
    msg_id: str
    message_queue: MessageQueue
    queue_offset: int
    offset_msg_id: str
    transaction_id: str | None = None
    region_id: str = "DefaultRegion"
    trace_on: bool = True
    recall_handle: str | None = None
    durability: Durability | None = None
