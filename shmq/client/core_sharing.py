"""CoreSharing: a sync call waits on the core its worker runs on, where that is quicker.

A thread that sends one request after the other and the worker that answers never work at the same time. On
one core the kernel only changes from one to the other; on two each has to be woken, and on virtual machines
that takes as long as the work. So a busy channel tries it: it asks the worker to come to the core its thread
is on (30005), and while it waits for an answer its thread keeps to that core, for the kernel would rather
wake it on an idle one. Before the call returns the thread has the cores again that it had.

    watch     the median of the last `SAMPLE` calls is taken, then the worker is asked
    try       the same with the core shared; at least a fifth quicker, or it is left alone for a while
    share     for `SHARE_S`, as long as it stays quicker; then watched again

What was not worth it is tried again after twice as many calls as the time before. Who changes the affinity
of a thread (`taskset`) while it waits in a call changes it back by the end of that call. A channel serves one
thread at a time; no lock.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from enum import Enum, auto

SAMPLE = 32
GAP_NS = 2_000_000
"""Calls further apart are no stream of calls: the worker is asleep by then, and cores with it."""
QUICKER = 0.8
"""What a shared core must bring at least."""
STILL_QUICKER = 0.95
SHARE_S = 5.0
PAUSE_CALLS = 1_000
PAUSE_CALLS_MAX = 1_000_000

_current_cpu = ctypes.CDLL(None).sched_getcpu


class _State(Enum):
    WATCH = auto()
    TRY = auto()
    SHARE = auto()


class CoreSharing:
    """What one channel knows of it."""

    def __init__(self, ask: Callable[[int], bool]) -> None:
        """`ask` tells the worker the core, -1 for the end; False: it does not come. It must not raise."""
        self._ask = ask
        self._state = _State.WATCH
        self._took_ns: list[int] = []
        self._alone_ns = 0
        """What a call takes without it."""
        self._began_ns = self._ended_ns = 0
        self._until_s = 0.0
        self._skip = 0
        self._pause = PAUSE_CALLS
        self._thread = 0
        self._core: set[int] = set()
        self._cores: set[int] = set()
        self._is_bound = False

    def begin(self) -> bool:
        """A call begins; True when this thread now keeps to the worker's core. `end` follows in any case."""
        self._began_ns = now_ns = time.perf_counter_ns()
        if now_ns - self._ended_ns > GAP_NS:
            self._rested()
        if self._state is _State.WATCH or threading.get_ident() != self._thread:
            return False
        self._cores = os.sched_getaffinity(0)
        self._is_bound = True
        return self._bind(self._core)

    def end(self) -> None:
        """It has ended, however far it came."""
        if self._is_bound:
            self._bind(self._cores)
            self._is_bound = False
        self._ended_ns = time.perf_counter_ns()

    def answered(self) -> None:
        """It ended with an answer: learn from it, and now and then ask the worker for something."""
        if self._skip:
            self._skip -= 1
            return
        if self._state is not _State.WATCH and threading.get_ident() != self._thread:
            return  # it had no core to share: its time says nothing
        took = self._took_ns
        took.append(self._ended_ns - self._began_ns)
        if len(took) == SAMPLE:
            took.sort()
            median = took[SAMPLE // 2]
            took.clear()
            self._judge(median)
            self._ended_ns = time.perf_counter_ns()

    def _bind(self, cores: set[int]) -> bool:
        """Keep this thread to these cores; False, and not again, when the kernel does not let it."""
        try:
            os.sched_setaffinity(0, cores)
        except OSError:  # the cores of this process were changed meanwhile
            self._state = _State.WATCH
            self._wait()
            return False
        return True

    def _judge(self, median_ns: int) -> None:
        """Decide what comes next."""
        if self._state is _State.WATCH:
            self._alone_ns = median_ns
            self._begin_trial()
        elif self._state is _State.TRY:
            if median_ns <= QUICKER * self._alone_ns:
                self._state = _State.SHARE
                self._pause = PAUSE_CALLS
                self._until_s = time.monotonic() + SHARE_S
            else:
                self._leave(pause=True)
        elif median_ns > STILL_QUICKER * self._alone_ns:
            self._leave(pause=True)
        elif time.monotonic() > self._until_s:
            self._leave(pause=False)

    def _begin_trial(self) -> None:
        cpu = _current_cpu()
        self._core = {cpu}
        self._thread = threading.get_ident()
        if len(os.sched_getaffinity(0)) > 1 and self._ask(cpu):
            self._state = _State.TRY
        else:
            self._wait()

    def _leave(self, *, pause: bool) -> None:
        self._state = _State.WATCH
        self._ask(-1)
        if pause:
            self._wait()

    def _wait(self) -> None:
        self._skip = self._pause
        self._pause = min(2 * self._pause, PAUSE_CALLS_MAX)

    def _rested(self) -> None:
        """The stream of calls was broken: begin anew. The worker notices by itself."""
        self._state = _State.WATCH
        self._took_ns.clear()
