"""Starting, watching and ending child processes.

Only the supervisor's main thread comes here: the thread that repairs is the only one that starts children.
They are forked by the fork server (`fork_server.py`), so that no thread of the supervisor is forked; a child
gets exactly the descriptors its ChildBoot names. A death is learnt from the pidfd, which a selector can
watch; its status from `Process.exitcode`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field

import multiprocess

from shmq.base.clock import monotonic_ms
from shmq.base.errors import Unavailable
from shmq.shm.boot import READY, ChildBoot, ChildExit, ChildRole
from shmq.supervisor import child as child_process
from shmq.supervisor import fork_server
from shmq.supervisor.signals import SignalQueue

BACKOFF_FIRST_MS = 100
BACKOFF_MAX_MS = 10_000
STABLE_MS = 10_000
"""A child that ran so long starts again at once after its death: it was not a circle."""
KILLS_FREE = 10
KILLS_WINDOW_MS = 10_000
KILLED_PAUSE_MAX_MS = 1_000
"""A child that is killed more than KILLS_FREE times within the window waits 100 ms, then twice as long each
time, a second at most: somebody kills in a circle, and starting again at once would take the processor from
the others.
"""
UNREADY_DEATHS_MAX = 5
"""A child that dies so often in a row before it served is not started again: the broker stops."""


@dataclass
class Child:
    """One running child: its process, its pidfd, and the two pipes to it."""

    boot: ChildBoot
    process: multiprocess.process.BaseProcess
    pid: int
    pid_fd: int
    go_fd: int
    status_fd: int
    started_ms: int
    ready: bool = False

    def is_dead(self) -> bool:
        """True once the kernel says so; asks without waiting."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.pid_fd, selectors.EVENT_READ)
            return bool(selector.select(0))

    def serves(self, role: ChildRole) -> bool:
        """True when it plays this role, said that it serves, and is not known to be dead."""
        return self.boot.role is role and self.ready

    def signal(self, number: int) -> None:
        """Send a signal to exactly this process; a dead one is left alone."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.pid_fd, number)

    def go(self) -> None:
        """Let it append: its slot is filled."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.go_fd, child_process.GO)
        os.close(self.go_fd)
        self.go_fd = -1

    def read_status(self) -> bool:
        """Take what it wrote into the status pipe; True when it says for the first time that it serves."""
        try:
            words = os.read(self.status_fd, 64)
        except BlockingIOError:
            return False
        newly = READY in words and not self.ready
        self.ready = self.ready or newly
        return newly

    def bury(self) -> int:
        """Reap the dead process, close what belonged to it, and return its exit code (-N: killed by signal
        N)."""
        self.process.join()
        exit_code = self.process.exitcode
        self.process.close()
        for fd in (self.pid_fd, self.go_fd, self.status_fd):
            if fd >= 0:
                os.close(fd)
        assert isinstance(exit_code, int)
        return exit_code


class NotStarted(Unavailable):
    """A child could not be started. `killed`: because somebody killed the fork server."""

    def __init__(self, reason: str, *, killed: bool) -> None:
        """Say why."""
        super().__init__(reason)
        self.killed = killed


def spawn(boot: ChildBoot) -> Child:
    """Start one child, which boots and then waits for `Child.go`.

    NotStarted when the fork server died meanwhile, or the kernel refuses. A child that was made all the same
    never gets its "go", and leaves.
    """
    go_read, go_write = os.pipe()
    status_read, status_write = os.pipe()
    try:
        boot = dataclasses.replace(boot, status_fd=status_write)
        inherited = fork_server.Inherited.of((*boot.descriptors(), go_read))
        process = fork_server.CONTEXT.Process(
            target=child_process.main, args=(boot, go_read, inherited), name=boot.title
        )
        with fork_server.nothing_as_main():
            process.start()
    except (EOFError, OSError) as error:
        os.close(go_write)
        os.close(status_read)
        killed = isinstance(error, EOFError) and fork_server.was_killed()
        raise NotStarted(f"the fork server started no process: {error!r}", killed=killed) from error
    finally:
        os.close(go_read)
        os.close(status_write)
    os.set_blocking(status_read, False)
    return Child(
        boot=boot,
        process=process,
        pid=process.pid,
        pid_fd=_death_descriptor(process),
        go_fd=go_write,
        status_fd=status_read,
        started_ms=monotonic_ms(),
    )


