"""Where sockets live, how they are named, and the name of a store's shared objects.

A client and a broker of the same host find each other by this page alone: the folders are searched in one
order, the file names follow from the broker's name.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shmq.base.errors import ConfigFault

SOCKET_PATH_BYTES_MAX = 107
"""sun_path holds 108 bytes with its closing NUL."""

ENVIRONMENT_KEY = "SHMQ_RUNTIME_DIR"
SYSTEM_DIR = Path("/run/shmq")
NAMESRV_SOCKET = "namesrv.sock"


def runtime_dirs() -> list[Path]:
    """Return the existing folders that may hold sockets, in search order, first match wins.

    `$SHMQ_RUNTIME_DIR`, /run/shmq, `$XDG_RUNTIME_DIR/shmq`, /tmp/shmq-<uid>. A folder in /tmp counts only
    when it is ours and closed to others: anybody may make that name there.
    """
    return [path for path in _candidates() if path.is_dir() and (path != _private_dir() or _is_private(path))]


def _candidates() -> Iterator[Path]:
    if named := os.environ.get(ENVIRONMENT_KEY):
        yield Path(named)
    yield SYSTEM_DIR
    if user := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(user) / "shmq"
    yield _private_dir()


def _private_dir() -> Path:
    return Path(tempfile.gettempdir()) / f"shmq-{os.getuid()}"


def _is_private(path: Path) -> bool:
    """Tell whether `path` is a real folder of this user that nobody else can enter."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def make_runtime_dir(setting: str | None = None) -> Path:
    """Return the folder for a broker's or name server's sockets, making it when needed.

    `setting` or `$SHMQ_RUNTIME_DIR` decide alone when given. Otherwise the first usable of /run/shmq (only
    when it is there: systemd or root makes it), the user's runtime folder, /tmp/shmq-<uid>. ConfigFault when
    the chosen one cannot be made or written.
    """
    if chosen := setting or os.environ.get(ENVIRONMENT_KEY):
        path = Path(chosen).absolute()
        try:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigFault(f"the runtime folder {path} cannot be made: {error.strerror}") from None
        if not os.access(path, os.W_OK | os.X_OK):
            raise ConfigFault(f"the runtime folder {path} is not writable for uid {os.getuid()}")
        return path
    if SYSTEM_DIR.is_dir() and os.access(SYSTEM_DIR, os.W_OK | os.X_OK):
        return SYSTEM_DIR
    user = os.environ.get("XDG_RUNTIME_DIR")
    if user and os.access(user, os.W_OK | os.X_OK):
        path = Path(user) / "shmq"
        path.mkdir(mode=0o700, exist_ok=True)
        return path
    path = _private_dir()
    path.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(path):
        raise ConfigFault(f"{path} belongs to somebody else or is open to others: set {ENVIRONMENT_KEY}")
    return path


def socket_path(directory: Path, filename: str) -> Path:
    """Join and check the length: a longer path than the kernel takes is a ConfigFault that says so."""
    path = directory / filename
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_BYTES_MAX:
        raise ConfigFault(
            f"the socket path {path} has {size} bytes, at most {SOCKET_PATH_BYTES_MAX} are possible: "
            f"choose a shorter runtime folder ({ENVIRONMENT_KEY}) or broker name"
        )
    return path


def broker_socket(directory: Path, broker_name: str) -> Path:
    """Return the broker's front: clients connect here."""
    return socket_path(directory, f"{broker_name}.sock")


def grant_socket(directory: Path, broker_name: str) -> Path:
    """Return the socket where same-host readers get read-only descriptors."""
    return socket_path(directory, f"{broker_name}.grant.sock")


def internal_socket(directory: Path, broker_name: str) -> Path:
    """Return the socket between workers and coordinator, mode 0600."""
    return socket_path(directory, f"{broker_name}.internal.sock")


def namesrv_socket(directory: Path) -> Path:
    """Return the name server's Unix socket."""
    return socket_path(directory, NAMESRV_SOCKET)


def find_socket(filename: str) -> Path | None:
    """Return the first socket of that name in `runtime_dirs()`, or None. It may be a dead one."""
    for directory in runtime_dirs():
        path = directory / filename
        if path.is_socket():
            return path
    return None


def page_name(store_root: Path) -> str:
    """Return the name of the store's shared memory, from the folder's device and inode: paths may be aliases.

    The semaphore's name is derived from it and the page id (`shm/control_page.py`). FileNotFoundError without
    folder.
    """
    found = store_root.stat()
    digest = hashlib.blake2s(f"{found.st_dev}:{found.st_ino}".encode(), digest_size=8).hexdigest()
    return f"/shmq-{digest}"
