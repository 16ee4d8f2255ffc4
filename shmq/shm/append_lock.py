"""AppendLock: one appender at a time, over all processes, repairable when its holder dies.

A named POSIX semaphore (value 1) used only as a try-lock, and a phase word per slot that says who may be
inside:

    acquire  1  phase = WANTING; fence
             2  quiesce set: phase = IDLE, wait until it is not, back to 1
             3  try the semaphore; taken: yield a few times, then sleep 50 us .. 1 ms, back to 2
             4  phase = HOLDING, claim_seq + 1
             5  journal not EMPTY: die
    release  1  journal EMPTY, or die
             2  give the semaphore back (a locked instruction: the fence before ring words are loaded)
             3  ring who waits
             4  phase = IDLE

A timed wait on the semaphore would sleep by the wall clock and could not be told of a repair, and a semaphore
does not know its owner: so the phase is on the page before the try, and repair (`supervisor/crash_repair.py`)
waits for phases, not for the semaphore. Order in `release`: were IDLE stored first, a death before the
semaphore came back would go unseen.

Every waiting turn looks whether the supervisor lives; when it is gone nobody would ever end the wait, so the
process leaves. Nothing may fail between acquire and release: the claim is half done, and only a death lets
repair undo it. Owners ignore SIGINT and have no signal handlers that raise. One AppendLock object belongs to
one thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import posix_ipc

from shmq.base.errors import Unavailable
from shmq.base.faults import declare, reach
from shmq.shm.boot import ChildExit
from shmq.shm.control_page import ControlPage
from shmq.shm.counters import SlotCounters
from shmq.shm.page_layout import (
    JOURNAL_STATE,
    QUIESCE,
    SLOT_CLAIM_SEQ,
    SLOT_PHASE,
    SLOT_WORDS,
    WORKER_SLOTS,
)
from shmq.shm.word import fence
from shmq.shm.worker_slots import Phase

_IDLE, _WANTING, _HOLDING = (int(phase) for phase in Phase)
_JOURNAL_EMPTY = 0

YIELDS = 8
SLEEP_MIN_S = 50e-6
SLEEP_MAX_S = 1e-3

SHARED_MEMORY = Path("/dev/shm")

declare(
    {
        "append.before_acquire": "nothing stored yet",
        "append.wanting": "phase WANTING, quiesce not looked at",
        "append.semaphore_taken": "the semaphore taken, phase still WANTING",
        "append.holding": "phase HOLDING, claim_seq not counted",
        "append.acquired": "claim_seq counted, the journal looked at",
        "append.before_release": "the journal EMPTY, the semaphore still taken",
        "append.released": "the semaphore given back, nobody rung",
        "append.rung": "all rung, phase still HOLDING",
        "append.idle": "phase IDLE",
    }
)


def create_semaphore(page_name: str, page: ControlPage) -> str:
    """Make the page's semaphore, free, and return its name. Whoever makes the page; once per page.

    Unavailable when /dev/shm has no room.
    """
    name = semaphore_name(page_name, page)
    try:
        posix_ipc.Semaphore(name, posix_ipc.O_CREX, mode=0o600, initial_value=1).close()
    except OSError as error:
        raise Unavailable(
            f"the semaphore {name} cannot be made in /dev/shm ({error.strerror}): remove what fills it, or "
            "give the container more (docker run --shm-size=256m)"
        ) from error
    return name


def semaphore_name(page_name: str, page: ControlPage) -> str:
    """Return the name of the page's semaphore: one per page life, so it carries the page id."""
    return f"{page_name}-{page.page_id:016x}"


def open_semaphore(name: str) -> posix_ipc.Semaphore:
    """Open an existing semaphore. Unavailable when its name is gone: the page cannot be used any more."""
    try:
        return posix_ipc.Semaphore(name)
    except posix_ipc.ExistentialError:
        raise Unavailable(f"the semaphore {name} is gone: the broker must be started anew") from None


def unlink_semaphore(name: str) -> None:
    """Remove the name; nothing happens when there is none. Whoever removes the page."""
    with contextlib.suppress(posix_ipc.ExistentialError):
        posix_ipc.unlink_semaphore(name)