def _death_descriptor(process: multiprocess.process.BaseProcess) -> int:
    """The child's pidfd: readable once it is dead.

    The fork server reaps it, so a child that died at once may be gone already: then the pipe on which its
    exit code was told stands in, which is readable too.
    """
    try:
        return os.pidfd_open(process.pid)
    except ProcessLookupError:
        return os.dup(process.sentinel)


@dataclass
class Restarts:
    """When a child that died may start again: at once at first, then later and later while it keeps dying.

    Who is killed by SIGKILL dies of somebody else's will (an operator's, the kernel's for want of memory),
    not of a circle of its own: it starts again within a second, however often that happens.
    """

    deaths_in_a_row: int = 0
    unready_deaths: int = 0
    due_ms: int = 0
    kills: list[int] = field(default_factory=list)
    """When it was killed within the window."""

    def after_death(self, dead: Child, exit_code: int, now_ms: int) -> None:
        """Note a death and set `due_ms`."""
        stable = now_ms - dead.started_ms >= STABLE_MS
        if exit_code == -signal.SIGKILL:
            self._after_kill(now_ms, 0 if stable or dead.ready else BACKOFF_FIRST_MS)
            return
        self.deaths_in_a_row = 0 if stable else self.deaths_in_a_row + 1
        self.unready_deaths = 0 if dead.ready else self.unready_deaths + 1
        backoff = min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS << min(16, max(0, self.deaths_in_a_row - 2)))
        self.due_ms = now_ms + (0 if self.deaths_in_a_row <= 1 else backoff)

    def after_failure(self, failure: NotStarted, now_ms: int) -> None:
        """Note that it could not be started, and set `due_ms`."""
        if failure.killed:
            self._after_kill(now_ms, BACKOFF_FIRST_MS)
            return
        self.unready_deaths += 1
        self.due_ms = now_ms + (BACKOFF_FIRST_MS << min(6, self.unready_deaths))

    def _after_kill(self, now_ms: int, pause_ms: int) -> None:
        self.kills = [at for at in self.kills if now_ms - at < KILLS_WINDOW_MS] + [now_ms]
        if (many := len(self.kills) - KILLS_FREE) > 0:
            pause_ms = min(KILLED_PAUSE_MAX_MS, BACKOFF_FIRST_MS << min(16, many - 1))
        self.due_ms = now_ms + pause_ms

    @property
    def hopeless(self) -> bool:
        """True when starting it again would only go round in a circle."""
        return self.unready_deaths >= UNREADY_DEATHS_MAX


def exit_text(exit_code: int) -> str:
    """An exit code in words, for the log."""
    if exit_code < 0:
        try:
            return f"killed by {signal.Signals(-exit_code).name}"
        except ValueError:
            return f"killed by signal {-exit_code}"
    try:
        return f"exit {exit_code} ({ChildExit(exit_code).name})"
    except ValueError:
        return f"exit {exit_code}"


def wait_for_deaths(
    children: Iterable[Child], limit_ms: int, interrupts: SignalQueue | None = None
) -> list[Child]:
    """Wait until all are dead, the time is over or another signal comes; returns those still alive."""
    alive = list(children)
    deadline_ms = monotonic_ms() + limit_ms
    with selectors.DefaultSelector() as selector:
        for running in alive:
            selector.register(running.pid_fd, selectors.EVENT_READ, running)
        if interrupts is not None:
            selector.register(interrupts, selectors.EVENT_READ)
        while alive and (left_ms := deadline_ms - monotonic_ms()) > 0:
            for key, _ in selector.select(left_ms / 1000):
                if interrupts is not None and key.fileobj is interrupts:
                    return alive
                selector.unregister(key.fd)
                alive.remove(key.data)
    return alive
