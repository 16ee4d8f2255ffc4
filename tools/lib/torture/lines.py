"""Files of JSON lines that outlive whoever writes them.

Each line is in the kernel's hands before the next thing happens: a kill -9 of the writer loses at most a half
line at the end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Lines:
    """Appends to one file."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def put(self, *row: Any) -> None:
        """Write one line, whole."""
        os.write(self._fd, json.dumps(row).encode() + b"\n")


def rows(path: Path) -> Iterator[list[Any]]:
    """The lines of a file; a half one at a killed writer's end is skipped."""
    if path.exists():
        for line in path.read_bytes().split(b"\n"):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, list):
                yield row
