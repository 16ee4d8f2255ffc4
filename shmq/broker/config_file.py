"""One config file of the store (`<store>/config/*.json`), read and written the way RocketMQ does.

Read: the file, or `<file>.bak` when it is missing, empty or unreadable; both missing is an empty table.
Written whole and durably, the old content kept as `.bak`. One writer: the coordinator (recovery before it
exists). Blocks on the disk, so only rare changes and periodic exports go through here.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shmq.base import log
from shmq.base.errors import ServiceNotAvailable, StoreDamaged
from shmq.base.file_sums import announce
from shmq.base.files import write_durably
from shmq.broker.pretty_json import pretty_json
from shmq.protocol import fastjson

_logger = log.get(__name__)


class ConfigFile:
    """A JSON object in a file with a backup."""

    def __init__(self, path: Path, sums: Path | None = None) -> None:
        """Name the file; its folder is made by the first `save`. `sums`: the store's folder of checksums."""
        self.path = path
        self._sums = sums
        self._saved: bytes | None = None

    def load(self) -> dict[str, Any]:
        """The object in the file or in its backup; {} when neither exists or both are empty.

        Raises StoreDamaged when there is content but none of it can be read: starting with an empty table
        would forget every topic.
        """
        damaged = []
        for path in (self.path, self.path.with_name(self.path.name + ".bak")):
            with contextlib.suppress(FileNotFoundError):
                raw = path.read_bytes()
                if not raw.strip(b"\0\t\r\n "):
                    continue
                try:
                    found = fastjson.loads(raw)
                except ValueError as error:
                    damaged.append(f"{path.name}: {error}")
                    continue
                if isinstance(found, dict):
                    if damaged:
                        log.event(_logger, logging.WARNING, "config_from_backup", file=path, reason=damaged)
                    return found
                damaged.append(f"{path.name}: not an object")
        if damaged:
            reasons = "; ".join(damaged)
            raise StoreDamaged(f"{self.path.parent} holds no readable {self.path.name} ({reasons})")
        return {}

    def save(self, value: Mapping[str, Any]) -> None:
        """Replace the content durably; nothing is written when the text is the same as at the last `save`.

        ServiceNotAvailable when the disk refuses: the old content is still there.
        """
        raw = pretty_json(value)
        if raw == self._saved:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._sums is not None:
                announce(self._sums, self.path, raw)
            write_durably(self.path, raw)
        except OSError as error:
            self._saved = None
            raise ServiceNotAvailable(
                f"{self.path} cannot be written: {error.strerror}; nothing was changed"
            ) from error
        self._saved = raw
