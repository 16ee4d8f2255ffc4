"""The calls that make bytes durable, and the one place where somebody may stand between them and the disk.

`os.fsync` and `os.fdatasync` are used as they are; `sync_range` says in addition which bytes may have
changed, and `sync_file_system` is Linux's syncfs. Who records what is durable (`store/write_recorder.py`)
calls `intercept` once, before any of them; nobody else pays anything for it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Protocol

_libc = ctypes.CDLL(None, use_errno=True)


class Observer(Protocol):
    """Whoever wants to know what a sync makes durable."""

    def before(self, fd: int, changed: tuple[int, int] | None) -> object:
        """Look at `fd` before its sync; `changed` are the bytes its caller says may have changed."""

    def before_all(self, fd: int) -> object:
        """Look at everything before the file system of `fd` is synced."""

    def after(self, seen: object) -> None:
        """The sync succeeded: what was seen before it is durable now."""


_observer: Observer | None = None


def sync_range(fd: int, first: int, end: int) -> None:
    """fdatasync a file of which only the bytes `[first, end)` may have changed. OSError."""
    if _observer is None:
        os.fdatasync(fd)
        return
    seen = _observer.before(fd, (first, end))
    _fdatasync(fd)
    _observer.after(seen)


def sync_file_system(fd: int) -> None:
    """syncfs: write everything that the file system of `fd` has in memory. OSError."""
    seen = _observer.before_all(fd) if _observer is not None else None
    if _libc.syncfs(fd) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if _observer is not None:
        _observer.after(seen)


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
        found = observer.before(fd, None)
        sync(fd)
        observer.after(found)

    return seen
