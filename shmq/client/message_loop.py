"""MessageLoop: messages one by one; each counts as consumed when the next one is asked for.

Behind `for message in consumer:` and its asyncio form. Whoever leaves the loop early gives back the message
he had and those fetched behind it: another loop, or another member, gets them again. One thread at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from shmq.client.process_queue import ProcessQueue
from shmq.client.pulled_message import PulledMessage
from shmq.model.message_queue import MessageQueue

LOOK_S = 1.0
"""How long a loop waits for messages before it looks whether its consumer still runs."""


class Batch(NamedTuple):
    """Messages fetched of one queue; `held.dropped` means that they are no longer ours."""

    queue: MessageQueue
    held: ProcessQueue[PulledMessage]
    messages: list[PulledMessage]


class MessageLoop:
    """One loop over what a consumer fetches."""

    def __init__(
        self,
        take: Callable[[float], Batch | None],
        done: Callable[[Batch, PulledMessage], None],
        give_back: Callable[[Batch], None],
    ) -> None:
        """`take` waits up to so many seconds for a batch; `done` ends one message of it; `give_back` puts the
        rest of a batch back as the next to be taken."""
        self._take = take
        self._done = done
        self._give_back = give_back
        self._batch: Batch | None = None
        self._left: deque[PulledMessage] = deque()
        self._is_out = False
        """The first message left is the caller's."""

    def next(self, limit_s: float) -> PulledMessage | None:
        """Count the message returned before as consumed and return the next; None: none came in time."""
        batch = self._batch
        if self._is_out and batch is not None:
            self._is_out = False
            self._done(batch, self._left.popleft())
        while not self._left or (self._batch is not None and self._batch.held.dropped):
            self._batch = self._take(limit_s)
            if self._batch is None:
                self._left.clear()
                return None
            self._left = deque(self._batch.messages)
        self._is_out = True
        return self._left[0]

    def close(self) -> None:
        """Leave the loop: the message that is out and those behind it are not consumed."""
        if self._batch is not None and self._left and not self._batch.held.dropped:
            self._give_back(self._batch._replace(messages=list(self._left)))
        self._batch, self._is_out = None, False
        self._left.clear()
