"""ListenerPool: threads that run a consumer's listener, as many as pay.

Twenty threads that all wake for one message would fight for the interpreter lock, one thread would starve a
listener that waits for a disk or a database. So one worker is woken for new tasks, and a watcher wakes a
further one every 2 ms as long as tasks wait and more threads would help: either the workers finished less
than one task each in that time, or the process uses less than 80 % of one core. Workers park when nothing is
left, and so does the watcher. Parked workers above `keep_threads`, and the watcher, end after `IDLE_END_S`.
Tasks start in the order of `submit`.

`_lock` guards the thread counts and the parking, the watcher's too; the deque is safe by itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, Protocol, TypeVar

from shmq.base import log
from shmq.client.executor_pool import ExecutorPool

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

TICK_S = 0.002
BUSY_SHARE = 0.8
IDLE_END_S = 30.0
_LOG = log.get(__name__)


class ListenerPool(Generic[T]):
    """Runs `run(task)` for each submitted task on 1 to `max_threads` threads."""

    def __init__(
        self,
        name: str,
        run: Callable[[T], None],
        max_threads: int,
        keep_threads: int | None = None,
        idle_end_s: float = IDLE_END_S,
    ) -> None:
        """Make no thread yet; the first task does. Once made, `keep_threads` of them stay (None: all)."""
        self._name = name
        self._run = run
        self._max_threads = max_threads
        self._keep_threads = max_threads if keep_threads is None else keep_threads
        self._idle_end_s = idle_end_s
        self._tasks: deque[T] = deque()
        lock = threading.Lock()
        self._lock = threading.Condition(lock)
        self._to_watch = threading.Condition(lock)
        self._threads = 0
        self._awake = 0
        self._to_wake = 0
        self._finished = 0
        self._watching = False
        """The watcher ticks; it is there, but parked, when only `_has_watcher`."""
        self._has_watcher = False
        self._stopping = False

    @property
    def waiting(self) -> int:
        """Tasks that no thread has taken yet."""
        return len(self._tasks)

    def submit(self, *tasks: T) -> None:
        """Hand tasks over. Never blocks on the listener."""
        self._tasks.extend(tasks)
        if self._awake and self._watching:
            return
        with self._lock:
            has_to_wait = len(tasks) > 1 or self._awake > 0
            if self._awake == 0:
                self._wake_one()
            if has_to_wait:
                self._wake_watcher()

    @property
    def threads(self) -> int:
        """Workers there are, parked ones included."""
        return self._threads

    def set_threads(self, count: int) -> None:
        """Run at most `count` tasks at the same time from now on; those that run are not disturbed."""
        with self._lock:
            self._max_threads = count

    def stop(self, grace_s: float) -> bool:
        """Let running tasks finish for up to `grace_s`, drop waiting ones; False when some still run."""
        deadline = time.monotonic() + grace_s
        with self._lock:
            self._stopping = True
            self._tasks.clear()
            self._lock.notify_all()
            self._to_watch.notify()
            while self._awake:
                left = deadline - time.monotonic()
                if left <= 0 or not self._lock.wait(left):
                    return self._awake == 0
        return True

    def _wake_one(self) -> None:
        """Wake a parked worker or start a new one, unless enough are awake. Called with the lock held."""
        if self._awake >= self._max_threads:
            return
        if self._threads - self._awake > 0:
            self._awake += 1
            self._to_wake += 1
            self._lock.notify()
        elif not self._stopping:
            self._threads += 1
            self._awake += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        """Run tasks until there are none, park, repeat."""
        tasks, run = self._tasks, self._run
        while True:
            if self._awake > self._max_threads and not self._park():  # there are to be fewer of us
                return
            try:
                task = tasks.popleft()
            except IndexError:
                if self._park():
                    continue
                return
            try:
                run(task)
            except (
                Exception
            ):  # the edge of this thread's loop; the listener's own errors are handled below it
                _LOG.exception("a consume task failed")
            self._finished += 1

    def _park(self) -> bool:
        """Wait to be woken; False when the pool stops. A task added before the lock was taken is seen
        here."""
        with self._lock:
            self._awake -= 1
            if self._stopping and not self._awake:
                self._lock.notify_all()
            is_idle = False
            while not self._stopping:
                if self._to_wake:
                    self._to_wake -= 1
                    return True
                if self._tasks and self._awake == 0:
                    self._awake += 1
                    return True
                surplus = self._threads > self._keep_threads
                if surplus and is_idle:
                    break
                is_idle = not self._lock.wait(self._idle_end_s if surplus else None)
            self._threads -= 1
            return False

    def _wake_watcher(self) -> None:
        """Have the watcher look at what waits. Called with the lock held."""
        if self._watching or self._stopping:
            return
        self._watching = True
        if self._has_watcher:
            self._to_watch.notify()
        else:
            self._has_watcher = True
            threading.Thread(target=self._watch, name=f"{self._name}-watch", daemon=True).start()

    def _watch(self) -> None:
        """Wake one more worker per tick while tasks wait and more threads would help; park when none wait."""
        finished, cpu = self._finished, time.process_time()
        while not self._stopping:
            time.sleep(TICK_S)
            now_finished, now_cpu = self._finished, time.process_time()
            if self._tasks:
                stuck = now_finished - finished < self._awake
                if stuck or now_cpu - cpu < BUSY_SHARE * TICK_S:
                    with self._lock:
                        self._wake_one()
            elif self._park_watcher():
                now_finished, now_cpu = self._finished, time.process_time()
            else:
                return
            finished, cpu = now_finished, now_cpu

    def _park_watcher(self) -> bool:
        """Wait until a task may have to wait; False when the watcher ends.

        It says that it does not watch before it looks for tasks; `submit` adds one before it looks whether
        somebody watches. So one of the two sees the other.
        """
        with self._lock:
            self._watching = False
            if self._tasks:
                self._watching = True
            while not self._watching and not self._stopping:
                if not self._to_watch.wait(self._idle_end_s) and not self._watching:
                    break
            self._has_watcher = self._watching and not self._stopping
            return self._has_watcher


class TaskRunner(Protocol[T_contra]):
    """What consumers need of whatever runs their listeners."""

    def submit(self, *tasks: T_contra) -> None:
        """Hand tasks over."""

    def set_threads(self, count: int) -> None:
        """Run at most `count` tasks at the same time."""

    def stop(self, grace_s: float) -> bool:
        """Let running tasks finish, drop waiting ones; False when some still run."""


def runner(
    name: str,
    run: Callable[[T], None],
    max_threads: int,
    keep_threads: int,
    executor: Executor | None,
) -> TaskRunner[T]:
    """Return what runs tasks: the application's executor, or threads of our own."""
    if executor is not None:
        return ExecutorPool(executor, run)
    return ListenerPool(name, run, max_threads, keep_threads)
