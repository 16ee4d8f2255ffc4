"""Records, while a broker runs, what of its store is on the disk for certain. Off unless asked for.

A power cut leaves of every page either what the last sync made durable or anything written there since, and
of every folder the names that were synced or newer ones. The page cache does not tell the two apart; this
does: at each sync, what the file held when the sync began becomes its durable image. From images and files
together `power_cut.py` builds stores as a cut could have left them.

    SHMQ_RECORD=<folder>   read by the broker's processes when they start; the folder is made by `begin`

    <folder>/store           symbolic link: the store that is recorded
    <folder>/files/<inode>   durable content of a file; none: nothing of it is durable
    <folder>/folders/<inode> durable names of a folder: {"path", "names": {name: [inode, is folder]}}
    <folder>/live/<inode>    hard link to the file itself: its number is not used again, and its content is
                             there when the name was removed but the removal is not durable
    <folder>/locks/<inode>   held during each sync of it; a sync of the file system holds `all` alone. Else a
                             sync could keep last what it saw first

Runs in whichever process syncs. Images only ever take what a finished sync covered, page by page, so a
process that is stopped or dies in the middle leaves a folder that is as true as before. The folder must be on
the store's file system. Costs: a copy of what changed, per sync.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shmq.base import syncs

ENVIRONMENT = "SHMQ_RECORD"
PAGE_BYTES = 4096
PIECE_BYTES = 1 << 20

Names = dict[str, tuple[int, bool]]
"""A folder's entries: name -> (inode, whether it is a folder)."""


@dataclass(slots=True)
class _SeenFile:
    """What a file held when its sync began, as far as that is not durable already."""

    inode: int
    size: int
    pieces: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class _SeenFolder:
    """The names in a folder when its sync began."""

    inode: int
    path: str
    names: Names


class WriteRecorder:
    """The record of one store, as one process writes it."""

    def __init__(self, folder: Path) -> None:
        """Go on with the record that `begin` made in `folder`."""
        self.folder = folder
        self.store = (folder / "store").resolve()

    # ---- the observer of base/syncs.py

    @contextlib.contextmanager
    def watch(self, fd: int, changed: tuple[int, int] | None) -> Iterator[None]:
        """Surround one sync."""
        path = os.readlink(f"/proc/self/fd/{fd}")
        if not Path(path).is_relative_to(self.store):
            yield
            return
        inode = str(os.fstat(fd).st_ino)
        with self._locked("all", fcntl.LOCK_SH), self._locked(inode, fcntl.LOCK_EX):
            seen = self._look(fd, path, changed)
            yield
            if self._is_held(seen):
                self._keep(seen)

    @contextlib.contextmanager
    def watch_all(self, fd: int) -> Iterator[None]:
        """Surround a sync of the whole file system."""
        with self._locked("all", fcntl.LOCK_EX):
            seen = list(self._look_everywhere())
            yield
            for one in seen:
                if self._is_held(one):
                    self._keep(one)

    @contextlib.contextmanager
    def _locked(self, name: str, kind: int) -> Iterator[None]:
        """Hold a lock of this record, against other threads and processes."""
        fd = os.open(self.folder / "locks" / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, kind)
            yield
        finally:
            os.close(fd)

    def _is_held(self, seen: _SeenFile | _SeenFolder) -> bool:
        """False for a file that had lost its last name: an image of it would be taken for the next file's
        that gets its number.
        """
        return isinstance(seen, _SeenFolder) or (self.folder / "live" / str(seen.inode)).exists()

    def _look_everywhere(self) -> Iterator[_SeenFile | _SeenFolder]:
        for root, _, names in os.walk(self.store):
            for path in (root, *(os.path.join(root, name) for name in names)):
                with contextlib.suppress(FileNotFoundError):
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                    try:
                        yield self._look(fd, path, None)
                    finally:
                        os.close(fd)

    # ---- before a sync

    def _look(self, fd: int, path: str, changed: tuple[int, int] | None) -> _SeenFile | _SeenFolder:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            names = folder_names(Path(path))
            for name, (inode, is_folder) in names.items():
                if not is_folder:
                    self._hold(os.path.join(path, name), inode)
            return _SeenFolder(found.st_ino, os.path.relpath(path, self.store), names)
        self._hold(path, found.st_ino)
        seen = _SeenFile(found.st_ino, found.st_size)
        # opened once more: the descriptor at hand may be for writing only
        source = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            image = self._open_image(found.st_ino)
            if image is None or changed is None:
                seen.pieces = _differences(source, image)
            else:
                seen.pieces = _pages(source, *changed)
            if image is not None:
                os.close(image)
        finally:
            os.close(source)
        return seen

    def _hold(self, path: str, inode: int) -> None:
        """Keep the file's number from being used again. Nothing to keep of a file that just vanished."""
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            os.link(path, self.folder / "live" / str(inode))

    def _open_image(self, inode: int) -> int | None:
        try:
            return os.open(self.folder / "files" / str(inode), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    # ---- after it

    def _keep(self, seen: _SeenFile | _SeenFolder) -> None:
        if isinstance(seen, _SeenFolder):
            path = self.folder / "folders" / str(seen.inode)
            temp = path.with_name(f"{seen.inode}.tmp")
            temp.write_text(json.dumps({"path": seen.path, "names": seen.names}))
            temp.replace(path)
            return
        path = self.folder / "files" / str(seen.inode)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, seen.size)
            for position, piece in seen.pieces:
                os.pwrite(fd, piece, position)
        finally:
            os.close(fd)


