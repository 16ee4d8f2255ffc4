"""The order in which the coordinator comes up and leaves, as data. Runs in its event loop.

It serves workers as soon as files and page agree; it answers membership and locks once it is settled.
Leaving: take leave of the name servers, so that clients go elsewhere; let what is under way finish; export
the offsets; close. Each step is logged with its time; a second SIGTERM skips the waiting.
"""

from __future__ import annotations

import asyncio
import contextlib

from shmq.base import log
from shmq.base.clock import monotonic_ms
from shmq.coordinator.coordinator import Coordinator
from shmq.net.child_life import Step
from shmq.net.listener import adopt, serve
from shmq.shm.page_layout import FLUSH_RINGS
from shmq.shm.rings import park, unpark
from shmq.shm.worker_slots import FLUSHER_SLOT, SlotState

FINISH_LIMIT_S = 1.0
"""How long leaving waits for announcements that are under way."""

FIRST_REGISTRATION_LIMIT_S = 1.0
"""How long the announcement of the broker waits for its first registrations."""

INDEX_LIMIT_S = 1.0
"""How long leaving goes on indexing."""

SCRUB_AFTER_MS = 10_000
"""How long a start has the disk for itself."""

CURSORS_LIMIT_S = 1.0
"""How long leaving waits for the disk to cover what was delivered or decided, before files say so."""

_logger = log.get(__name__)


async def _start_registries(it: Coordinator, hurry: asyncio.Event) -> None:
    """Files and page agree from here on: deletions finished, every topic has its queues."""
    it.supervisor.start(it.loop)
    it.topics.start()
    it.transactions.start()
    it.epoch.bump()  # the last coordinator may have died between a change and telling direct readers


async def _start_serving(it: Coordinator, hurry: asyncio.Event) -> None:
    serve(it.loop, adopt(it.boot.internal_fd), it.connections.make)
    if it.grants is not None:
        it.grants.start()
    it.slots[it.boot.slot].state = SlotState.SERVING
    it.duty.start()
    it.scrub.start(at_once=False, first_ms=min(SCRUB_AFTER_MS, it.boot.settings.scrub_pass_interval))
    it.loop.add_reader(it.bells[it.boot.slot].fileno(), it.on_bell)
    it.forwarding.later(it.settle())


async def _register_first(it: Coordinator, hurry: asyncio.Event) -> None:
    """Be known to the name servers before the broker is announced; none is waited for long."""
    del hurry
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_REGISTRATION_LIMIT_S):
            await asyncio.shield(it.registration.round())
    it.boot.report_ready()


async def _leave_name_servers(it: Coordinator, hurry: asyncio.Event) -> None:
    it.slots[it.boot.slot].state = SlotState.DRAINING
    it.loop.remove_reader(it.bells[it.boot.slot].fileno())
    it.duty.stop()
    it.scrub.stop()
    await it.registration.unregister()


async def _finish(it: Coordinator, hurry: asyncio.Event) -> None:
    if it.grants is not None:
        it.grants.stop()
    if not hurry.is_set():
        await it.forwarding.drain(FINISH_LIMIT_S)


async def _export_offsets(it: Coordinator, hurry: asyncio.Event) -> None:
    """The workers have left before: their last commits are on the page."""
    deadline = it.loop.time() + CURSORS_LIMIT_S
    park(it.page, FLUSH_RINGS, it.boot.slot)  # the flusher then does not wait for its own time
    while not _cover_cursors(it) and not hurry.is_set() and it.loop.time() < deadline:
        it.bells[FLUSHER_SLOT].ring()
        await asyncio.sleep(0.01)
    unpark(it.page, FLUSH_RINGS, it.boot.slot)
    it.offsets.export()


def _cover_cursors(it: Coordinator) -> bool:
    """Bring the files of the broker's own cursors on; True when they say what the page says."""
    return all([it.delays.export(), it.timers.export(), it.transaction_cursors.cover()])


async def _finish_index(it: Coordinator, hurry: asyncio.Event) -> None:
    """Index what is left of the log, as far as the limit allows; the next start goes on from there."""
    deadline = it.loop.time() + INDEX_LIMIT_S
    while it.index.lag and not hurry.is_set() and it.loop.time() < deadline:
        it.index.step(monotonic_ms())
        await asyncio.sleep(0)
    it.index.close()


async def _close(it: Coordinator, hurry: asyncio.Event) -> None:
    it.connections.close_all("coordinator stops")
    it.timers.close()
    it.store.close()


START = (
    Step("registries", _start_registries),
    Step("serving", _start_serving),
    Step("registered", _register_first),
)
STOP = (
    Step("leave_name_servers", _leave_name_servers),
    Step("finish", _finish),
    Step("export_offsets", _export_offsets),
    Step("finish_index", _finish_index),
    Step("close", _close),
)
