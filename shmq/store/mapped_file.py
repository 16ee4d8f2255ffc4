"""One file of fixed size, mapped whole.

A mapped file is never shrunk (a store into a page behind the end is SIGBUS for every process that has it
mapped); it is only unlinked, and its blocks live as long as the last map. So a view handed out stays valid
without any count: it keeps the map, the map keeps the inode. Nothing here is ever closed by hand.
"""

from __future__ import annotations

import mmap
import os
from io import FileIO
from pathlib import Path

from shmq.base.errors import StoreDamaged
from shmq.base.map_touch import touch


class MappedFile:
    """A whole file in memory, shared with every other process that maps it.

    `start` is the byte of the logical stream the file begins with, `map` the mapping itself (slices copy),
    `view` a read-only memoryview of it (slices do not), `file` the open file where it is kept. Any process;
    no lock: who may store where is decided above.
    """

    __slots__ = ("file", "map", "size", "start", "view")

    def __init__(
        self,
        path: Path,
        start: int,
        size: int,
        *,
        writable: bool,
        read_ahead: bool = True,
        keeps_file: bool = False,
    ) -> None:
        """Map `path`. FileNotFoundError when it is gone, StoreDamaged when it does not have `size` bytes.

        Without `read_ahead` a fault brings in one page and not the megabytes around it, which in a sparse
        file are zeros to be made one by one: 3 ms for the first store into a ConsumeQueue file, seen with 8
        MiB of it. `keeps_file` keeps the file open, for whoever writes to it without the map.
        """
        self.file: FileIO | None = None
        file = FileIO(
            os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC), "r+" if writable else "r"
        )
        try:
            fd = file.fileno()
            found = os.fstat(fd).st_size
            if found != size:
                raise StoreDamaged(
                    f"{path} has {found} bytes and must have {size}: mappedFileSize settings differ from "
                    "those the store was made with, or the file was cut"
                )
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self.map = mmap.mmap(fd, size, access=access)
            if not read_ahead:
                self.map.madvise(mmap.MADV_RANDOM)
            if keeps_file:
                self.file = file
        finally:
            if self.file is None:
                file.close()
        self.start = start
        self.size = size
        self.view = memoryview(self.map).toreadonly()

    def __del__(self) -> None:
        """Close the file with its last user."""
        if self.file is not None:
            self.file.close()

    def touch(self, position: int, size: int) -> bool:
        """Bring these bytes into memory; False when the disk cannot give them, or the file was cut."""
        return touch(self.map, position, size)

    def changed(self, position: int, size: int) -> None:
        """These bytes were written to the file by another way: a map sees that by itself, a copy does not."""
