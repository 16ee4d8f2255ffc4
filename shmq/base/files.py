"""Durable file replacement, and the two file locks that keep processes apart.

Nothing here knows what the files are for. Every function may block on the disk: the broker's workers use
nothing of it but `SharedFileLock`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path

from shmq.base import faults
from shmq.base.errors import Bug, Unavailable

faults.declare(
    {
        "file.temp_written": "the new content is durable under another name",
        "file.backup_kept": "the old content has its second name, the new one not yet its own",
        "file.renamed": "the new content has its name, perhaps not durably",
    }
)

# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid
_FLOCK = struct.Struct("@hhqqi4x")
assert _FLOCK.size == 32


def fsync_folder(path: Path) -> None:
    """Make the names in the folder `path` durable (creations, renames, unlinks)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, data: bytes, *, backup: bool = True) -> None:
    """Replace the content of `path` so that a crash at any point leaves the old or the new content, whole.

    Writes and syncs `<path>.tmp`, keeps the old content as `<path>.bak` (RocketMQ's habit; its reader falls
    back to it), renames, syncs the folder. One writer per file: the temporary name is fixed. OSError when the
    disk refuses.
    """
    temp = path.with_name(path.name + ".tmp")
    with open(temp, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    faults.reach("file.temp_written")
    if backup:
        _keep_backup(path)
        faults.reach("file.backup_kept")
    temp.replace(path)
    faults.reach("file.renamed")
    fsync_folder(path.parent)


def _keep_backup(path: Path) -> None:
    """Give the present content the second name `<path>.bak` without a moment in which `path` is missing."""
    bak = path.with_name(path.name + ".bak")
    link = path.with_name(path.name + ".bak.tmp")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        path.replace(
            bak
        )  # a file system without hard links: for a moment only .bak exists, which readers accept
        return
    link.replace(bak)


class StoreLock:
    """The lock that makes one process the owner of a store: `<store>/lock`, byte 0, for life.

    An open-file-description record lock: it conflicts with the POSIX lock that an Apache broker takes on the
    same byte, belongs to this one descriptor (closing others of the file does not drop it), and vanishes with
    the process. Held by the supervisor; the file keeps RocketMQ's content, the four bytes "lock".
    """

    def __init__(self, path: Path) -> None:
        """Name the lock file; nothing is opened yet."""
        self._path = path
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock or raise Unavailable naming the process that has it. Does not wait."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
            if os.pread(fd, 5, 0) != b"lock":
                os.ftruncate(fd, 0)
                os.pwrite(fd, b"lock", 0)
                os.fsync(fd)
        except OSError as error:
            holder = self._holder(fd)
            os.close(fd)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise Unavailable(
                f"{self._path} is held by {holder}: this store is in use. "
                "Stop that broker first, or use another store."
            ) from None
        self._fd = fd

    def _holder(self, fd: int) -> str:
        """Name who has the lock. The kernel tells the pid of a POSIX lock only; others are looked up."""
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
        pid = _FLOCK.unpack(answer)[4]
        if pid <= 0:
            pid = next(iter(lock_holders(os.fstat(fd), "OFDLCK")), 0)
        return f"process {pid}" if pid > 0 else "a process of another user"

    def release(self) -> None:
        """Drop the lock. Twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def lock_holders(wanted: os.stat_result, kind: str) -> list[int]:
    """The processes of ours that hold a lock of that kind (OFDLCK, FLOCK) through a descriptor of that file.

    The kernel's own list names who took it, and that one may be dead, while others inherited the descriptor.
    """
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*/fdinfo"):
        with contextlib.suppress(OSError):
            for info in folder.iterdir():
                with contextlib.suppress(OSError):
                    stat = (folder.parent / "fd" / info.name).stat()
                    same = (stat.st_dev, stat.st_ino) == (wanted.st_dev, wanted.st_ino)
                    if same and kind in info.read_text():
                        found.append(int(folder.parent.name))
    return sorted(set(found))


class SharedFileLock:
    """A `flock` on a file of its own: many shared holders or one exclusive one.

    Belongs to the open descriptor, so it vanishes when the last process that has it dies. `appenders.lock`
    and `flush.lock` are such files.
    """

    def __init__(self, path: Path) -> None:
        """Open (and make) the lock file; the lock is not taken yet."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def fileno(self) -> int:
        """The descriptor: whoever inherits it holds the lock as well, until both are closed."""
        return self._fd

    def exclusive(self, nonblocking: bool = False) -> bool:
        """Take it alone; False only when `nonblocking` and somebody else has it."""
        return self._lock(fcntl.LOCK_EX, nonblocking)

    def shared(self, nonblocking: bool = False) -> bool:
        """Take it together with other shared holders; False only when `nonblocking` and one has it alone."""
        return self._lock(fcntl.LOCK_SH, nonblocking)

    def _lock(self, kind: int, nonblocking: bool) -> bool:
        if self._fd < 0:
            raise Bug("the lock file is already closed")
        try:
            fcntl.flock(self._fd, kind | (fcntl.LOCK_NB if nonblocking else 0))
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Let go, keep the file open to take it again."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def release(self) -> None:
        """Let go and close. Twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
