"""Named fault points: places where a test may stop the world, inert unless armed.

Code calls `reach("journal.prepared")` in every window worth dying in. Points are armed by the environment of
a process, read once at import, and inherited by its children:

    SHMQ_FAULTS      name=action[@nth],...   action: kill (SIGKILL) | stop (SIGSTOP) | raise (FaultReached) |
    exit (os._exit) | on (nothing happens there, `is_on` says so: a deliberate defect, to show that a test
    catches it)
                                             nth: which passing of this process fires, 1 if absent; later ones
                                             do not
    SHMQ_FAULTS_DIR  a folder: a firing makes the file <name> there, and a point whose file exists does not
    fire any
                     more in any process. So a restarted child survives, and a test can wait for the file.

Every name is declared with one line that says what the window is; the declaring module is the one that
reaches it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from shmq.base.errors import Bug, ConfigFault

KNOWN: dict[str, str] = {}
"""Every declared fault point: name -> what has and has not happened there."""

EXIT_STATUS = 86
"""Exit status of a process that the action `exit` ended."""


class FaultReached(Exception):
    """Raised by a point armed with `raise`. Not a ShmqError: nothing may take it for an expected failure."""


def _raise(name: str) -> None:
    raise FaultReached(name)


_ACTIONS: Mapping[str, Callable[[str], None]] = {
    "kill": lambda name: os.kill(os.getpid(), signal.SIGKILL),
    # To this very thread: another may take a signal to the process, and this one would go on a bit.
    "stop": lambda name: signal.pthread_kill(threading.get_ident(), signal.SIGSTOP),
    "exit": lambda name: os._exit(EXIT_STATUS),
    "raise": _raise,
    "on": lambda name: None,
}


class _Armed:
    """One armed point of this process: its action and how many passings are still to come before it fires."""

    __slots__ = ("action", "passings_left")

    def __init__(self, action: str, nth: int) -> None:
        self.action = action
        self.passings_left = nth


def _parse(text: str) -> dict[str, _Armed]:
    """Read the value of SHMQ_FAULTS; ConfigFault names the part that is wrong."""
    armed: dict[str, _Armed] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, what = part.partition("=")
        action, _, nth = what.partition("@")
        if action not in _ACTIONS or not (nth or "1").isdecimal() or int(nth or 1) < 1:
            raise ConfigFault(
                f"SHMQ_FAULTS: {part!r} is not name=kill|stop|raise|exit|on[@nth] with nth from 1"
            )
        armed[name] = _Armed(action, int(nth or 1))
    return armed


_armed = _parse(os.environ.get("SHMQ_FAULTS", ""))
_once_dir = os.environ.get("SHMQ_FAULTS_DIR")


def declare(points: Mapping[str, str]) -> None:
    """Register fault points, name -> description of the window. Called by the module that reaches them."""
    for name, window in points.items():
        if KNOWN.setdefault(name, window) != window:
            raise Bug(f"fault point {name} is declared twice")


def _pass(name: str) -> None:
    """Count this passing and fire if it is the armed one."""
    if name not in KNOWN:
        raise Bug(f"fault point {name} is reached but not declared")
    point = _armed.get(name)
    if point is None:
        return
    point.passings_left -= 1
    if point.passings_left == 0 and _claim_firing(name):
        _ACTIONS[point.action](name)


def _claim_firing(name: str) -> bool:
    """Make the marker file of `name`; False when some process already fired it."""
    if _once_dir is None:
        return True
    try:
        (Path(_once_dir) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def is_on(name: str) -> bool:
    """Tell whether the defect `name` is switched on in this process."""
    return name in _armed and _armed[name].action == "on"


reach: Callable[[str], object] = _pass if _armed else len
"""Pass the fault point `name`. Any process, any thread.

When nothing is armed it is a C function without effect: 15 ns in each of the dozen windows of a claim, where
a Python function would cost 50.
"""
