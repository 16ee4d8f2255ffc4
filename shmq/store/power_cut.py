"""Builds a store as a power cut could have left it, from a record (`write_recorder.py`) and the files as they
are.

    names    each name that was not synced is there or not, or still means the file it meant before
    lengths  a file has its durable length or its present one
    pages    each page of 4 KiB that changed since its last sync is the durable one, the present one, or torn:
             stores through a map go to the disk as far as they had come at some moment (a prefix of what
             changed), other writes by sectors of 512 bytes

Everything is chosen by a seeded generator; how much survives differs from file to file, so that a log may be
far ahead of its queues and the other way round. The recorded processes must stand still meanwhile: stopped,
or dead. Used by the power tests and by `shmq-admin prove`.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path

from shmq.store.write_recorder import PAGE_BYTES, Names, folder_names, written_extents

SECTOR_BYTES = 512
MAPPED_FOLDERS = frozenset({"commitlog", "consumequeue", "index"})
"""Where processes store through maps; everything else is written by `write`."""

_ZERO_PAGE = bytes(PAGE_BYTES)


@dataclass(slots=True)
class CutNotes:
    """What a cut took."""

    names_lost: int = 0
    pages_changed: int = 0
    pages_old: int = 0
    pages_torn: int = 0


def cut_power(record: Path, target: Path, seed: int | str) -> CutNotes:
    """Make the new folder `target` the store after a power cut at this moment; the same seed cuts the
    same way.
    """
    store = (record / "store").resolve()
    cut = _Cut(record, store, random.Random(seed))
    cut.folder(Path(), store.stat().st_ino, there=True, target=target)
    return cut.notes


class _Cut:
    """One cut of one store."""

    def __init__(self, record: Path, store: Path, rng: random.Random) -> None:
        self._record = record
        self._store = store
        self._rng = rng
        self.notes = CutNotes()
        self._newer = rng.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        """How likely it is that something that was not synced is there all the same."""

    # ---- names

    def folder(self, path: Path, inode: int, *, there: bool, target: Path) -> None:
        """Make a folder; `there`: it still exists under its path."""
        target.mkdir()
        durable = self._durable_names(path, inode)
        now = folder_names(self._store / path) if there else {}
        for name in sorted(durable.keys() | now.keys()):
            old, new = durable.get(name), now.get(name)
            chosen = new if old == new or self._rng.random() < self._newer else old
            if chosen is None:
                self.notes.names_lost += 1
                continue
            inode, is_folder = chosen
            if is_folder:
                self.folder(path / name, inode, there=chosen == new, target=target / name)
            else:
                source = self._store / path / name if chosen == new else self._record / "live" / str(inode)
                self._file(inode, source, target / name, path.parts[:1])

    def _durable_names(self, path: Path, inode: int) -> Names:
        """What was synced of a folder; a folder's number may have been another folder's before."""
        try:
            found = json.loads((self._record / "folders" / str(inode)).read_bytes())
        except FileNotFoundError:
            return {}
        if found["path"] != str(path):
            return {}
        return {name: (number, is_folder) for name, (number, is_folder) in found["names"].items()}

    # ---- contents

    def _file(self, inode: int, source: Path, target: Path, top: tuple[str, ...]) -> None:
        mapped = bool(top) and top[0] in MAPPED_FOLDERS
        now = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            image = os.open(self._record / "files" / str(inode), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            image = os.memfd_create("nothing durable")
        out = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            sizes = (os.fstat(image).st_size, os.fstat(now).st_size)
            size = sizes[1] if self._rng.random() < self._newer else sizes[0]
            os.ftruncate(out, size)
            newer = self._rng.choice((0.0, self._newer, self._newer, 1.0))
            for position, length in written_extents(now, image):
                old, new = (os.pread(fd, length, position) for fd in (image, now))
                piece = new if old == new else self._mixed(old, new, newer, mapped)
                self._write(out, piece[: max(0, size - position)], position)
        finally:
            for fd in (now, image, out):
                os.close(fd)

    @staticmethod
    def _write(fd: int, piece: bytes, position: int) -> None:
        """Write a piece; pages of zeros stay holes."""
        begin = 0
        for at in range(0, len(piece) + PAGE_BYTES, PAGE_BYTES):
            page = piece[at : at + PAGE_BYTES]
            if page != _ZERO_PAGE[: len(page)]:
                continue
            if begin < at:
                os.pwrite(fd, piece[begin:at], position + begin)
            begin = at + PAGE_BYTES

    def _mixed(self, old: bytes, new: bytes, newer: float, mapped: bool) -> bytes:
        """Choose for every page that differs."""
        length = max(len(old), len(new))
        old, new = old.ljust(length, b"\0"), new.ljust(length, b"\0")
        pages = []
        for at in range(0, length, PAGE_BYTES):
            before, after = old[at : at + PAGE_BYTES], new[at : at + PAGE_BYTES]
            if before != after:
                after = self._page(before, after, newer, mapped)
            pages.append(after)
        return b"".join(pages)

    def _page(self, old: bytes, new: bytes, newer: float, mapped: bool) -> bytes:
        notes, rng = self.notes, self._rng
        notes.pages_changed += 1
        if rng.random() < 0.25:
            notes.pages_torn += 1
            return _prefix(old, new, rng) if mapped and rng.random() < 0.5 else _sectors(old, new, rng)
        if rng.random() < newer:
            return new
        notes.pages_old += 1
        return old


def _prefix(old: bytes, new: bytes, rng: random.Random) -> bytes:
    """The page when its stores had come to some byte of what changed."""
    changed = [at for at in range(len(old)) if old[at] != new[at]]
    end = rng.randint(changed[0], changed[-1] + 1)
    return new[:end] + old[end:]


def _sectors(old: bytes, new: bytes, rng: random.Random) -> bytes:
    """The page when each of its sectors went to the disk for itself."""
    return b"".join(rng.choice((old, new))[at : at + SECTOR_BYTES] for at in range(0, len(old), SECTOR_BYTES))
