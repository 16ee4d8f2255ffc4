"""Making sure that nobody of an earlier run can still append, before anything is repaired or recovered.

A supervisor that was killed may leave children for a moment: they leave when its pipe closes, but a stopped
or hung one does not. So those recorded on the old control page are killed, if their start time matches, and
are waited for until they are really gone. Every process that may append holds LOCK_SH on
<store>/appenders.lock: LOCK_EX proves that none is left of whom the page does not know either.

Main thread of the supervisor, under the store lock, before it starts a child.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from shmq.base import log
from shmq.base.clock import monotonic_ms
from shmq.base.errors import Unavailable
from shmq.base.files import SharedFileLock, lock_holders
from shmq.shm.worker_slots import process_start_time, process_state
from shmq.supervisor.child import APPENDERS_LOCK

LIMIT_MS = 10_000
"""A killed process that is still there after so long hangs in the kernel: a disk that does not answer."""
LOOK_AGAIN_S = 0.01

_logger = log.get("shmq.supervisor")


def lock_out_appenders(store_root: Path, recorded: Iterable[tuple[int, int]]) -> SharedFileLock:
    """Kill `recorded`, an earlier run's (pid, start time), and take LOCK_EX. Unavailable after 10 s."""
    lock = SharedFileLock(store_root / APPENDERS_LOCK)
    suspects = [one for one in recorded if one[0] != os.getpid()]
    for pid, started in suspects:
        if _lives(pid, started):
            log.event(_logger, logging.WARNING, "leftover_killed", pid=pid)
            _kill(pid, started)
    deadline_ms = monotonic_ms() + LIMIT_MS
    while (living := [pid for pid, started in suspects if _lives(pid, started)]) or not lock.exclusive(
        nonblocking=True
    ):
        if monotonic_ms() > deadline_ms:
            lock.release()
            raise Unavailable(
                f"processes of an earlier run are still there: killed {living or 'none'}, with "
                f"{store_root / APPENDERS_LOCK} {_holders(store_root / APPENDERS_LOCK)}: end them, or wait "
                "for the disk they wait for"
            )
        # Nothing can be waited for: a flock has no descriptor that becomes readable.
        time.sleep(LOOK_AGAIN_S)
    return lock


def _lives(pid: int, started: int) -> bool:
    """Whether that very process can still run; one that only waits to be reaped cannot."""
    try:
        return process_start_time(pid) == started and process_state(pid) not in "ZX"
    except ProcessLookupError:
        return False


def _kill(pid: int, started: int) -> None:
    """Kill that very process: once it is gone, its number may be somebody else's."""
    with contextlib.suppress(ProcessLookupError):
        pid_fd = os.pidfd_open(pid)
        try:
            if _lives(pid, started):
                signal.pidfd_send_signal(pid_fd, signal.SIGKILL)
        finally:
            os.close(pid_fd)


def _holders(path: Path) -> str:
    """The processes that hold a flock on this file."""
    pids = lock_holders(path.stat(), "FLOCK")
    return "pid " + ", ".join(map(str, pids)) if pids else "not to be seen from here"
