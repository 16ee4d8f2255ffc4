"""The answer to 30010: messages that wait for their moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shmq.protocol.bodies.dialect import dumps, loads


class TimerRow(NamedTuple):
    """One waiting message. Times are ms; `recall_handle` is what takes it back."""

    msg_id: str
    offset_msg_id: str
    topic: str
    queue_id: int
    deliver_timestamp: int
    store_timestamp: int
    body_size: int
    tags: str
    keys: str
    recall_handle: str


_NAMES = (
    *("msgId", "offsetMsgId", "topic", "queueId", "deliverTimestamp", "storeTimestamp", "bodySize"),
    *("tags", "keys", "recallHandle"),
)
"""The wire's names of a row's fields, in their order."""


@dataclass(slots=True)
class TimerList:
    """Rows, and the queue offset of the timers' queue to go on with; -1 at its end."""

    timers: list[TimerRow] = field(default_factory=list)
    next: int = -1

    def encode(self) -> bytes:
        """Return the JSON text."""
        return dumps(
            {"timers": [dict(zip(_NAMES, row, strict=True)) for row in self.timers], "next": self.next}
        )

    @classmethod
    def decode(cls, body: Any) -> TimerList:
        """Read it; what another version adds is left out."""
        found = loads(body)
        rows = [TimerRow(*(row[name] for name in _NAMES)) for row in found.get("timers", ())]
        return cls(rows, int(found.get("next", -1)))