def unlink_semaphores(page_name: str) -> None:
    """Remove every semaphore of pages of that name, those of pages that others removed, too.

    Recovery, which is alone on the store. Linux keeps them in /dev/shm, named `sem.` and their name.
    """
    for path in SHARED_MEMORY.glob(f"sem.{page_name.removeprefix('/')}-*"):
        unlink_semaphore(f"/{path.name.removeprefix('sem.')}")


class AppendLock:
    """One slot's way into the lock: `with lock:`, or acquire and release. Not re-entrant; one thread's."""

    __slots__ = ("_counters", "_phase", "_semaphore", "_seq", "_supervisor_gone", "_try", "_words")

    def __init__(
        self, page: ControlPage, slot: int, semaphore_name: str, supervisor_gone: Callable[[], bool]
    ) -> None:
        """Open the semaphore for `slot`; `supervisor_gone` says, cheaply, whether its pipe shows EOF."""
        self._semaphore = open_semaphore(semaphore_name)
        self._try = self._semaphore.acquire
        self._words = page.words
        first = WORKER_SLOTS + slot * SLOT_WORDS
        self._phase = first + SLOT_PHASE
        self._seq = first + SLOT_CLAIM_SEQ
        self._supervisor_gone = supervisor_gone
        self._counters = SlotCounters(page, slot)

    def acquire(self) -> None:
        """Wait for the lock. Ends the process when the supervisor is gone while it waits."""
        reach("append.before_acquire")
        while not self._enter():
            self._wait_for_repair()
        reach("append.semaphore_taken")
        words = self._words
        words[self._phase] = _HOLDING
        reach("append.holding")
        words[self._seq] += 1
        if words[JOURNAL_STATE] != _JOURNAL_EMPTY:
            die("the append journal is not EMPTY though the semaphore was free")
        reach("append.acquired")

    def _enter(self) -> bool:
        """Steps 1 to 3: True with the semaphore; False, and IDLE, because the world must stand still."""
        words = self._words
        words[self._phase] = _WANTING
        fence()
        reach("append.wanting")
        turn = 0
        while not words[QUIESCE]:
            try:
                self._try(0)
                return True
            except posix_ipc.BusyError:
                turn += 1
                self._counters.add("lock_busy")
                self._pause(turn)
        words[self._phase] = _IDLE
        return False

    def _pause(self, turn: int) -> None:
        """Let the holder get on: give the core away at first, then sleep twice as long each time."""
        self._leave_if_orphaned()
        if turn <= YIELDS:
            os.sched_yield()
        else:
            time.sleep(min(SLEEP_MIN_S * (1 << min(turn - YIELDS - 1, 8)), SLEEP_MAX_S))

    def _wait_for_repair(self) -> None:
        """Stand still, IDLE, until repair is over. Some milliseconds: not worth a ring of its own."""
        self._counters.add("lock_quiesced")
        while self._words[QUIESCE]:
            self._leave_if_orphaned()
            time.sleep(SLEEP_MAX_S)

    def _leave_if_orphaned(self) -> None:
        """End the process if no supervisor is left to repair what it waits for."""
        if self._supervisor_gone():
            self._words[self._phase] = _IDLE
            os._exit(ChildExit.ORPHANED)

    def release(self, ring: Callable[[], None] | None = None) -> None:
        """Give the lock back; `ring` wakes who waits for what was published. It must not fail."""
        words = self._words
        if words[JOURNAL_STATE] != _JOURNAL_EMPTY:
            die("the append lock is given back with a claim under way")
        reach("append.before_release")
        self._semaphore.release()
        reach("append.released")
        if ring is not None:
            ring()
        reach("append.rung")
        words[self._phase] = _IDLE
        reach("append.idle")

    def __enter__(self) -> None:
        """Acquire."""
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release; after an exception end the process instead: only its death lets repair undo the claim."""
        if error is not None:
            die(f"{kind.__name__ if kind else ''}: {error}")
        self.release()

    def close(self) -> None:
        """Close the semaphore; the lock must not be held."""
        self._semaphore.close()


def die(reason: str) -> NoReturn:
    """End this process by SIGKILL: it holds the lock and its claim is broken, nothing may run any more."""
    with contextlib.suppress(OSError):
        os.write(2, f"shmq: pid {os.getpid()} kills itself inside the append lock: {reason}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL did not kill")
