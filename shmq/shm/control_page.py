"""ControlPage: the one shared-memory page that all processes of a broker map.

Made by recovery (or by the supervisor for an empty store), attached by every child, mapped read-only by
direct readers and tools. The object holds no state of its own: everything is in the words. The page outlives
its processes, so that a start after a crash finds what they left.
"""

from __future__ import annotations

import errno
import mmap
import os
from enum import IntEnum
from pathlib import Path

import posix_ipc

from shmq.base.clock import now_ms
from shmq.base.errors import StoreDamaged, Unavailable
from shmq.shm import page_layout as at
from shmq.shm.word import map_words

_BLOCK_BYTES = 512
"""The unit of st_blocks."""


class PageState(IntEnum):
    """What the page may be used for (word STATE)."""

    RECOVERING = 0
    """Being filled. A page that stayed so is never continued."""
    OK = 1
    FLUSH_FAILED = 2
    """An fdatasync failed: acknowledging stops, a fast restart is forbidden."""
    READ_ONLY = 3
    """The store could not be made whole: reads only."""
    RETIRED = 4
    """Another page has taken over: whoever still maps this one must open again."""


class LayoutMismatch(Unavailable):
    """The page has another layout version than this program: use the socket instead."""


class ControlPage:
    """The mapped page. `words` are its 8-byte words, `raw` the same memory as single bytes."""

    def __init__(self, mapped: mmap.mmap) -> None:
        """Wrap a mapped, valid page; use `create`, `attach` or `from_fd`."""
        self._map = mapped
        self.raw = memoryview(mapped)
        self.words = map_words(mapped)
        self.page_id = self.words[at.PAGE_ID]
        self.queue_slots = self.words[at.QUEUE_SLOT_COUNT]
        self.offset_slots = self.words[at.OFFSET_SLOT_COUNT]
        self.offset_slots_start = at.offset_slots_start(self.queue_slots)
        self.directory_start = at.directory_start(self.queue_slots, self.offset_slots)
        self.directory_bytes = self.words[at.DIRECTORY_BYTES]
        self.producer_slots = self.words[at.PRODUCER_SLOT_COUNT]
        self.producers_start = at.producers_start(self.queue_slots, self.offset_slots, self.directory_bytes)

    @classmethod
    def create(
        cls,
        name: str,
        *,
        queue_slots: int = 65536,
        offset_slots: int = 65536,
        directory_bytes: int = 2 << 20,
        producer_slots: int = 0,
        store_identity: int,
    ) -> ControlPage:
        """Make the shared memory object `name` and its zeroed page in state RECOVERING; readers are bounded
        by 0.

        Unavailable when the name exists (retire and unlink the old page first) or /dev/shm has no room: all
        memory is allocated here, so that no later store can die of SIGBUS.
        """
        size = at.page_bytes(queue_slots, offset_slots, directory_bytes, producer_slots)
        try:
            shared = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600, size=size)
        except posix_ipc.ExistentialError:
            raise Unavailable(f"the control page {name} exists already: another broker made it") from None
        try:
            os.posix_fallocate(shared.fd, 0, size)
            mapped = mmap.mmap(shared.fd, size)
        except OSError as error:
            shared.unlink()
            if error.errno != errno.ENOSPC:
                raise
            raise Unavailable(
                f"/dev/shm has no room for the control page of {size >> 10} KiB ({_shm_room()}): remove what "
                "fills it, or give the container more (docker run --shm-size=256m)"
            ) from None
        finally:
            shared.close_fd()
        words = map_words(mapped)
        words[at.LAYOUT_VERSION] = at.LAYOUT_VERSION_NOW
        words[at.PAGE_ID] = int.from_bytes(os.urandom(7)) + 1
        words[at.KERNEL_BOOT_ID] = kernel_boot_id()
        words[at.STORE_IDENTITY] = store_identity
        words[at.PAGE_BYTES] = size
        words[at.QUEUE_SLOT_COUNT] = queue_slots
        words[at.OFFSET_SLOT_COUNT] = offset_slots
        words[at.DIRECTORY_BYTES] = directory_bytes
        words[at.PRODUCER_SLOT_COUNT] = producer_slots
        words[at.CREATED_MS] = now_ms()
        words[at.STATE] = PageState.RECOVERING
        words[at.VISIBLE_WORD] = at.WRITE_POSITION
        words[at.MAGIC] = at.MAGIC_NUMBER
        words.release()
        return cls(mapped)

    @classmethod
    def attach(cls, name: str, readonly: bool = False) -> ControlPage:
        """Map the page `name`. Unavailable: there is none; LayoutMismatch; StoreDamaged: not a page."""
        fd = open_page_fd(name, readonly)
        try:
            return cls.from_fd(fd, readonly)
        finally:
            os.close(fd)

    @classmethod
    def from_fd(cls, fd: int, readonly: bool = True) -> ControlPage:
        """Map the page behind an inherited or granted descriptor, which stays open and the caller's."""
        found = os.fstat(fd)
        size = found.st_size
        if size < at.QUEUE_TABLE * at.WORD_BYTES:
            raise StoreDamaged(f"{size} bytes are too few for a control page")
        if found.st_blocks * _BLOCK_BYTES < size:  # its maker died; to read a hole of a full /dev/shm kills
            raise StoreDamaged("this shared memory object is not a finished control page: it has holes")
        mapped = mmap.mmap(fd, size, access=mmap.ACCESS_READ if readonly else mmap.ACCESS_WRITE)
        words = map_words(mapped)
        magic, version, promised = words[at.MAGIC], words[at.LAYOUT_VERSION], words[at.PAGE_BYTES]
        words.release()
        if magic != at.MAGIC_NUMBER:
            raise StoreDamaged("this shared memory object is not a finished control page")
        if version != at.LAYOUT_VERSION_NOW:
            raise LayoutMismatch(f"the control page has layout {version}, we know {at.LAYOUT_VERSION_NOW}")
        if promised != size:
            raise StoreDamaged(f"the control page says it has {promised} bytes, but it has {size}")
        return cls(mapped)

    @property
    def state(self) -> PageState:
        """What the page may be used for now."""
        return PageState(self.words[at.STATE])

    @state.setter
    def state(self, state: PageState) -> None:
        self.words[at.STATE] = state

    @property
    def same_boot(self) -> bool:
        """Whether the host has not been restarted since the page was made."""
        return bool(self.words[at.KERNEL_BOOT_ID] == kernel_boot_id())

    def visible_position(self) -> int:
        """Return the CommitLog position at which every reader stops. Never goes back within a page's life."""
        words = self.words
        return words[words[at.VISIBLE_WORD]]

    def retire(self) -> None:
        """Tell whoever maps this page that another takes over. Supervisor, recovery; before unlinking."""
        self.state = PageState.RETIRED

    def close(self) -> None:
        """Unmap. Whoever kept `words` gets ValueError from then on. Twice is harmless."""
        self.words.release()
        self.raw.release()
        self._map.close()

    @staticmethod
    def unlink(name: str) -> None:
        """Remove the name; maps of it live on. Nothing happens when there is none."""
        try:
            posix_ipc.unlink_shared_memory(name)
        except posix_ipc.ExistentialError:
            return


def open_page_fd(name: str, readonly: bool = True) -> int:
    """Open the page to map it or hand it on (a reader's grant, a child); the caller closes it."""
    try:
        return int(posix_ipc.SharedMemory(name, read_only=readonly).fd)
    except posix_ipc.ExistentialError:
        raise Unavailable(f"there is no control page {name}: no broker runs on that store") from None


def kernel_boot_id() -> int:
    """Return 63 bits of the kernel's boot id, which changes with every start of the host."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return int(text.replace("-", ""), 16) >> 65


def _shm_room() -> str:
    found = os.statvfs("/dev/shm")
    return f"{found.f_bavail * found.f_frsize >> 10} KiB free of {found.f_blocks * found.f_frsize >> 10}"
