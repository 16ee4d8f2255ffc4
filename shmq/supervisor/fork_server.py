"""The fork server: an idle process without threads that has imported everything; children are forked from it.

Python's and numpy's imports cost a child 0.6 s of processor time; forked from here it serves within tens of
milliseconds, at the start and after a death, and children share the memory of what was imported. It is
`multiprocess`'s own fork server, so no threaded parent forks: the supervisor asks for a child over a private
socket, passing the descriptors the child shall have. The preloaded module is `supervisor/nursery.py`.

How it starts  by the supervisor's main thread, while it is the only one: as a fork, so that what both need is
               imported once. It imports the rest while the supervisor opens the store.
How it ends    `stop`, or at the end of its pipe when the supervisor is gone; its children die with it
               (parent-death signal), as they would with the supervisor.
Its crash      kills its children; the next start of a child starts another fork server, then as an
               interpreter of its own: the supervisor has threads by that time.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import resource
import shutil
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

import multiprocess
from multiprocess import forkserver, reduction, resource_tracker, util

PRELOAD = "shmq.supervisor.nursery"
_SOCKET_NAME_BYTES = 24
_SOCKET_PATH_BYTES_MAX = 107

CONTEXT = multiprocess.get_context("forkserver")
"""Processes made in this context come from the fork server. Main thread only."""


class Inherited:
    """Descriptors handed to a child; in the child it tells under which numbers they arrived."""

    def __init__(self, numbers: dict[int, object]) -> None:
        """`numbers`: the parent's descriptor -> itself in the parent, a handle in what is pickled."""
        self._numbers = numbers

    @classmethod
    def of(cls, descriptors: tuple[int, ...]) -> Inherited:
        """Name what a child shall have; made into handles when the child's start pickles it."""
        return cls({fd: fd for fd in descriptors})

    def __reduce__(self) -> tuple[type[Inherited], tuple[dict[int, object]]]:
        """Register every descriptor with the start of the child that pickles this object just now."""
        return Inherited, ({fd: reduction.DupFd(fd) for fd in self._numbers},)

    def here(self) -> dict[int, int]:
        """In the child: the parent's number -> the descriptor here."""
        return {number: handle.detach() for number, handle in self._numbers.items()}  # type: ignore[attr-defined]


def start(folder: Path) -> None:
    """Start the fork server, whose socket lies in `folder`; it goes on importing while we do other things.

    A process with other threads (a test's) starts it as an interpreter of its own.
    """
    socket_folder = folder / f".{os.getpid()}"
    if len(os.fsencode(socket_folder)) + _SOCKET_NAME_BYTES <= _SOCKET_PATH_BYTES_MAX:
        _remove_dead_folders(folder)
        socket_folder.mkdir(mode=0o700, exist_ok=True)
        # Else multiprocess makes a folder in /tmp, which stays there when the supervisor is killed.
        multiprocess.process.current_process()._config["tempdir"] = str(socket_folder)
    CONTEXT.set_forkserver_preload([PRELOAD])
    _track_nothing()
    own_way = util.spawnv_passfds
    if threading.active_count() == 1:
        util.spawnv_passfds = _fork_to_serve
    try:
        with nothing_as_main():
            forkserver.ensure_running()
    finally:
        util.spawnv_passfds = own_way


def stop() -> None:
    """End the fork server. After the last child; twice is harmless."""
    server = forkserver._forkserver
    if server._forkserver_pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)  # it may still be importing
        server._stop()
    folder = multiprocess.process.current_process()._config.pop("tempdir", None)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _track_nothing() -> None:
    """Let `multiprocess` find its resource tracker running: a pipe to nobody.

    It would be a fifth interpreter, for semaphores and shared memory made by `multiprocess`, which shmq does
    not use.
    """
    tracker = resource_tracker._resource_tracker
    if tracker._fd is None:
        tracker._fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def _fork_to_serve(_interpreter: bytes, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """In place of `spawnv_passfds`: a fork of this process runs what a new interpreter would.

    It keeps the standard streams and `descriptors`, as the other would. Returns its pid.
    """
    gc.freeze()  # the collector of neither touches, and so copies, the pages they share
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _close_all_but({0, 1, 2, *descriptors})
        exec(arguments[-1], {})  # multiprocess's own line: `from multiprocess.forkserver import main; ...`
    except SystemExit:
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)  # never back into the supervisor's code


def _close_all_but(kept: set[int]) -> None:
    """Close every other descriptor of this process."""
    for below, above in itertools.pairwise([*sorted(kept), resource.getrlimit(resource.RLIMIT_NOFILE)[0]]):
        os.closerange(below + 1, above)


def was_killed() -> bool:
    """Whether the fork server, which has just closed its end of a conversation, was ended by SIGKILL.

    Waits until it is dead, and leaves it to be waited for once more.
    """
    pid = forkserver._forkserver._forkserver_pid
    if pid is None:
        return False
    with contextlib.suppress(ChildProcessError):
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return found is not None and (found.si_code, found.si_status) == (os.CLD_KILLED, signal.SIGKILL)
    return False


def leave_no_trace_in_child() -> None:
    """In a child: give up its copy of the fork server's life line: only the supervisor keeps that alive."""
    server = forkserver._forkserver
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None


@contextlib.contextmanager
def nothing_as_main() -> Iterator[None]:
    """Hide `__main__` while a child is started: it would run the console script's imports again."""
    own_main = sys.modules["__main__"]
    nothing = types.ModuleType("__main__")
    nothing.__spec__ = None
    sys.modules["__main__"] = nothing
    try:
        yield
    finally:
        sys.modules["__main__"] = own_main


def _remove_dead_folders(folder: Path) -> None:
    """Remove the socket folders of supervisors that were killed."""
    for left in folder.glob(".[0-9]*"):
        if left.name[1:].isdecimal() and not Path(f"/proc/{left.name[1:]}").exists():
            shutil.rmtree(left, ignore_errors=True)
