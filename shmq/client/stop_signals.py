"""A graceful end for programs: SIGTERM and Ctrl-C become an event instead of an exception.

    with consumer, stop_on_signals() as stopping:
        stopping.wait()

Behind the block the consumer shuts down as ever: running calls of its listener end (for
`await_termination_millis_when_shutdown`), offsets are committed, the group is left. A second signal acts as
it would have without this: nobody is kept from ending a program that hangs.

A signal handler runs in the main thread, between any two steps of `stopping.wait()`: if it set the event, it
would wait for a lock that its own thread has. So it only puts something into a `SimpleQueue`, which may be
interrupted anywhere, and a thread sets the event.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signals(*signals: signal.Signals) -> Iterator[threading.Event]:
    """Yield an event that is set by the first of these signals (SIGTERM and SIGINT); main thread only."""
    stopping = threading.Event()
    asked: SimpleQueue[bool] = SimpleQueue()
    before = {number: signal.getsignal(number) for number in signals or SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, before[signal.Signals(number)])
        asked.put(True)

    def watch() -> None:
        if asked.get():
            stopping.set()

    for number in before:
        signal.signal(number, stop)
    threading.Thread(target=watch, name="shmq-stop-signals", daemon=True).start()
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        asked.put(False)
