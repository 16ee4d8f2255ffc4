"""Shared 8-byte words: how a buffer becomes words, and the fence between a store and a later load.

CPython reads and writes one element of `memoryview.cast("q")` with one 8-byte instruction, so a reader in
another process sees the old or the new number, never half of each. `struct.pack_into` with an explicit byte
order stores byte by byte and must not be used for a shared number.
"""

from __future__ import annotations

import threading
from typing import Any

from shmq.base.errors import Bug
from shmq.shm.page_layout import WORD_BYTES

_fence_lock = threading.Lock()


def map_words(buffer: Any) -> memoryview:
    """Return `buffer` (a page-aligned map, a whole number of words long) as signed 8-byte words."""
    view = memoryview(buffer)
    if len(view) % WORD_BYTES:
        raise Bug(f"{len(view)} bytes are not a whole number of words")
    return view.cast("q")


def fence() -> None:
    """Make all earlier stores of this thread visible to every process before any later load of it.

    x86 lets a load overtake an earlier store, also between two CPython statements. Taking and leaving a lock
    is a locked instruction, which no load overtakes; there is no cheaper one in the language (about 70 ns).
    """
    _fence_lock.acquire()
    _fence_lock.release()
