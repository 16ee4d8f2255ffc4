"""Service: what asyncio's producers and consumers have in common: `async with` starts and shuts down."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Service(ABC):
    """Something a program starts once and shuts down once, in one event loop."""

    @abstractmethod
    async def start(self) -> None:
        """Join, in the running loop; once."""

    @abstractmethod
    async def shutdown(self) -> None:
        """Finish what is in hand and leave."""

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down."""
        await self.shutdown()
