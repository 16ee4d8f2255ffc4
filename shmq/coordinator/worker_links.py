"""The coordinator's side of the connections to its workers: who they are, and requests sent to them.

A link begins with WORKER_HELLO on a connection of the internal socket and ends with that connection. A
worker that is started again gets the same slot: its new link replaces the old one. Coordinator's loop only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from shmq.base import log
from shmq.base.errors import ServiceNotAvailable
from shmq.net.connection import Connection
from shmq.protocol.command import Command
from shmq.protocol.internal import InternalCode

_logger = log.get(__name__)


class WorkerLink:
    """One worker's connection.

    `replayed` is true once it has told all that it held before, `restored` names the consumer groups that
    came with it.
    """

    def __init__(self, connection: Connection, slot: int, pid: int) -> None:
        """Bind the worker in `slot` to its connection."""
        self.slot = slot
        self.pid = pid
        self.replayed = False
        self.restored: set[str] = set()
        self._connection = connection
        self._waiting: dict[int, asyncio.Future[Command]] = {}

    def send(self, command: Command) -> None:
        """Send a oneway, or an answer. Nothing happens when the worker is gone."""
        self._connection.send(command)

    def ask(self, code: InternalCode, header: object | None, body: bytes | None) -> asyncio.Future[Command]:
        """Send a request at once; the future is its answer, ServiceNotAvailable when the link ends first."""
        request = Command.request(code, header, body)
        answer: asyncio.Future[Command] = asyncio.get_running_loop().create_future()
        self._waiting[request.opaque] = answer
        answer.add_done_callback(lambda _: self._waiting.pop(request.opaque, None))
        self._connection.send(request)
        return answer

    def answered(self, response: Command) -> None:
        """An answer of the worker arrived; one that nobody waits for any more is dropped."""
        waiting = self._waiting.pop(response.opaque, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(response)

    def end(self) -> None:
        """The connection is gone: everybody who waits for an answer is told."""
        for waiting in list(self._waiting.values()):
            if not waiting.done():
                waiting.set_exception(ServiceNotAvailable(f"worker {self.pid} has left"))


class WorkerLinks:
    """All links by slot, and the broadcasts over them."""

    def __init__(self) -> None:
        """Start without workers."""
        self._by_slot: dict[int, WorkerLink] = {}

    def add(self, link: WorkerLink) -> None:
        """A worker said hello; a former link of its slot is over."""
        former = self._by_slot.get(link.slot)
        if former is not None:
            former.end()
        self._by_slot[link.slot] = link

    def remove(self, link: WorkerLink) -> bool:
        """The link's connection ended; False when another link has its slot already."""
        link.end()
        if self._by_slot.get(link.slot) is not link:
            return False
        del self._by_slot[link.slot]
        return True

    def get(self, slot: int) -> WorkerLink | None:
        """The link of the worker in that slot."""
        return self._by_slot.get(slot)

    def __iter__(self) -> Iterator[WorkerLink]:
        """All links."""
        return iter(list(self._by_slot.values()))

    def __len__(self) -> int:
        """How many workers are linked."""
        return len(self._by_slot)

    async def tell_all(
        self, code: InternalCode, header: object | None, body: bytes | None, limit_s: float
    ) -> None:
        """Send a request to every worker at once and wait until all have answered, at most `limit_s`.

        A worker that does not answer in time is logged: it gets the change as soon as it runs again,
        because a link keeps its order.
        """
        asked = {link.ask(code, header, body): link for link in self}
        if not asked:
            return
        _, late = await asyncio.wait(asked, timeout=limit_s)
        for answer in late:
            log.event(
                _logger, logging.WARNING, "worker_answers_late", worker=asked[answer].pid, request=code.name
            )
            answer.cancel()
        for answer in asked:
            if answer.done() and not answer.cancelled():
                answer.exception()  # a worker that left needs to know nothing: taken, so nobody complains
