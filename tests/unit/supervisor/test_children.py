"""Children: forked from the fork server without running the main module again; when they restart."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from multiprocess import forkserver

from shmq.shm.boot import ChildExit
from shmq.supervisor import fork_server
from shmq.supervisor.children import (
    BACKOFF_FIRST_MS,
    BACKOFF_MAX_MS,
    KILLED_PAUSE_MAX_MS,
    KILLS_FREE,
    KILLS_WINDOW_MS,
    STABLE_MS,
    UNREADY_DEATHS_MAX,
    Child,
    Restarts,
    exit_text,
)
from shmq.supervisor.fork_server import Inherited


def _report(fd: int, inherited: Inherited) -> None:
    """In the child: what is imported, whether a script was run as main, how many threads there are."""
    names = [name for name in ("numpy", "shmq.worker.main") if name in sys.modules]
    main_is_a_script = hasattr(sys.modules["__main__"], "__file__")
    words = [*names, str(main_is_a_script), str(len(os.listdir("/proc/self/task")))]
    os.write(inherited.here()[fd], " ".join(words).encode())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    fork_server.start(tmp_path)
    yield tmp_path
    fork_server.stop()


def test_a_forked_child_has_its_descriptors_and_all_imports_but_no_main_and_no_threads(server: Path) -> None:
    read_end, write_end = os.pipe()
    process = fork_server.CONTEXT.Process(target=_report, args=(write_end, Inherited.of((write_end,))))
    with fork_server.nothing_as_main():
        process.start()
    os.close(write_end)
    process.join(20)
    assert process.exitcode == 0
    assert os.read(read_end, 1000).decode().split() == ["numpy", "shmq.worker.main", "False", "1"]
    os.close(read_end)


def test_the_fork_server_leaves_nothing_behind(tmp_path: Path) -> None:
    fork_server.start(tmp_path)
    pid = forkserver._forkserver._forkserver_pid
    assert [path.name for path in tmp_path.iterdir()] == [f".{os.getpid()}"]
    fork_server.stop()
    fork_server.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert list(tmp_path.iterdir()) == []


def dead_child(lived_ms: int, ready: bool) -> Child:
    return cast(Child, SimpleNamespace(started_ms=0, ready=ready, lived_ms=lived_ms))


def after(restarts: Restarts, lived_ms: int, ready: bool = True, exit_code: int = -signal.SIGSEGV) -> int:
    """The pause before the next start after a child lived so long."""
    restarts.after_death(dead_child(lived_ms, ready), exit_code, lived_ms)
    return restarts.due_ms - lived_ms


def test_the_first_death_restarts_at_once_and_repeated_ones_later_and_later() -> None:
    restarts = Restarts()
    pauses = [after(restarts, 100) for _ in range(12)]
    assert pauses[0] == 0
    assert pauses[1:4] == [100, 200, 400]
    assert pauses[-1] == BACKOFF_MAX_MS


def test_a_child_that_ran_long_starts_at_once_again() -> None:
    restarts = Restarts()
    for _ in range(5):
        after(restarts, 100)
    assert after(restarts, STABLE_MS) == 0
    assert after(restarts, 100) == 0


def test_a_child_that_never_served_is_given_up_after_some_tries() -> None:
    restarts = Restarts()
    for _ in range(UNREADY_DEATHS_MAX):
        assert not restarts.hopeless
        after(restarts, 100, ready=False)
    assert restarts.hopeless
    assert after(Restarts(), 100) == 0


def killed(restarts: Restarts, now_ms: int, ready: bool = True) -> int:
    """The pause after somebody killed a child that lived for a moment."""
    dead = cast(Child, SimpleNamespace(started_ms=now_ms - 100, ready=ready))
    restarts.after_death(dead, -signal.SIGKILL, now_ms)
    return restarts.due_ms - now_ms


def test_a_child_that_others_kill_is_never_given_up_and_starts_soon() -> None:
    restarts, every_ms = Restarts(), KILLS_WINDOW_MS // KILLS_FREE
    for n in range(4 * UNREADY_DEATHS_MAX):
        ready = bool(n % 2)
        assert killed(restarts, n * every_ms, ready) == (0 if ready else BACKOFF_FIRST_MS)
    assert not restarts.hopeless
    assert after(restarts, 100) == 0, "its own first death"


def test_a_child_that_is_killed_in_a_circle_starts_about_once_a_second() -> None:
    restarts, now_ms = Restarts(), 0
    pauses: list[int] = []
    while now_ms < 60_000:  # whoever kills it does so as soon as it serves, 50 ms after its start
        pauses.append(killed(restarts, now_ms))
        now_ms += 50 + pauses[-1]
    assert pauses[:KILLS_FREE] == [0] * KILLS_FREE
    assert pauses[KILLS_FREE : KILLS_FREE + 3] == [100, 200, 400]
    assert max(pauses) == KILLED_PAUSE_MAX_MS and len(pauses) < 100
    assert not restarts.hopeless
    assert killed(restarts, now_ms + KILLS_WINDOW_MS) == 0, "when that is over it is forgotten"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-signal.SIGKILL, "killed by SIGKILL"),
        (-199, "killed by signal 199"),
        (0, "exit 0 (DONE)"),
        (ChildExit.CANNOT_BOOT, "exit 78 (CANNOT_BOOT)"),
        (3, "exit 3"),
    ],
)
def test_exit_codes_in_words(code: int, text: str) -> None:
    assert exit_text(code) == text
