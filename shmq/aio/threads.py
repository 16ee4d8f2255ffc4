"""Threads for the blocking calls of one asyncio client: the event loop waits for them, never for a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

R = TypeVar("R")


class Threads:
    """Runs calls for the event loop on threads of its own, so that other users' work never delays them."""

    def __init__(self, count: int, name: str) -> None:
        """Make threads when they are needed, at most `count`."""
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._closed = False

    async def run(self, call: Callable[..., R], *arguments: Any, **named: Any) -> R:
        """Call, and return its result when it has one. After `close` at once: what has ended keeps nobody
        waiting, and says so itself."""
        if self._closed:
            return call(*arguments, **named)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(call, *arguments, **named))

    def close(self) -> None:
        """Start nothing more; what runs ends by itself."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
