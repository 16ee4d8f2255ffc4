"""SendFuture: the result of one asynchronous send, cheap enough to make one per message.

A `concurrent.futures.Future` makes a condition (1.6 us) before anybody waits; here the lock is made by the
first waiter. Safe without a lock because of two orders, which the interpreter keeps: `_settle` stores the
outcome before it looks for waiters and callbacks; a waiter or callback is stored before the outcome is looked
at again. Each callback leaves the list by one `pop`, so it runs exactly once. Set by the client's threads,
awaited by the caller's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from shmq.base import log
from shmq.client.errors import RemotingTimeout

T = TypeVar("T")

PENDING: Any = object()
"""Stands for an outcome that is not known yet."""
_LOG = log.get(__name__)

_MAKING = threading.Lock()
"""Guards the making (not the use) of any future's event and callback list: two threads may come at once."""


def _free_after_fork() -> None:
    """In a forked child: another thread of the parent may have held the lock, and will never give it back
    here."""
    global _MAKING
    _MAKING = threading.Lock()


os.register_at_fork(after_in_child=_free_after_fork)


class SendFuture(Generic[T]):
    """The outcome of one send, request or pull: a result or an error, set once."""

    __slots__ = ("_callbacks", "_error", "_result", "_waiter")

    def __init__(self) -> None:
        """Start pending."""
        self._result: T = PENDING
        self._error: BaseException | None = None
        self._waiter: threading.Event | None = None
        self._callbacks: list[Callable[[SendFuture[T]], object]] | None = None

    def done(self) -> bool:
        """Tell whether the outcome is known."""
        return self._result is not PENDING

    def result(self, timeout: float | None = None) -> T:
        """Wait up to `timeout` seconds (None: as long as the send itself may take) and return or raise the
        outcome."""
        if self._result is PENDING:
            self._wait(timeout)
        if self._error is not None:
            raise self._error
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait like `result` and return the error, or None after a success."""
        self._wait(timeout)
        return self._error

    def add_done_callback(self, callback: Callable[[SendFuture[T]], object]) -> None:
        """Call `callback(self)` when the outcome is known, at once if it is; in the thread that sets it."""
        if self._callbacks is None:
            with _MAKING:
                if self._callbacks is None:
                    self._callbacks = []
        self._callbacks.append(callback)
        if self._result is not PENDING:
            self._run_callbacks()

    def set_result(self, result: T) -> None:
        """Settle with a result. Called once, by the client."""
        self._result = result
        if self._waiter is not None or self._callbacks:
            self._settle()

    def set_exception(self, error: BaseException) -> None:
        """Settle with an error. Called once, by the client."""
        self._error = error
        self._result = None  # type: ignore[assignment]  # no longer pending; `result` raises first
        if self._waiter is not None or self._callbacks:
            self._settle()

    def _settle(self) -> None:
        """Wake whoever waits, then run the callbacks. The outcome is already visible."""
        if self._waiter is not None:
            self._waiter.set()
        self._run_callbacks()

    def _run_callbacks(self) -> None:
        """Run each callback once; an error in one is logged and harms nobody else."""
        callbacks = self._callbacks
        while callbacks:
            try:
                callback = callbacks.pop()
            except IndexError:  # another thread took the last one
                return
            try:
                callback(self)
            except Exception:
                _LOG.exception("a send callback raised")

    def _wait(self, timeout: float | None) -> None:
        """Block until settled. The event is stored before the outcome is looked at again: no wake-up is
        lost."""
        if self._result is not PENDING:
            return
        with _MAKING:
            if self._waiter is None:
                self._waiter = threading.Event()
            waiter = self._waiter
        if self._result is PENDING and not waiter.wait(timeout):
            raise RemotingTimeout(f"no answer within {timeout} s; it may still succeed")


def calling(
    on_success: Callable[[Any], object] | None,
    on_exception: Callable[[BaseException], object] | None,
) -> Callable[[Any], None]:
    """Return a done-callback that calls the one of the two that fits."""

    def done(future: SendFuture[Any]) -> None:
        error = future.exception()
        if error is None:
            if on_success is not None:
                on_success(future.result())
        elif on_exception is not None:
            on_exception(error)

    return done
