"""Which files are sent, and how a file becomes messages: one per line, with its line end."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

PIECE_BYTES_MAX = 1 << 20
"""A longer line goes out in pieces: a broker takes 4 MiB a message by default."""


class Piece(NamedTuple):
    """One message's worth of a file: its 1-based line number and the bytes."""

    line: int
    data: bytes


def pieces(path: Path) -> Iterator[Piece]:
    """Cut a file at its line ends; an empty file has no pieces."""
    with path.open("rb") as source:
        for line, data in enumerate(source, 1):
            for start in range(0, len(data), PIECE_BYTES_MAX):
                yield Piece(line, data[start : start + PIECE_BYTES_MAX])


def key_of(path: Path, line: int) -> str:
    """The message key: the path percent-encoded, as keys are split at blanks, and the line number."""
    return f"{quote(os.fsencode(path))}:{line}"


def place_of(key: str) -> tuple[Path, int]:
    """The path and line number of a key."""
    path, _, line = key.rpartition(":")
    return Path(os.fsdecode(unquote_to_bytes(path))), int(line)


def tag_of(path: Path) -> str:
    """The message tag: the file's extension."""
    return quote(os.fsencode(path.suffix.removeprefix("."))) or "none"


def installed_sources() -> Iterator[Path]:
    """The .py files of the packages installed in this environment, in a stable order."""
    for folder, folders, names in os.walk(sysconfig.get_paths()["purelib"]):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                yield Path(folder, name)


def choose(paths: Iterable[Path], limit: int | None) -> list[tuple[Path, int]]:
    """Whole files with their number of messages, as long as they fit below `limit` messages together."""
    chosen: list[tuple[Path, int]] = []
    left = limit
    for path in paths:
        count = sum(1 for _ in pieces(path))
        if left is not None:
            if count > left:
                continue
            left -= count
        chosen.append((path, count))
        if left == 0:
            break
    return chosen
