"""Sums of small files that are written whole: a change that nobody wrote is noticed.

    <store>/checksums/<file name>.sum     one line of 64 bytes, written in place but for the first time:

    crc32 length  crc32 length  crc32     of the content now, of the one before it, of the first 38 characters
    8 hex 9 dec   8 hex 9 dec   8 hex     (lengths and sums with a blank behind each)

The sum is durable before the content is: a crash between the two leaves the old content, whose sum is there
as well. So a content that has neither sum was changed by somebody else: by hand, by another engine, or by
the disk. It is reported and never refused. A file without a sum (older, or another engine's) is not judged.

A file that grows and is then finished is summed once, as far as it is used (`note_prefix`).

One writer per file, like the file itself; any process may look. Blocks on the disk.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path

from shmq.base.checksum import crc32
from shmq.base.files import write_durably

LINE_BYTES = 64
PIECE_BYTES = 1 << 20

Sum = tuple[int, int]
"""CRC-32 and length of a content."""

ABSENT: Sum = (0, -1)
"""The sum of a file that is not there."""


class FileState(enum.Enum):
    """What a file's sum says of its content."""

    UNKNOWN = "there is no sum of it"
    RIGHT = "as it was written"
    CHANGED = "changed by hand or damaged"
    MISSING = "it was there and is not any more"
    SUM_DAMAGED = "its sum is damaged"


def sum_path(folder: Path, file: Path) -> Path:
    """Where the sum of `file` is kept; `folder` is the store's folder of checksums."""
    return folder / (file.name + ".sum")


def sum_of(data: bytes) -> Sum:
    """The sum of a content."""
    return crc32(data), len(data)


def announce(folder: Path, file: Path, data: bytes) -> None:
    """Note durably that `file` is about to be given the content `data`. OSError when the disk refuses."""
    path = sum_path(folder, file)
    before = _load(path)
    now, old = sum_of(data), before[0] if before else ABSENT
    if before is None or now != before[0]:
        _write(path, now, old)


def note_prefix(folder: Path, file: Path, length: int) -> None:
    """Note durably what the first `length` bytes of a finished file are. OSError when the disk refuses."""
    found = _sum_of_prefix(file, length)
    _write(sum_path(folder, file), found, found)


def last_sum(folder: Path, file: Path) -> Sum | None:
    """The sum of what was written last; None when none is known."""
    found = _load(sum_path(folder, file))
    return None if found is None else found[0]


def forget(folder: Path, file: Path) -> None:
    """Remove the sum of a file that is about to change."""
    sum_path(folder, file).unlink(missing_ok=True)


def _write(path: Path, now: Sum, old: Sum) -> None:
    """Write the line of a sum, durably."""
    text = f"{now[0]:08x} {now[1]:9d} {old[0]:08x} {old[1]:9d} "
    line = f"{text}{crc32(text.encode()):08x}".encode().ljust(LINE_BYTES - 1) + b"\n"
    if not path.exists():  # a power cut must not leave the name without its line
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, line, backup=False)
        return
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, line, 0)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _sum_of_prefix(file: Path, length: int) -> Sum:
    """The sum of a file's first bytes, read a piece at a time."""
    crc = read = 0
    with open(file, "rb") as source:
        while read < length and (piece := source.read(min(PIECE_BYTES, length - read))):
            crc = crc32(piece, crc)
            read += len(piece)
    return crc, read


def judge_prefix(folder: Path, file: Path) -> FileState:
    """Compare those bytes of a file that `note_prefix` has summed."""
    path = sum_path(folder, file)
    if not path.exists() or not file.exists():
        return FileState.UNKNOWN
    sums = _load(path)
    if sums is None:
        return FileState.SUM_DAMAGED
    return FileState.RIGHT if _sum_of_prefix(file, sums[0][1]) == sums[0] else FileState.CHANGED


def judge(folder: Path, file: Path, length: int | None = None) -> FileState:
    """Compare a file with its sum; `length`: only so many bytes of it count.

    The writer may be at work: what differs is looked at again.
    """
    path = sum_path(folder, file)
    state = FileState.UNKNOWN
    for _ in range(3):
        if not path.exists():
            return FileState.UNKNOWN
        sums = _load(path)
        if sums is None:
            state = FileState.SUM_DAMAGED
            continue
        try:
            found = sum_of(file.read_bytes()[:length])
        except FileNotFoundError:
            found = ABSENT
        if found in sums:
            return FileState.RIGHT
        state = FileState.MISSING if found is ABSENT else FileState.CHANGED
    return state


def _load(path: Path) -> tuple[Sum, Sum] | None:
    """The sums of now and before; None when there is no such line, or not a whole one."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    text, own = raw[:_TEXT_BYTES], raw[_TEXT_BYTES : _TEXT_BYTES + 8]
    if raw != (text + f"{crc32(text):08x}".encode()).ljust(LINE_BYTES - 1) + b"\n" or not own:
        return None
    words = text.split()
    return (int(words[0], 16), int(words[1])), (int(words[2], 16), int(words[3]))


_TEXT_BYTES = 38
assert len(f"{0:08x} {0:9d} {0:08x} {0:9d} ") == _TEXT_BYTES
