"""The life of a worker or coordinator in its event loop: steps up, serve until SIGTERM, steps down.

The steps themselves are data of each role (`worker/lifecycle.py`, `coordinator/lifecycle.py`). A second
SIGTERM sets `hurry`, which every step is given: it then waits for nothing.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from shmq.base import log
from shmq.base.clock import monotonic_ms

Child = TypeVar("Child")
_logger = log.get(__name__)


class Step(NamedTuple, Generic[Child]):
    """One step: its name in the log and what it does."""

    name: str
    run: Callable[[Child, asyncio.Event], Awaitable[None]]


async def live(
    role: str,
    make: Callable[[asyncio.AbstractEventLoop], Child],
    up: tuple[Step[Child], ...],
    down: tuple[Step[Child], ...],
) -> None:
    """Make the child in the running loop, run its steps up, wait for SIGTERM, run its steps down."""
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def asked_to_stop() -> None:
        (hurry if stop.is_set() else stop).set()

    loop.add_signal_handler(signal.SIGTERM, asked_to_stop)
    child = make(loop)
    await _run(role, up, child, hurry)
    gc.freeze()
    await stop.wait()
    await _run(role, down, child, hurry)


async def _run(role: str, steps: tuple[Step[Child], ...], child: Child, hurry: asyncio.Event) -> None:
    """Run steps in order, each logged with its time."""
    for step in steps:
        began_ms = monotonic_ms()
        await step.run(child, hurry)
        log.event(_logger, logging.INFO, f"{role}_step", step=step.name, ms=monotonic_ms() - began_ms)
