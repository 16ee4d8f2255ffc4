"""PullScheduleService: calls a function of yours for every queue this member owns, again and again.

The group's balance and heartbeats are those of any consumer; what is pulled, from where, and what becomes of
the offsets is the function's business. Facts: Apache RocketMQ 5.3, MQPullConsumerScheduleService.java.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from shmq.base import log
from shmq.base.errors import ClientFault, InvalidParameter
from shmq.client.pull_consumer import PullConsumer
from shmq.client.service import Service
from shmq.client.task_loop import TaskLoop
from shmq.model.message_queue import MessageQueue

NEXT_DELAY_MS = 200
AFTER_ERROR_S = 1.0
THREADS = 20
STOP_LIMIT_S = 5.0

_LOG = log.get(__name__)


class PullTaskContext:
    """What a task is given: the consumer to pull with, and when it wants this queue again."""

    __slots__ = ("pull_consumer", "pull_next_delay_time_millis")

    def __init__(self, pull_consumer: PullConsumer) -> None:
        """Call again after 200 ms, unless the task sets another time."""
        self.pull_consumer = pull_consumer
        self.pull_next_delay_time_millis = NEXT_DELAY_MS


PullTask = Callable[[MessageQueue, PullTaskContext], object]
"""Called with one queue at a time; never twice at once for the same queue."""


class _QueueTask:
    """One owned queue's turn-taking."""

    __slots__ = ("cancelled", "queue", "run")

    def __init__(self, queue: MessageQueue, run: PullTask) -> None:
        self.queue = queue
        self.run = run
        self.cancelled = False


class PullScheduleService(Service):
    """A pull consumer with one repeated task per queue."""

    def __init__(self, group: str, *, pull_thread_nums: int = THREADS, **settings: Any) -> None:
        """`settings` are those of `PullConsumer`; tasks run on `pull_thread_nums` threads."""
        if not 1 <= pull_thread_nums <= 1000:
            raise InvalidParameter(f"pull_thread_nums is {pull_thread_nums}; 1 to 1000 are allowed")
        self.consumer = PullConsumer(group, **settings)
        self._threads = pull_thread_nums
        self._callbacks: dict[str, PullTask] = {}
        self._lock = threading.Lock()
        self._tasks: dict[MessageQueue, _QueueTask] = {}
        self._timer = TaskLoop(f"shmq-pull-schedule-{group}")
        self._pool: ThreadPoolExecutor | None = None
        self._stopping = False

    def register_pull_task_callback(self, topic: str, callback: PullTask) -> None:
        """Have a function called for each queue of a topic that this member owns. Before `start`."""
        if not callable(callback):
            raise InvalidParameter(f"callback {callback!r} cannot be called with (queue, context)")
        if self._pool is not None:
            raise ClientFault("callbacks are registered before the service is started")
        self._callbacks[topic] = callback
        self.consumer.register_message_queue_listener(topic, self._queues_changed)

    def start(self) -> None:
        """Join the group; tasks begin with the first balance."""
        if not self._callbacks:
            raise ClientFault("a schedule service needs a callback: register_pull_task_callback before start")
        self._pool = ThreadPoolExecutor(self._threads, f"shmq-pull-{self.consumer.consumer_group}")
        self._timer.start()
        try:
            self.consumer.start()
        except BaseException:
            self.shutdown()
            raise

    def shutdown(self) -> None:
        """Let the running tasks end, then leave the group. Again is harmless."""
        self._stopping = True
        with self._lock:
            for task in self._tasks.values():
                task.cancelled = True
            self._tasks.clear()
        self._timer.stop(STOP_LIMIT_S)
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self.consumer.shutdown()

    def _queues_changed(self, topic: str, _all: Sequence[MessageQueue], mine: set[MessageQueue]) -> None:
        """Begin the tasks of queues that came, end those of queues that went. On the rebalance thread."""
        with self._lock:
            for queue in [queue for queue in self._tasks if queue.topic == topic and queue not in mine]:
                self._tasks.pop(queue).cancelled = True
            if self._stopping:
                return
            for queue in sorted(mine - self._tasks.keys()):
                task = self._tasks[queue] = _QueueTask(queue, self._callbacks[topic])
                self._timer.later(0, self._turn_of(task))

    def _turn_of(self, task: _QueueTask) -> Callable[[], None]:
        """Return what the timer does when a queue's time has come: give it to a thread."""

        def turn() -> None:
            if not task.cancelled and self._pool is not None:
                self._pool.submit(self._run, task)

        return turn

    def _run(self, task: _QueueTask) -> None:
        """Call the function for one queue and arrange the next time."""
        if task.cancelled:
            return
        context = PullTaskContext(self.consumer)
        try:
            task.run(task.queue, context)
            delay_s = max(0, context.pull_next_delay_time_millis) / 1000
        except BaseException:  # the edge of the application's code, sys.exit() too: its queue comes again
            _LOG.exception("the pull task of %s raised; its next turn comes in 1 s", task.queue)
            delay_s = AFTER_ERROR_S
        if not task.cancelled:
            self._timer.later(delay_s, self._turn_of(task))
