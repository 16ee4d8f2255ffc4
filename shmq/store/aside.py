"""Bytes that are no good any more are kept in `<store>/quarantine/` before anything takes their place.

    00000000000000012345-<n>    bytes of the log that began at that physical offset
    checkpoint-<n>              a small file that nobody had written

Nothing reads them but people; nothing removes them. No numpy here.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from shmq.base.files import fsync_folder
from shmq.store.names import StoreLayout


def keep_aside(layout: StoreLayout, name: str, data: bytes) -> Path:
    """Write `data` to a new file of the quarantine, durably; the same bytes are not kept twice."""
    folder = layout.quarantine
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        fsync_folder(layout.root)
    for n in itertools.count(1):
        path = folder / f"{name}-{n}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            if path.read_bytes() == data:
                return path
            continue
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fsync_folder(folder)
        return path
    raise AssertionError
