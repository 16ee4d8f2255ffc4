"""The calls that make bytes durable, and the one place where somebody may stand between them and the disk.

`os.fsync` and `os.fdatasync` are used as they are; `sync_range` says in addition which bytes may have
changed, and `sync_file_system` is Linux's syncfs. Who records what is durable (`store/write_recorder.py`)
calls `intercept` once, before any of them; nobody else pays anything for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

_libc = ctypes.CDLL(None, use_errno=True)


class Observer(Protocol):
    """Whoever wants to know what a sync makes durable. The contexts end with the exception of a failed
    sync."""

    def watch(self, fd: int, changed: tuple[int, int] | None) -> AbstractContextManager[None]:
        """Surround a sync of `fd`; `changed` are the bytes its caller says may have changed."""

    def watch_all(self, fd: int) -> AbstractContextManager[None]:
        """Surround a sync of the whole file system of `fd`."""


_observer: Observer | None = None


def sync_range(fd: int, first: int, end: int) -> None:
    """fdatasync a file of which only the bytes `[first, end)` may have changed. OSError."""
    if _observer is None:
        os.fdatasync(fd)
        return
    with _observer.watch(fd, (first, end)):
        _fdatasync(fd)


def sync_file_system(fd: int) -> None:
    """syncfs: write everything that the file system of `fd` has in memory. OSError."""
    with contextlib.nullcontext() if _observer is None else _observer.watch_all(fd):
        if _libc.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_fsync, _fdatasync = os.fsync, os.fdatasync


def intercept(observer: Observer | None) -> None:
    """Let `observer` see every sync of this process from now on, and of processes forked from it; None ends
    it.

    The two functions of `os` are replaced, so that no sync is missed, whoever makes it.
    """
    global _observer
    _observer = observer
    os.fsync = _fsync if observer is None else _seen_by(observer, _fsync)  # type: ignore[assignment]
    os.fdatasync = _fdatasync if observer is None else _seen_by(observer, _fdatasync)  # type: ignore[assignment]


def _seen_by(observer: Observer, sync: Callable[[int], None]) -> Callable[[int], None]:
    def seen(fd: int) -> None:
        with observer.watch(fd, None):
            sync(fd)

    return seen
