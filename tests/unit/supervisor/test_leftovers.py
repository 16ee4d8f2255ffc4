"""Nobody of an earlier run may still append: recorded holders are killed, unknown ones are named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base.errors import Unavailable
from shmq.base.files import SharedFileLock
from shmq.shm.worker_slots import process_start_time, process_state
from shmq.supervisor import leftovers
from shmq.supervisor.child import APPENDERS_LOCK
from tests.helpers.waiting import wait_until

HOLD = (
    "import sys, fcntl; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_SH); "
    "print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / APPENDERS_LOCK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_recorded_holder_is_killed_and_the_lock_taken(
    tmp_path: Path, holder: subprocess.Popen[bytes]
) -> None:
    lock = leftovers.lock_out_appenders(tmp_path, [(holder.pid, process_start_time(holder.pid))])
    assert holder.wait(5) == -9
    other = SharedFileLock(tmp_path / APPENDERS_LOCK)
    assert not other.shared(nonblocking=True)
    lock.release()
    assert other.shared(nonblocking=True)
    other.release()


def test_a_recorded_process_that_never_got_the_lock_is_killed_too(tmp_path: Path) -> None:
    """It was stopped between its start and the lock: woken later it would ask for it."""
    stopped = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stopped.send_signal(signal.SIGSTOP)
    wait_until(lambda: process_state(stopped.pid) == "T")
    lock = leftovers.lock_out_appenders(tmp_path, [(stopped.pid, process_start_time(stopped.pid))])
    assert process_state(stopped.pid) in "ZX", "killed, and gone before anything else happens"
    assert stopped.wait(5) == -9
    lock.release()


def test_a_pid_given_out_again_is_not_killed_and_the_holder_is_named(
    tmp_path: Path, holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "LIMIT_MS", 50)
    with pytest.raises(Unavailable, match=rf"pid {holder.pid}\b"):
        leftovers.lock_out_appenders(tmp_path, [(holder.pid, process_start_time(holder.pid) + 1)])
    assert holder.poll() is None


def test_without_holders_the_lock_is_taken_at_once(tmp_path: Path) -> None:
    lock = leftovers.lock_out_appenders(tmp_path, [(os.getpid() + 1_000_000, 5)])
    lock.release()
