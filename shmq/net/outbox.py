"""Collect what one turn of a loop writes, so that each connection costs one system call a turn.

uvloop writes at once when a socket can take it, which would make one ``write`` of every reply. So whoever
handles many things in one callback corks the outbox of his process before and uncorks it after: replies in
between are collected by connection and leave together, in their order. Used in the event loop's thread;
corks nest.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol


class Collecting(Protocol):
    """A connection with collected output."""

    def write_out(self) -> None:
        """Hand everything collected to the transport."""


class Outbox:
    """The connections of one process that have collected output. Use as ``with outbox:``."""

    __slots__ = ("corks", "waiting")

    def __init__(self) -> None:
        """Start uncorked."""
        self.corks = 0
        self.waiting: list[Collecting] = []

    def __enter__(self) -> None:
        """Cork."""
        self.corks += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Uncork; the last cork lets everything go."""
        self.corks -= 1
        if not self.corks and self.waiting:
            waiting, self.waiting = self.waiting, []
            for connection in waiting:
                connection.write_out()