def folder_names(path: Path) -> Names:
    """The entries of a folder as they are now."""
    with os.scandir(path) as entries:
        return {entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in entries}


def _pages(fd: int, first: int, end: int) -> list[tuple[int, bytes]]:
    """The whole pages around the bytes `[first, end)`."""
    first -= first % PAGE_BYTES
    end += -end % PAGE_BYTES
    return [
        (position, os.pread(fd, min(PIECE_BYTES, end - position), position))
        for position in range(first, end, PIECE_BYTES)
    ]


def _differences(fd: int, image: int | None) -> list[tuple[int, bytes]]:
    """The pages in which a file differs from its image, in pieces."""
    pieces: list[tuple[int, bytes]] = []
    for position, length in written_extents(fd, *(() if image is None else (image,))):
        now = os.pread(fd, length, position)
        before = b"" if image is None else os.pread(image, length, position)
        if now != before:
            pieces += [
                (position + at, now[at : at + PAGE_BYTES])
                for at in range(0, len(now), PAGE_BYTES)
                if now[at : at + PAGE_BYTES] != before[at : at + PAGE_BYTES]
            ]
    return pieces


def written_extents(*fds: int) -> Iterator[tuple[int, int]]:
    """(position, length) of the pieces, whole pages, that hold data in any of these files."""
    pieces: set[int] = set()
    for fd in fds:
        position = 0
        while True:
            try:
                position = os.lseek(fd, position, os.SEEK_DATA)
                end = os.lseek(fd, position, os.SEEK_HOLE)
            except OSError:  # ENXIO: nothing but a hole from here on
                break
            pieces.update(range(position // PIECE_BYTES, -(-end // PIECE_BYTES)))
            position = end
    for piece in sorted(pieces):
        yield piece * PIECE_BYTES, PIECE_BYTES


def begin(folder: Path, store: Path) -> None:
    """Begin a record in the new folder `folder`: what is in `store` now counts as durable."""
    for name in ("files", "folders", "live", "locks"):
        (folder / name).mkdir(parents=True)
    (folder / "store").symlink_to(store.resolve(), target_is_directory=True)
    recorder = WriteRecorder(folder)
    for seen in recorder._look_everywhere():
        recorder._keep(seen)


def install_if_asked() -> None:
    """Record this process's syncs, and those of processes forked from it, when the environment says so."""
    folder = os.environ.get(ENVIRONMENT)
    if folder:
        syncs.intercept(WriteRecorder(Path(folder)))
