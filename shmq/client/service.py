"""Service: what producers and consumers have in common as context managers: `with` starts and shuts down."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Service(ABC):
    """Something a program starts once and shuts down once, best by a `with` block."""

    @abstractmethod
    def start(self) -> None:
        """Join; once."""

    @abstractmethod
    def shutdown(self) -> None:
        """Finish what is in hand and leave. Again is harmless."""

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down."""
        self.shutdown()
