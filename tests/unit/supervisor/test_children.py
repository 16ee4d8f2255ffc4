"""Children: real processes started without importing the main module again; when they may start again."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace
from typing import cast

import multiprocess
import pytest

from shmq.shm.boot import ChildExit
from shmq.supervisor.children import (
    BACKOFF_MAX_MS,
    STABLE_MS,
    UNREADY_DEATHS_MAX,
    Child,
    Inherited,
    Restarts,
    exit_text,
    nothing_as_main,
)


def _report_modules(fd: int, inherited: object) -> None:
    del inherited
    os.write(
        fd,
        " ".join(
            name for name in ("numpy", "asyncio", "pytest", "__mp_main__") if name in sys.modules
        ).encode(),
    )


def test_a_spawned_child_inherits_its_descriptors_and_imports_no_main() -> None:
    read_end, write_end = os.pipe()
    process = multiprocess.get_context("spawn").Process(
        target=_report_modules, args=(write_end, Inherited([write_end]))
    )
    with nothing_as_main():
        process.start()
    os.close(write_end)
    process.join(20)
    assert process.exitcode == 0
    modules = os.read(read_end, 1000).decode().split()
    os.close(read_end)
    assert "numpy" not in modules
    assert "asyncio" not in modules


def dead_child(lived_ms: int, ready: bool) -> Child:
    return cast(Child, SimpleNamespace(started_ms=0, ready=ready, lived_ms=lived_ms))


def after(restarts: Restarts, lived_ms: int, ready: bool = True) -> int:
    """The pause before the next start after a child lived so long."""
    restarts.after_death(dead_child(lived_ms, ready), lived_ms)
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
