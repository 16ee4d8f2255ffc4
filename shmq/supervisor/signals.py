"""Signals of the supervisor: handlers only queue, the main loop acts.

Python runs a handler between two byte codes of the main thread; here it only exists so that the C level
writes the signal's number into a socket pair, which the main loop's selector watches.
"""

from __future__ import annotations

import contextlib
import signal
import socket

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class SignalQueue:
    """The signals that came since the last look; main thread only."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, _handled_in_the_loop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def fileno(self) -> int:
        """Readable when a signal waits."""
        return self._reader.fileno()

    def take(self) -> list[int]:
        """The numbers of the waiting signals, oldest first."""
        with contextlib.suppress(BlockingIOError):
            return list(self._reader.recv(4096))
        return []

    def close(self) -> None:
        """Give the signals back to the interpreter's defaults; for a process that goes on without a loop."""
        signal.set_wakeup_fd(-1)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        self._reader.close()
        self._writer.close()


def _handled_in_the_loop(_number: int, _frame: object) -> None:
    """Do nothing: the wake-up descriptor has the number already."""
