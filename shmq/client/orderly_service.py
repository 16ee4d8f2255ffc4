"""OrderlyService: runs an orderly listener: one queue, one call at a time, in the queue's order.

The head of a queue is handed to the listener; what is behind it waits. Answers, as RocketMQ's (Apache
RocketMQ 5.3, ConsumeMessageOrderlyService.java):

    SUCCESS                          done; without auto commit it stays uncommitted until COMMIT
    COMMIT, ROLLBACK (manual only)   everything since the last COMMIT is done / comes again after a pause
    SUSPEND_..., None, an exception  the same messages come again after a pause, with one more reconsume time

A message that was suspended `max_reconsume_times` times goes to the dead letters and the queue goes on;
without that limit (-1) it holds its queue up for ever. Messages leave the process queue only when they are
done, so the committed offset never passes an unfinished one.

Nothing is consumed without a valid broker lock (clustering). A queue given away is unlocked after its offset
was committed and its running call has ended: two clients never run one queue at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from shmq.client.consumer_config import PushConsumerConfig
from shmq.client.give_back import GiveBack
from shmq.client.listener_calls import ListenerCalls
from shmq.client.listener_pool import TaskRunner, runner
from shmq.client.offset_store import OffsetStore
from shmq.client.orderly_locks import OrderlyLocks
from shmq.client.process_queue import ProcessQueue
from shmq.client.pulled_message import PulledMessage
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue

LOCK_AGAIN_S = 3.0
"""Pause after a lock was refused."""
SUSPEND_MS_MIN = 10
SUSPEND_MS_MAX = 30_000
DEAD_LETTER_LEVEL = -1


class ConsumeOrderlyStatus(Enum):
    """What an orderly listener returns. COMMIT and ROLLBACK are for `auto_commit = False`."""

    SUCCESS = "SUCCESS"
    ROLLBACK = "ROLLBACK"
    COMMIT = "COMMIT"
    SUSPEND_CURRENT_QUEUE_A_MOMENT = "SUSPEND_CURRENT_QUEUE_A_MOMENT"


@dataclass(slots=True)
class ConsumeOrderlyContext:
    """What an orderly listener may read and set for one call.

    `suspend_current_queue_time_millis`: pause before a suspended queue goes on; -1: the consumer's setting.
    """

    message_queue: MessageQueue
    auto_commit: bool = True
    suspend_current_queue_time_millis: int = -1


OrderlyListener = Callable[[list[MessageExt], ConsumeOrderlyContext], ConsumeOrderlyStatus | None]
"""Consumes messages of one queue in their order; never called twice at once for one queue."""


class _Turn:
    """One queue's place in the pool. Its flags change under the service's lock."""

    __slots__ = ("held", "is_busy", "queue", "uncommitted")

    def __init__(self, queue: MessageQueue, held: ProcessQueue[PulledMessage]) -> None:
        self.queue = queue
        self.held = held
        self.is_busy = False
        """A task of it is in the pool, runs, or comes after a pause."""
        self.uncommitted = 0
        """Messages at the head that the listener has consumed and not committed; of its own task only."""


class OrderlyService:
    """The listener's threads of one orderly push consumer."""

    def __init__(
        self,
        group: str,
        config: PushConsumerConfig,
        listener: OrderlyListener,
        calls: ListenerCalls,
        back: GiveBack,
        offsets: OffsetStore,
        locks: OrderlyLocks | None,
        *,
        later: Callable[[float, Callable[[], None]], None],
        drained: Callable[[MessageQueue], None],
    ) -> None:
        """`locks` is None when broadcasting; `later` and `drained` as for `ConsumeService`."""
        self._group = group
        self._config = config
        self._listener = listener
        self._calls = calls
        self._back = back
        self._offsets = offsets
        self._locks = locks
        self._later = later
        self._drained = drained
        self._resume_below = max(1, config.pull_threshold_for_queue // 2)
        self._pool: TaskRunner[_Turn] = runner(
            f"shmq-orderly-{group}",
            self._run,
            config.consume_thread_max,
            config.consume_thread_min,
            config.consume_executor,
        )
        self._lock = threading.Lock()
        self._turns: dict[MessageQueue, _Turn] = {}
        self._running: set[MessageQueue] = set()

    def submit(
        self, messages: Sequence[PulledMessage], held: ProcessQueue[PulledMessage], queue: MessageQueue
    ) -> None:
        """Messages were put into a process queue: give its head to a thread, unless one has it."""
        del messages
        with self._lock:
            turn = self._turns.get(queue)
            if turn is None or turn.held is not held:
                turn = self._turns[queue] = _Turn(queue, held)
            if turn.is_busy:
                return
            turn.is_busy = True
        self._pool.submit(turn)

    def give_up(self, queue: MessageQueue) -> None:
        """A queue is given away, its offset committed: unlock it, at the latest when its call has ended."""
        with self._lock:
            self._turns.pop(queue, None)
            if queue in self._running:
                return
        if self._locks is not None:
            self._locks.release([queue])

    def stop(self, grace_s: float) -> bool:
        """Let running calls end for `grace_s`; False when some still run."""
        return self._pool.stop(grace_s)

    def set_threads(self, count: int) -> None:
        """Run the listener on at most `count` threads from now on."""
        self._pool.set_threads(count)

    def release_all(self, queues: Sequence[MessageQueue]) -> None:
        """Unlock at shutdown, after the offsets were committed; queues whose call still runs expire."""
        with self._lock:
            idle = [queue for queue in queues if queue not in self._running]
        if self._locks is not None:
            self._locks.release(idle)

    # -- one turn, in a listener thread --

    def _run(self, turn: _Turn) -> None:
        """Consume one batch of a queue, then queue up again behind the others."""
        queue, held = turn.queue, turn.held
        with self._lock:
            if held.dropped:
                turn.is_busy = False
                return
            if queue in self._running:  # its previous life's call has not ended
                self._again(turn, SUSPEND_MS_MIN / 1000)
                return
            self._running.add(queue)
        pause_s: float | None = None
        try:
            if self._locks is None or self._locks.is_valid(queue) or self._locks.acquire(queue):
                pause_s = self._consume(turn)
            else:
                pause_s = LOCK_AGAIN_S
        finally:
            self._ended(turn, pause_s)

    def _ended(self, turn: _Turn, pause_s: float | None) -> None:
        """Go on, pause, or rest until something arrives; unlock what was given away meanwhile."""
        with self._lock:
            self._running.discard(turn.queue)
            gone = turn.held.dropped
            more = turn.held.message_count > turn.uncommitted
            turn.is_busy = not gone and (pause_s is not None or more)
            is_busy, orphaned = turn.is_busy, gone and turn.queue not in self._turns
        if orphaned and self._locks is not None:
            self._locks.release([turn.queue])
        if is_busy and pause_s is not None:
            self._again(turn, pause_s)
        elif is_busy:
            self._pool.submit(turn)

    def _again(self, turn: _Turn, pause_s: float) -> None:
        self._later(pause_s, lambda: self._pool.submit(turn))

    def _consume(self, turn: _Turn) -> float | None:
        """Call the listener with the head of the queue; return the pause in seconds, None to go on."""
        held, queue, skipped = turn.held, turn.queue, turn.uncommitted
        batch = held.head(skipped + self._config.consume_message_batch_max_size)[skipped:]
        if not batch:
            return None
        context = ConsumeOrderlyContext(queue)
        status, error = self._calls.run(
            batch, queue, self._listener, context, ConsumeOrderlyStatus, _SUCCESSES
        )
        if held.dropped:
            return None
        return self._settle(turn, batch, status, error or f"the listener returned {_SUSPEND.name}", context)

    def _settle(
        self,
        turn: _Turn,
        batch: list[PulledMessage],
        status: ConsumeOrderlyStatus | None,
        error: str,
        context: ConsumeOrderlyContext,
    ) -> float | None:
        """Do what the answer says; return the pause."""
        if status is not None and status is not _SUSPEND:
            if context.auto_commit or status is ConsumeOrderlyStatus.COMMIT:
                self._finish(turn, turn.uncommitted + len(batch))
                return None
            if status is ConsumeOrderlyStatus.SUCCESS:
                turn.uncommitted += len(batch)
                return None
            turn.uncommitted = 0
            return self._pause_s(context)
        if not self._all_dead(batch, error):
            return self._pause_s(context)
        if context.auto_commit:
            self._finish(turn, turn.uncommitted + len(batch))
        else:
            turn.uncommitted += len(batch)
        return None

    def _all_dead(self, batch: list[PulledMessage], error: str) -> bool:
        """Count a suspension; True when every message of the batch went to the dead letters."""
        limit = self._config.max_reconsume_times
        dead = 0
        for message in batch:
            buried = 0 <= limit <= message.reconsume_times and self._back.try_to_give(
                message, DEAD_LETTER_LEVEL, error
            )
            if buried:
                dead += 1
            else:
                message.count_local_retry()
        return dead == len(batch)

    def _finish(self, turn: _Turn, count: int) -> None:
        """Take the first `count` messages out and store the offset."""
        held = turn.held
        before = held.message_count
        offset = held.remove(held.head(count))
        turn.uncommitted = 0
        if offset >= 0 and not held.dropped:
            self._offsets.update(turn.queue, offset)
        if held.message_count < self._resume_below <= before:
            self._drained(turn.queue)

    def _pause_s(self, context: ConsumeOrderlyContext) -> float:
        wanted = context.suspend_current_queue_time_millis
        if wanted == -1 or not isinstance(wanted, int):
            wanted = self._config.suspend_current_queue_time_millis
        return min(max(wanted, SUSPEND_MS_MIN), SUSPEND_MS_MAX) / 1000


_SUSPEND = ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT
_SUCCESSES = (ConsumeOrderlyStatus.SUCCESS, ConsumeOrderlyStatus.COMMIT)
