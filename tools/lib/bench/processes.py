"""What a set of processes used: CPU time, memory, wake-ups. Read from /proc by psutil."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import psutil


def tree(pids: Iterable[int]) -> list[psutil.Process]:
    """The processes and all their descendants that live now."""
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(pid)
            for process in (top, *top.children(recursive=True)):
                found[process.pid] = process
    return list(found.values())


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time the trees have used so far: living processes, and the children they have waited for."""
    total = 0.0
    for process in tree(pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def machine_seconds() -> float:
    """CPU time that anybody on this machine has used since its start."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - getattr(times, "guest", 0.0))


def resident_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of the trees without mapped store files: anonymous memory, code, shared page.

    What several processes map is divided among them; pages of CommitLog and other data files are the page
    cache's, whoever maps them.
    """
    total = 0
    for process in tree(pids):
        with contextlib.suppress(psutil.Error):
            for region in process.memory_maps(grouped=True):
                if "/store/" not in region.path:
                    total += region.pss
    return total


def wakeups(pids: Iterable[int]) -> dict[int, int]:
    """How often each process of the trees was put on a core by its own wish, all threads together."""
    counts = {}
    for process in tree(pids):
        with contextlib.suppress(psutil.Error):
            counts[process.pid] = sum(_voluntary(process.pid, thread.id) for thread in process.threads())
    return counts


def _voluntary(pid: int, thread: int) -> int:
    """voluntary_ctxt_switches of one thread: each is a sleep, so each but the first a wake-up."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/status") as status:
        for line in status:
            if line.startswith("voluntary_ctxt_switches"):
                return int(line.split()[1])
    return 0
