"""Doubts: a reader met a unit whose record is not what it promises, and asks the scrub to look at once.

The worker stores queue slot and queue offset in one page word and rings the coordinator, whose scrub takes
the word back, looks at the log around that place, and mends what can be mended: then the message is there
again. If not, its unit is marked, and readers pass over it. Until then the consumer is told to ask again, for
at most `WAIT_MS`; after that its reads pass over the message without more ado, so that nothing stops the
others.

The word: several workers may store it, the last one wins, and who was overwritten stores it again with the
next read. A worker that dies has asked, or has not; a coordinator that dies with a doubt it has taken is
asked again. One object per process that reads, in its thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shmq.base import log
from shmq.base.clock import monotonic_ms
from shmq.shm.control_page import ControlPage
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import DOUBT
from shmq.shm.queue_table import QueueRef
from shmq.shm.worker_slots import COORDINATOR_SLOT

WAIT_MS = 10_000
AGAIN_MS = 250
"""Pause before the same doubt is told once more."""
FORGET_MS = 60_000
"""A doubt that nobody has met for so long is a new one when it is met again."""
DOUBTS_MAX = 4096

_OFFSET_BITS = 43

_logger = log.get(__name__)


@dataclass(slots=True)
class _Doubt:
    """When a message was met as doubtful: first, last; and when the scrub was told."""

    since_ms: int
    met_ms: int
    told_ms: int


class Doubts:
    """What one process doubts."""

    def __init__(
        self,
        page: ControlPage,
        bells: Sequence[Doorbell],
        now_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        """Doubt nothing yet."""
        self._page = page
        self._bells = bells
        self._now_ms = now_ms
        self._open: dict[tuple[QueueRef, int], _Doubt] = {}

    def may_be_mended(self, queue: QueueRef, queue_offset: int) -> bool:
        """Have it looked at; False when that did not help and the message is to be passed over."""
        key, now = (queue, queue_offset), self._now_ms()
        doubt = self._open.get(key)
        if doubt is None or now - doubt.met_ms >= FORGET_MS:
            if len(self._open) >= DOUBTS_MAX:
                self._open.clear()
            doubt = self._open[key] = _Doubt(now, now, now - AGAIN_MS)
            log.event(
                _logger,
                logging.ERROR,
                "message_doubted",
                topic=queue.topic,
                queue_id=queue.queue_id,
                queue_offset=queue_offset,
            )
        doubt.met_ms = now
        if now - doubt.since_ms >= WAIT_MS:
            return False
        if now - doubt.told_ms >= AGAIN_MS:
            doubt.told_ms = now
            self._page.words[DOUBT] = 1 + (queue.slot << _OFFSET_BITS | queue_offset)
            self._bells[COORDINATOR_SLOT].ring()
        return True


def take_doubt(page: ControlPage) -> tuple[int, int] | None:
    """Take the newest doubt: (queue slot, queue offset); None when there is none. The scrub's thread."""
    word = int(page.words[DOUBT])
    if not word:
        return None
    page.words[DOUBT] = 0
    return (word - 1) >> _OFFSET_BITS, (word - 1) & (1 << _OFFSET_BITS) - 1
