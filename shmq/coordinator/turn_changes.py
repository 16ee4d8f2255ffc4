"""TurnChanges: the changes of one registry that are asked for in one turn of the loop share one write.

A registry's file is written whole and synced, which takes 3 to 25 ms and holds up the loop. When a thousand
clients start, their requests arrive together, and more arrive while the disk is waited for: each write takes
all of them. Implements `handlers.coordinator_context.Changes`. Coordinator's loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

R = TypeVar("R")


class Registry(Protocol):
    """What has a file (`broker/topics.py`, `broker/groups.py`)."""

    def together(self) -> AbstractContextManager[None]:
        """Make the changes inside with one write, all or none of them."""


class TurnChanges:
    """The changes of one registry."""

    def __init__(self, registry: Registry) -> None:
        """Nothing waits yet."""
        self._registry = registry
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []

    async def make(self, change: Callable[[], R]) -> R:
        """Return what `change` returns, when that is durable; raise what it raises, or why it was undone."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._make_all)
        self._waiting.append((change, done))
        return await done

    def _make_all(self) -> None:
        """Make all changes of this turn in the order they were asked for; one that is refused fails alone."""
        waiting, self._waiting = self._waiting, []
        outcomes: list[tuple[asyncio.Future[Any], Any, Exception | None]] = []
        try:
            with self._registry.together():
                for change, done in waiting:
                    try:
                        outcomes.append((done, change(), None))
                    except Exception as error:  # whoever asked for it is told
                        outcomes.append((done, None, error))
        except Exception as error:  # the disk refused: nothing was changed, for nobody
            outcomes = [(done, None, error) for _, done in waiting]
        for done, result, failure in outcomes:
            if done.cancelled():
                continue
            if failure is not None:
                done.set_exception(failure)
            else:
                done.set_result(result)
