"""TurnFlush: a worker syncs the log itself when the only send of its turn is all that waits.

Under SYNC_FLUSH a send waits for three wake-ups besides its disk: of the flusher, of the worker when the
position has moved, and of the sender. With one sender nobody shares that sync, so the worker makes it, at the
end of its turn and without waking the flusher, and answers at once. Where more wait, one sync of the flusher
serves them all, as ever; who decides that is `worker/append_turn.py`.

    append         without ringing the flusher; published, the AppendLock given back, the slot IDLE
    sync           of what lies between flushed and write position, in one segment, by a descriptor of its own
    publish        `flushed_position.py`: only forward, never after a failed sync, its lock never waited for
    not possible   the flusher is rung, and the send waits for it in `worker/pending_acks.py`

If the worker dies before or after its sync, the supervisor rings everybody, and the flusher syncs what is
there; it is the sender's to send again. While the sync lasts the worker's other connections wait: so a disk
that usually takes longer than `USUAL_NS_MAX` is left alone for a hundred times as long, in which the flusher
waits for it; one slow sync among fast ones changes nothing. One thread's. No lock is held during a sync.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence

from shmq.base.faults import declare, is_on, reach
from shmq.base.syncs import sync_range
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import SlotCounters
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import FLUSHED_POSITION, WRITE_POSITION
from shmq.shm.worker_slots import FLUSHER_SLOT
from shmq.store.flushed_position import ACKNOWLEDGE_EARLY, FlushedPosition
from shmq.store.names import StoreLayout

USUAL_NS_MAX = 2_000_000
"""The mean of the last syncs; a turn with a large batch keeps others waiting for longer."""

MEAN_OF = 8
"""Each sync counts for so much of the mean."""

PAUSE_FACTOR = 100
"""So slow syncs take a hundredth of a worker's time at most."""

_NOWHERE = -1

BEFORE_SYNC = "turn_flush.before_sync"
SYNCED = "turn_flush.synced"
LOCKED = "turn_flush.locked"
PUBLISHED = "turn_flush.published"
declare(
    {
        BEFORE_SYNC: "a worker's send is published, the flusher was not rung, nothing is synced",
        SYNCED: "a worker has synced its send, flushed_position is not stored",
        LOCKED: "the same, flush.lock is held",
        PUBLISHED: "a worker has moved flushed_position and rung, its send is not answered",
    }
)


class TurnFlush:
    """The flushes of one worker."""

    def __init__(
        self,
        layout: StoreLayout,
        page: ControlPage,
        slot: int,
        bells: Sequence[Doorbell],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Flush and count as `slot`. Nothing is opened yet."""
        self._layout = layout
        self._page = page
        self._words = page.words
        self._slot = slot
        self._bells = bells
        self._clock_ns = clock_ns
        self._position: FlushedPosition | None = None
        self._fd = _NOWHERE
        self._start = _NOWHERE
        self._sound_from: int | None = None
        self._not_before_ns = sys.maxsize if is_on(ACKNOWLEDGE_EARLY) else 0  # that defect is the flusher's
        self._usual_ns = 0
        counters = SlotCounters(page, slot)
        self._flushes, self._bytes, self._micros = map(
            counters.word, ("flushes", "flush_bytes", "flush_micros")
        )

    def may(self) -> bool:
        """Whether this worker may sync now: the disk was not slow lately."""
        return self._clock_ns() >= self._not_before_ns

    def leave(self) -> None:
        """Have the flusher do what this worker will not or could not do. It was not rung by the append."""
        self._bells[FLUSHER_SLOT].ring()

    def flush(self, end: int) -> int:
        """Flush what is appended, `end` being the end of this worker's last record.

        Returns up to where this worker knows the log to be on the disk: 0 when it is not for it to say, and
        after a failed sync, which is then final.
        """
        words = self._words
        start = self._layout.segment_start(end - 1)
        flushed, target = words[FLUSHED_POSITION], words[WRITE_POSITION]
        position = self._position
        if start != self._start or position is None:
            self._open(start)
            return 0
        if self._sound_from is None:
            self._sound_from = end
        if flushed < self._sound_from or target - start > self._layout.segment_bytes:
            return 0
        reach(BEFORE_SYNC)
        began_ns = self._clock_ns()
        try:
            sync_range(self._fd, flushed - start, target - start)
        except OSError as error:
            position.fail(error)
            return 0
        took_ns = self._clock_ns() - began_ns
        self._usual_ns += (took_ns - self._usual_ns) // MEAN_OF
        if self._usual_ns > USUAL_NS_MAX:
            self._not_before_ns = began_ns + PAUSE_FACTOR * self._usual_ns
        words[self._flushes] += 1
        words[self._bytes] += target - flushed
        words[self._micros] += took_ns // 1000
        reach(SYNCED)
        if not position.move(target, wait=False):
            return 0
        reach(PUBLISHED)
        return int(words[FLUSHED_POSITION])

    def _open(self, start: int) -> None:
        """Open the segment that begins at `start`: for the flushes after this one.

        A descriptor is told of writes that fail after it was opened. So it is good for nothing before all
        that was unflushed then is flushed by others; a claim that was being written when it was opened is
        published below the end of the claim that this worker makes next (`_sound_from`).
        """
        self.close()
        try:
            self._position = self._position or FlushedPosition(
                self._layout.flush_lock, self._page, self._slot, self._bells, LOCKED
            )
            self._fd = os.open(self._layout.segment_path(start), os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # no descriptor left, say: the flusher has one
            return
        self._start = start

    def close(self) -> None:
        """Close the segment. Twice is harmless."""
        if self._fd != _NOWHERE:
            os.close(self._fd)
        self._fd = self._start = _NOWHERE
        self._sound_from = None
