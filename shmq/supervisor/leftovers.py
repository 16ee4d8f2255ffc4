"""Making sure that nobody of an earlier run can still append, before anything is repaired or recovered.

A supervisor that was killed may leave children for a moment: they leave when its pipe closes, but a stopped
or hung one does not. Every process that may append holds LOCK_SH on <store>/appenders.lock, so LOCK_EX proves
that none is left. Until then: SIGKILL those recorded on the old control page whose start time matches, and
try again. Main thread of the supervisor, under the store lock, before it starts a child.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from shmq.base import log
from shmq.base.clock import monotonic_ms
from shmq.base.errors import Unavailable
from shmq.base.files import SharedFileLock
from shmq.shm.worker_slots import process_start_time
from shmq.supervisor.child import APPENDERS_LOCK

LIMIT_MS = 10_000
"""A killed process that is still there after so long hangs in the kernel: a disk that does not answer."""
LOOK_AGAIN_S = 0.01

_logger = log.get("shmq.supervisor")


def lock_out_appenders(store_root: Path, recorded: Iterable[tuple[int, int]]) -> SharedFileLock:
    """Take LOCK_EX; `recorded` are an earlier run's (pid, start time). Unavailable after 10 s."""
    lock = SharedFileLock(store_root / APPENDERS_LOCK)
    suspects = list(recorded)
    deadline_ms = monotonic_ms() + LIMIT_MS
    while not lock.exclusive(nonblocking=True):
        for pid, started in suspects:
            if _started(pid) == started:
                log.event(_logger, logging.WARNING, "leftover_killed", pid=pid)
                _kill(pid)
        if monotonic_ms() > deadline_ms:
            lock.release()
            raise Unavailable(
                f"processes of an earlier run still hold {store_root / APPENDERS_LOCK} "
                f"({_holders(store_root / APPENDERS_LOCK)}): end them, or wait for the disk they wait for"
            )
        # Nothing can be waited for: a flock has no descriptor that becomes readable.
        time.sleep(LOOK_AGAIN_S)
    return lock


def _started(pid: int) -> int | None:
    try:
        return process_start_time(pid)
    except ProcessLookupError:
        return None


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _holders(path: Path) -> str:
    """The pids the kernel lists as holders of a flock on this file."""
    inode = f":{path.stat().st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    pids = sorted({line.split()[-4] for line in lines if "FLOCK" in line and inode in line})
    return "pid " + ", ".join(pids) if pids else "not to be seen from here"
