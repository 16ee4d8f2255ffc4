"""The order in which a worker comes up and drains, as data. Runs in the worker's event loop.

Draining answers what is in hand: no new connections, new requests are sent elsewhere (GO_AWAY), collected
sends are appended, held pulls are answered, sends that wait for the disk get their time; then connections
close after their last reply. A second SIGTERM stops waiting. Every step is logged with its time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shmq.base import log
from shmq.base.clock import monotonic_ms
from shmq.net.child_life import Step
from shmq.shm.worker_slots import SlotState
from shmq.worker.worker import Worker

_logger = log.get(__name__)

ACKS_WAIT_S = 2.0
"""How long draining waits for the disk; whoever is not answered by then sends again."""

CLOSE_WAIT_S = 1.0
"""How long draining waits for clients to take their last replies."""

_POLL_S = 0.01


async def _connect(worker: Worker, hurry: asyncio.Event) -> None:
    worker.supervisor.start(worker.loop)
    worker.duty.start()
    worker.coordinator.link.start()


async def _serve(worker: Worker, hurry: asyncio.Event) -> None:
    worker.acceptor.start()
    worker.sweep()
    worker.slot.state = SlotState.SERVING
    worker.boot.report_ready()


async def _refuse_new(worker: Worker, hurry: asyncio.Event) -> None:
    worker.slot.state = SlotState.DRAINING
    worker.acceptor.stop()
    worker.dispatcher.draining = True


async def _finish_sends(worker: Worker, hurry: asyncio.Event) -> None:
    worker.appends.flush()
    await _wait(hurry, ACKS_WAIT_S, lambda: not worker.appends and not worker.acks)


async def _answer_holds(worker: Worker, hurry: asyncio.Event) -> None:
    worker.holds.release_all(monotonic_ms())
    worker.functions.close()


async def _close_connections(worker: Worker, hurry: asyncio.Event) -> None:
    worker.tally.flush()
    worker.connections.close_all("broker is shutting down")
    await _wait(hurry, CLOSE_WAIT_S, lambda: not worker.connections)
    for connection in worker.connections:
        connection.abort("did not take its last replies in time")


async def _disconnect(worker: Worker, hurry: asyncio.Event) -> None:
    await worker.coordinator.link.stop()
    worker.duty.stop()


async def _close_store(worker: Worker, hurry: asyncio.Event) -> None:
    worker.store.close()


START = (Step("connect", _connect), Step("serve", _serve))
DRAIN = (
    Step("refuse_new", _refuse_new),
    Step("finish_sends", _finish_sends),
    Step("answer_holds", _answer_holds),
    Step("close_connections", _close_connections),
    Step("disconnect", _disconnect),
    Step("close_store", _close_store),
)


async def _wait(hurry: asyncio.Event, limit_s: float, done: Callable[[], bool]) -> None:
    """Wait until ``done``, the limit, or a second SIGTERM."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_s
    while not done() and not hurry.is_set() and loop.time() < deadline:
        await asyncio.sleep(_POLL_S)
