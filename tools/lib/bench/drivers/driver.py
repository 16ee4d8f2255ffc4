"""What a driver offers to the load loops, and the message every system is given.

A message carries, beside its body, what real ones do: a tag, a key, a unique key. Systems without such fields
get them as fields or headers of their own, so that all move and keep the same bytes.
"""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any

from bench.load.job import Job, Outcome

TAG = "TagA"
OTHER_TAG = "TagB"
"""What a filter for TAG does not pass."""
KEY_EVERY = 100_000
KEYS = [f"order-{number:06d}" for number in range(KEY_EVERY)]
"""Keys of messages, made ahead: formatting them is the program's work, not the queue's."""

Settle = Callable[[], object]
"""Waits for the acknowledgement of something that was handed over; raises when it failed."""
Handler = Callable[[list[bytes]], None]
"""Takes the bodies that a subscription brought, in one call per delivery."""


def body_of(size: int) -> bytes:
    """A body that no compression can shrink, the same in every process."""
    return random.Random(size).randbytes(size)


class UniqueKeys:
    """Unique keys for systems whose client library makes none: as long as RocketMQ's, 32 characters."""

    def __init__(self) -> None:
        """Begin a series of this process and moment."""
        self._prefix = os.urandom(10).hex()
        self._number = 0

    def next(self) -> str:
        """The next one."""
        self._number += 1
        return f"{self._prefix}{self._number:012x}"


class Sender(ABC):
    """One producer with a connection of its own, used by one thread."""

    @abstractmethod
    def send(self, body: bytes, number: int) -> object:
        """Send one message and return when it is acknowledged."""

    @abstractmethod
    def send_async(self, body: bytes, number: int) -> Settle:
        """Hand one message over; the library may gather messages as it likes."""

    @abstractmethod
    def send_batch(self, bodies: list[bytes], number: int) -> Settle:
        """Hand a list over as one batch."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back."""


class Driver(ABC):
    """One client library talking to one server. Each job makes its own."""

    @abstractmethod
    def __init__(self, address: dict[str, str], options: dict[str, Any]) -> None:
        """Remember where the server is; connect when needed."""

    @abstractmethod
    def make_topic(self, topic: str, queues: int) -> None:
        """Make a topic of so many queues unless it is there."""

    @abstractmethod
    def sender(self, topic: str, queues: int) -> Sender:
        """A producer; message `number` goes to queue number % queues."""

    @abstractmethod
    def read_all(self, topic: str) -> Iterator[tuple[int, int]]:
        """Read a topic from its first message to its last; (messages, body bytes) of each read."""

    @abstractmethod
    def subscribe(self, topic: str, group: str, handler: Handler) -> AbstractContextManager[object]:
        """Have a topic's messages from the first on brought to `handler`, acknowledged after it returns."""

    def await_shares(self, members: list[object], topic: str, queues: int) -> None:
        """Return when members of a group have shared out a topic's queues, where a library does that."""
        return None

    def own_loop(self, job: Job) -> Generator[None, None, Outcome] | None:
        """The driver's own way to do a job, in place of the common loop; None: there is none."""
        return None

    def close(self) -> None:
        """Give back what the driver itself holds."""
        return None
