"""Log set-up, and the one form of a line: time, level, process, logger, event name, key=value pairs.

    2026-11-20 14:03:11.482 INFO  worker-0 shmq.worker: connection_closed reason="bad frame" peer=unix:4711

One event is one line: values with blanks, quotes or control characters are quoted. The supervisor and every
child call `setup` once, before anything else logs. Several processes may append to the same file: each line
is one write to a descriptor opened with O_APPEND, and whoever finds the file over its size rotates it under a
lock file.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from shmq.base.files import SharedFileLock

LOG_BYTES_MAX = 64 << 20
LOG_FILES_KEPT = 10

get = logging.getLogger
"""Return the logger of a dotted name; modules use `log.get(__name__)`."""


class _LineFormatter(logging.Formatter):
    """Format a record as one line; a traceback follows on the same line with its line ends escaped."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        second = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        head = f"{second}.{int(record.msecs):03d} {record.levelname:<5} {self._process}"
        text = f"{head} {record.name}: {record.getMessage()}"
        if record.exc_info:
            text += " traceback=" + json.dumps(self.formatException(record.exc_info), ensure_ascii=False)
        return text.replace("\n", "\\n")


class _SharedFileHandler(logging.Handler):
    """Append lines to a file that several processes share, and rotate it by size: name, name.1, name.2 ..."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._inode = os.fstat(self._fd).st_ino

    def _reopen(self) -> None:
        os.close(self._fd)
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line. A failing disk must not end the broker: logging's own error hook gets it."""
        try:
            os.write(self._fd, (self.format(record) + "\n").encode("utf-8", "backslashreplace"))
            if os.fstat(self._fd).st_size > LOG_BYTES_MAX or self._moved_away():
                self._rotate()
        except OSError:
            self.handleError(record)

    def _moved_away(self) -> bool:
        """Tell whether another process has rotated the file that this one holds open."""
        try:
            return os.stat(self._path).st_ino != self._inode
        except FileNotFoundError:
            return True

    def _rotate(self) -> None:
        """Shift the kept files by one, unless another process does or did; then open the new file."""
        lock = SharedFileLock(self._path.with_name(self._path.name + ".lock"))
        try:
            if lock.exclusive(nonblocking=True) and not self._moved_away():
                for n in range(LOG_FILES_KEPT - 1, 0, -1):
                    older = self._path.with_name(f"{self._path.name}.{n}")
                    if older.exists():
                        older.replace(self._path.with_name(f"{self._path.name}.{n + 1}"))
                self._path.replace(self._path.with_name(self._path.name + ".1"))
        finally:
            lock.release()
        self._reopen()

    def close(self) -> None:
        """Close the descriptor; later records are lost."""
        super().close()
        os.close(self._fd)


def under_systemd() -> bool:
    """Tell whether stderr goes to the journal. The variable alone is inherited by shells and tests too."""
    found = os.fstat(2)
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def log_folder(setting: str) -> Path | None:
    """Return where a server's log files go: `logDir`, else ~/logs/shmqlogs; None (stderr) under systemd
    without the setting."""
    if setting:
        return Path(setting).expanduser().absolute()
    return None if under_systemd() else Path.home() / "logs" / "shmqlogs"


def setup(
    process: str, log_dir: Path | None, level: int | str = logging.INFO, *, filename: str = "broker.log"
) -> None:
    """Send every logger of this process to `log_dir/filename`, or to stderr when that is None or systemd
    reads stderr.

    `process` is the name printed in each line, such as `supervisor` or `worker-0`. Calling it again replaces
    the set-up.
    """
    handler: logging.Handler
    if log_dir is None or under_systemd():
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = _SharedFileHandler(log_dir / filename)
    handler.setFormatter(_LineFormatter(process))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)


def event(logger: logging.Logger, level: int, name: str, /, *, exc_info: bool = False, **values: Any) -> None:
    """Log the event `name` with its values as one line. Nothing is formatted when the level is off."""
    if logger.isEnabledFor(level):
        pairs = "".join(f" {key}={_printed(value)}" for key, value in values.items())
        logger.log(level, "%s%s", name, pairs, exc_info=exc_info)


def _printed(value: Any) -> str:
    """Print a value so that a blank always separates two pairs."""
    text = str(value)
    if text and text.isprintable() and not any(c in text for c in ' "='):
        return text
    return json.dumps(text, ensure_ascii=False)
