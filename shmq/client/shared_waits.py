"""SharedWaits: one wait at each broker for all queues of a consumer that have been idle for a while.

A queue that was idle for one whole held pull comes here; from then on it costs no pull of its own. News bring
it back to the pull loop, and so does a change of its topic or of the group, which the broker tells at once: a
consumer that waits for all its queues rests, and asks for little else. Brokers that know no such wait
(Apache RocketMQ's) are asked once, and pulled from as ever. Answers come on reader threads, waits are sent by
the pull thread; `_lock` guards the table.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from shmq.base.clock import now_ms
from shmq.base.errors import ShmqError
from shmq.client.channel import view_of
from shmq.client.links import BrokerLink
from shmq.client.pull_state import PullState
from shmq.client.task_loop import TaskLoop
from shmq.model.message_queue import MessageQueue
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.shared_wait import WaitForMessagesHeader
from shmq.protocol.shared_wait import Awaited, decode_news, encode_waits

WAIT_MS = 120_000
"""How long one wait lasts; brokers end it up to a tenth later."""
GRACE_MS = 30_000
GATHER_S = 0.005
"""Queues that become idle within this are waited for together."""


@dataclass(slots=True, eq=False)
class _BrokerWait:
    """What is waited for at one broker."""

    states: dict[MessageQueue, PullState] = field(default_factory=dict)
    number: int = 0
    """Of the wait under way: answers to earlier ones mean nothing."""
    sent_s: float = -math.inf
    """Monotonic time of the wait under way, or of the last one."""
    is_due: bool = False
    is_refused: bool = False


class SharedWaits:
    """The waits of one consumer."""

    def __init__(
        self,
        group: str,
        loop: TaskLoop,
        resume: Callable[[PullState], None],
        ended: Callable[[Sequence[str] | None], None],
    ) -> None:
        """`resume` pulls a queue again; `loop` is the pull thread.

        `ended` hears of waits that ended without messages: None, the time is over; else the group or these
        topics have changed.
        """
        self._group = group
        self._loop = loop
        self._resume = resume
        self._ended = ended
        self._lock = threading.Lock()
        self._waits: dict[BrokerLink, _BrokerWait] = {}

    def add(self, link: BrokerLink, state: PullState) -> bool:
        """Wait for a queue together with others; False when its broker knows no shared wait."""
        if not link.is_local:
            return False
        with self._lock:
            wait = self._waits.setdefault(link, _BrokerWait())
            if wait.is_refused:
                return False
            wait.states[state.queue] = state
            self._soon(link, wait)
        return True

    def covers(self, queues: Iterable[MessageQueue]) -> bool:
        """Tell whether all these queues are waited for."""
        with self._lock:
            return all(any(queue in wait.states for wait in self._waits.values()) for queue in queues)

    def sent_s(self, link: BrokerLink) -> float:
        """Return when the wait under way at a broker was sent (monotonic seconds), minus infinity without
        one."""
        with self._lock:
            wait = self._waits.get(link)
            return wait.sent_s if wait is not None and wait.states else -math.inf

    def _soon(self, link: BrokerLink, wait: _BrokerWait) -> None:
        """Send the next wait in a moment. Called with the lock held."""
        if not wait.is_due:
            wait.is_due = True
            self._loop.later(GATHER_S, lambda: self._send(link, wait))

    def _send(self, link: BrokerLink, wait: _BrokerWait) -> None:
        """Wait for all that is idle now; ends the wait under way."""
        limit_ms = WAIT_MS + GRACE_MS
        with self._lock:
            wait.is_due = False
            wait.states = {q: state for q, state in wait.states.items() if not state.held.dropped}
            if not wait.states:
                return
            wait.number += 1
            wait.sent_s = time.monotonic()
            number = wait.number
            rows = [Awaited(q.topic, q.queue_id, state.offset) for q, state in wait.states.items()]
            for state in wait.states.values():
                state.held.last_pull_ms = now_ms()
                state.held.waits_until_ms = state.held.last_pull_ms + limit_ms
        header = WaitForMessagesHeader(self._group, WAIT_MS)
        command = Command.request(RequestCode.WAIT_FOR_MESSAGES, header, encode_waits(rows))
        link.send_async(
            command,
            limit_ms / 1000,
            lambda response, error: self._answered(link, wait, number, response),
        )

    def _answered(self, link: BrokerLink, wait: _BrokerWait, number: int, response: Command | None) -> None:
        """Pull what has news, wait on for the rest; without an answer that means anything, pull all."""
        is_over, changed = False, None
        with self._lock:
            if number != wait.number:
                return
            if response is not None and response.code == ResponseCode.SUCCESS:
                found = self._news(response)
                back = [
                    state
                    for q, state in wait.states.items()
                    if found is None or (q.topic, q.queue_id) in found
                ]
            elif response is not None and response.code == ResponseCode.PULL_NOT_FOUND:
                back = []
                is_over = True
            else:
                if response is not None and response.code == ResponseCode.PULL_RETRY_IMMEDIATELY:
                    changed = sorted({topic for topic, _ in self._news(response) or ()})
                unknown = response is not None and response.code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
                wait.is_refused |= unknown
                back = list(wait.states.values())
            for state in back:
                del wait.states[state.queue]
            if wait.states:
                self._soon(link, wait)
        self._resume_all(back)
        if is_over or changed is not None:
            self._ended(changed)

    @staticmethod
    def _news(response: Command) -> set[tuple[str, int]] | None:
        """The queues with news; None when the answer cannot be read."""
        try:
            return decode_news(view_of(response))
        except (ShmqError, ValueError):
            return None

    def _resume_all(self, states: Iterable[PullState]) -> None:
        for state in states:
            self._resume(state)
