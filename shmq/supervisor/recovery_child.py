"""Recovery in a short-lived child: it needs numpy and much memory, the supervisor wants neither.

The child runs `store.recovery.open_or_recover` under the supervisor's store lock and LOCK_EX of the
appenders' lock, and leaves the control page in /dev/shm for the supervisor to attach. If it dies, the next
start begins anew: recovery may be repeated from any point.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import sys
from pathlib import Path

from shmq.base import faults, log
from shmq.base.clock import monotonic_ms
from shmq.base.errors import ConfigFault, ShmqError, StoreDamaged, Unavailable
from shmq.base.files import SharedFileLock
from shmq.model.settings import BrokerSettings
from shmq.supervisor.child import OUTLIVES, leave_with_parent
from shmq.supervisor.children import exit_text
from shmq.supervisor.fork_server import CONTEXT, Inherited, leave_no_trace_in_child, nothing_as_main

PROGRESS_MS = 1000
BAR_WIDTH = 40

_logger = log.get("shmq.recovery")

_FAULTS: dict[str, type[ShmqError]] = {
    kind.__name__: kind for kind in (ConfigFault, StoreDamaged, Unavailable)
}


def recover_in_child(
    root: Path,
    settings: BrokerSettings,
    lock: SharedFileLock,
    *,
    adopt: bool,
    log_dir: Path | None,
    interrupts: int,
) -> None:
    """Run recovery and wait for it; raises what it raised.

    `lock` is the supervisor's LOCK_EX of the appenders' lock. The child inherits it: when the supervisor is
    killed, the next one waits until the child is really gone, which a disk may delay. When it died of SIGBUS,
    which is a bad sector, it is run once more, reading with care. Unavailable when it died otherwise, or when
    `interrupts` (a descriptor) became readable: the start was called off.
    """
    died = _run_child(root, settings, lock.fileno(), adopt, log_dir, interrupts, carefully=False)
    if died == -signal.SIGBUS:
        log.event(_logger, logging.ERROR, "recovery_met_a_bad_sector", advice="reading page by page")
        died = _run_child(root, settings, lock.fileno(), adopt, log_dir, interrupts, carefully=True)
    if died is not None:
        raise Unavailable(f"recovery ended without a result ({exit_text(died)}); its log says more")


def _run_child(
    root: Path,
    settings: BrokerSettings,
    lock_fd: int,
    adopt: bool,
    log_dir: Path | None,
    interrupts: int,
    *,
    carefully: bool,
) -> int | None:
    """Run the child once. None: it has done its work; its exit code when it died without a word."""
    result_read, result_write = os.pipe()
    try:
        process = CONTEXT.Process(
            target=_main,
            args=(
                root,
                settings,
                adopt,
                carefully,
                os.getpid(),
                log_dir,
                result_write,
                Inherited.of((result_write, lock_fd)),
            ),
            name=f"shmq: recovery {settings.broker_name}",
        )
        with nothing_as_main():
            process.start()
    except EOFError as error:
        os.close(result_read)
        raise Unavailable("the fork server died before recovery had begun: start again") from error
    finally:
        os.close(result_write)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(result_read, selectors.EVENT_READ)
            selector.register(interrupts, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select()}
        if result_read not in ready:
            process.kill()
            process.join()
            raise Unavailable("the start was called off while the store was being recovered")
        outcome = b"".join(iter(lambda: os.read(result_read, 65536), b""))
        process.join()
    finally:
        os.close(result_read)
    exit_code = process.exitcode
    process.close()
    if not outcome:
        return exit_code or 0
    answer = json.loads(outcome)
    if answer["fault"] is not None:
        raise _FAULTS.get(answer["fault"], StoreDamaged)(answer["reason"])
    return None


class _ProgressLog:
    """Tell how far recovery is, at most once a second: in the log, and as a bar where somebody looks on."""

    def __init__(self) -> None:
        self._next_ms = monotonic_ms() + PROGRESS_MS

    def __call__(self, records: int, position: int, end: int) -> None:
        """`records` are checked, the walk is at `position`; the log's files end at `end`."""
        now_ms = monotonic_ms()
        if now_ms >= self._next_ms:
            self._next_ms = now_ms + PROGRESS_MS
            log.event(
                _logger,
                logging.INFO,
                "recovering",
                records=records,
                position=position,
                files_end=end,
            )
            if sys.stderr.isatty():
                done = BAR_WIDTH * position // max(1, end)
                bar = "#" * done + "." * (BAR_WIDTH - done)
                print(f"\rrecovering [{bar}] {records:,} records", end="", file=sys.stderr, flush=True)


def _main(
    root: Path,
    settings: BrokerSettings,
    adopt: bool,
    carefully: bool,
    owner_pid: int,
    log_dir: Path | None,
    result_fd: int,
    inherited: Inherited,
) -> None:
    """The child: recover, tell the outcome as one line of JSON, leave."""
    if not faults.is_on(OUTLIVES):
        leave_with_parent(signal.SIGKILL)
    leave_no_trace_in_child()
    result_fd = inherited.here()[result_fd]  # the lock is held by being open
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import setproctitle

    setproctitle.setproctitle(f"shmq: recovery {settings.broker_name}")
    log.setup("recovery", log_dir, settings.log_level)
    from shmq.store.copied_segment import read_carefully
    from shmq.store.recovery import open_or_recover

    if carefully:
        read_carefully()
    answer: dict[str, str | None] = {"fault": None, "reason": None}
    try:
        open_or_recover(root, settings, adopt, owner_pid=owner_pid, progress=_ProgressLog())
    except OSError as fault:
        log.event(_logger, logging.ERROR, "recovery_failed", exc_info=True)
        answer = {"fault": Unavailable.__name__, "reason": f"the disk of {root} refuses recovery: {fault}"}
    except ShmqError as fault:
        answer = {"fault": type(fault).__name__, "reason": str(fault)}
    os.write(result_fd, json.dumps(answer).encode())
    sys.exit(0)
