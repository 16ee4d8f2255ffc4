"""PullState: where the pulling of one owned queue stands."""

from __future__ import annotations

from dataclasses import dataclass

from shmq.client.process_queue import ProcessQueue
from shmq.client.pulled_message import PulledMessage
from shmq.model.message_queue import MessageQueue
from shmq.model.route import MASTER_ID


@dataclass(slots=True, eq=False)
class PullState:
    """One step at a time works on it, so nothing here needs a lock."""

    queue: MessageQueue
    held: ProcessQueue[PulledMessage]
    offset: int
    broker_id: int = MASTER_ID
    asked_s: float = 0.0
    """Monotonic time of the last pull."""
    controlled: bool = False
    """Waiting because too much is in hand."""
