"""First code of every child process: cut its ties, wait for "go", then run its role.

Runs in workers and the coordinator, forked from the fork server, which has imported what they need. This
module imports nothing heavy itself, as the supervisor imports it too: each role's function brings its own.

How it starts  by `supervisor/children.py`: parent-death signal first, then title, signals, log; "go" (its
               slot is filled now), LOCK_SH on <store>/appenders.lock, and a last look at the supervisor pipe.
How it ends    its role returns (SIGTERM drained), or the supervisor's pipe is closed, or it dies.
Its crash      is seen by the supervisor through the pidfd; shared state is repaired there, then it is started
               again.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import setproctitle

from shmq.base import faults, log
from shmq.base.errors import ConfigFault, StoreDamaged
from shmq.base.files import SharedFileLock
from shmq.shm.boot import ChildBoot, ChildExit, ChildRole
from shmq.supervisor.fork_server import Inherited, leave_no_trace_in_child

GO = b"G"
"""What the supervisor writes into a child's go pipe after it has filled the child's slot."""

APPENDERS_LOCK = "appenders.lock"
"""File in the store folder: whoever may append holds LOCK_SH on it, whoever repairs a kept page LOCK_EX."""

_PR_SET_PDEATHSIG = 1

OUTLIVES = "child.outlives_parent"
faults.declare(
    {
        "child.before_go": "imported and booted, waiting for its slot; nothing shared was touched",
        "child.may_append": "LOCK_SH taken, nothing appended yet",
        OUTLIVES: "a defect for tests: no parent-death signal, so a stopped child stays behind",
    }
)
_logger = log.get("shmq.child")


def main(boot: ChildBoot, go_fd: int, inherited: Inherited) -> None:
    """Run the child; never returns. `inherited` tells where the descriptors named in `boot` arrived."""
    if not faults.is_on(OUTLIVES):
        leave_with_parent(signal.SIGKILL)
    leave_no_trace_in_child()
    here = inherited.here()
    boot, go_fd = boot.renumbered(here), here[go_fd]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setproctitle.setproctitle(boot.title)
    name = boot.role.value if boot.role is not ChildRole.WORKER else f"worker-{boot.index}"
    log.setup(name, boot.log_dir, boot.settings.log_level)
    run = _ROLES[boot.role]()
    lock = wait_for_go(boot, go_fd)
    sys.exit(_run(run, boot, lock))


def leave_with_parent(signal_number: int) -> None:
    """Ask the kernel to send this process a signal when the thread that created it ends."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)


def wait_for_go(boot: ChildBoot, go_fd: int) -> SharedFileLock:
    """Wait until this child may append, and hold the appenders' lock from then on.

    Ends the process when the supervisor is gone, or when somebody repairs the store right now: then a new
    supervisor is at work, and this child belongs to an old one.
    """
    faults.reach("child.before_go")
    go = os.read(go_fd, 1)
    os.close(go_fd)
    lock = SharedFileLock(Path(boot.store_root) / APPENDERS_LOCK)
    if go != GO or not lock.shared(nonblocking=True) or supervisor_is_gone(boot.supervisor_fd):
        sys.exit(ChildExit.ORPHANED)
    faults.reach("child.may_append")
    return lock


def supervisor_is_gone(supervisor_fd: int) -> bool:
    """Look, without waiting, whether the write end of the supervisor pipe was closed."""
    poll = select.poll()
    poll.register(supervisor_fd, select.POLLIN)
    return bool(poll.poll(0))


def _run(run: Callable[[ChildBoot], None], boot: ChildBoot, lock: SharedFileLock) -> int:
    try:
        run(boot)
    except (ConfigFault, StoreDamaged) as fault:
        log.event(_logger, logging.CRITICAL, "cannot_boot", reason=fault)
        return ChildExit.CANNOT_BOOT
    except Exception:  # the edge of the process: whatever it is, it ends this child and is in the log
        log.event(_logger, logging.CRITICAL, "crashed", exc_info=True)
        return ChildExit.CRASHED
    finally:
        lock.release()
    return ChildExit.DONE


def _worker() -> Callable[[ChildBoot], None]:
    from shmq.worker.main import run

    return run


def _coordinator() -> Callable[[ChildBoot], None]:
    from shmq.coordinator.main import run

    return run


_ROLES: dict[ChildRole, Callable[[], Callable[[ChildBoot], None]]] = {
    ChildRole.WORKER: _worker,
    ChildRole.COORDINATOR: _coordinator,
}
