"""SendResult: what a producer gets back, and the receipt of what was really achieved for the message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from typing import ClassVar

from shmq.model.message_queue import MessageQueue

Text = str | Callable[[], str]
"""A text, or what makes it when somebody asks: joining a thousand ids costs more than sending them."""


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

    MEMORY: ClassVar[Durability]
    PAGE_CACHE: ClassVar[Durability]
    FLUSHED: ClassVar[Durability]
    """The three without replicas, to ask for: `producer.send(message, wait_for=Durability.FLUSHED)`."""

    def covers(self, wanted: Durability) -> bool:
        """Tell whether this is at least what was `wanted`."""
        order = list(LocalDurability)
        return (
            order.index(self.local) >= order.index(wanted.local)
            and self.replicas >= wanted.replicas
            and self.replicas_flushed >= wanted.replicas_flushed
        )


Durability.MEMORY = Durability(LocalDurability.MEMORY)
Durability.PAGE_CACHE = Durability(LocalDurability.PAGE_CACHE)
Durability.FLUSHED = Durability(LocalDurability.FLUSHED)


_TOLD = {
    None: None,
    False: Durability.PAGE_CACHE,
    True: Durability.FLUSHED,
}


def durability_of(flushed: bool | None) -> Durability | None:
    """Return what a broker's answer says of the disk; None when it says nothing (Apache RocketMQ)."""
    return _TOLD[flushed]


class CommunicationMode(Enum):
    """How a message is sent; hooks see it."""

    SYNC = "SYNC"
    ASYNC = "ASYNC"
    ONEWAY = "ONEWAY"


class SendResult:
    """One acknowledged send.

    `msg_id` is the client's unique key (comma-joined for a batch), `offset_msg_id` the broker's id, also
    joined; `queue_offset` is the first message's. `durability` is None when the broker does not tell.
    """

    __slots__ = (
        "_msg_id",
        "_offset_msg_id",
        "durability",
        "message_queue",
        "queue_offset",
        "recall_handle",
        "region_id",
        "send_status",
        "trace_on",
        "transaction_id",
    )

    def __init__(
        self,
        send_status: SendStatus,
        msg_id: Text,
        message_queue: MessageQueue,
        queue_offset: int,
        offset_msg_id: Text,
        *,
        transaction_id: str | None = None,
        region_id: str = "DefaultRegion",
        trace_on: bool = True,
        recall_handle: str | None = None,
        durability: Durability | None = None,
    ) -> None:
        """Keep the answer; both ids may be made later."""
        self.send_status = send_status
        self.message_queue = message_queue
        self.queue_offset = queue_offset
        self.transaction_id = transaction_id
        self.region_id = region_id
        self.trace_on = trace_on
        self.recall_handle = recall_handle
        self.durability = durability
        self._msg_id = msg_id
        self._offset_msg_id = offset_msg_id

    @property
    def msg_id(self) -> str:
        """The unique key the client gave the message; comma-joined for a batch."""
        if not isinstance(self._msg_id, str):
            self._msg_id = self._msg_id()
        return self._msg_id

    @property
    def offset_msg_id(self) -> str:
        """The broker's id, by which a message is found at once; comma-joined for a batch."""
        if not isinstance(self._offset_msg_id, str):
            self._offset_msg_id = self._offset_msg_id()
        return self._offset_msg_id

    def __repr__(self) -> str:
        """Print as RocketMQ's clients do."""
        return (
            f"SendResult [sendStatus={self.send_status.name}, msgId={self.msg_id}, "
            f"offsetMsgId={self.offset_msg_id}, messageQueue={self.message_queue}, "
            f"queueOffset={self.queue_offset}]"
        )
