"""A signal that becomes an event, whatever the main thread was doing."""

from __future__ import annotations

import signal

from shmq.client.stop_signals import stop_on_signals
from tests.helpers.waiting import wait_until


def test_a_signal_in_the_middle_of_waiting_for_it_does_not_hang() -> None:
    with stop_on_signals(signal.SIGUSR1) as stopping:
        with stopping._cond:  # as `stopping.wait()` has it before it sleeps
            signal.raise_signal(signal.SIGUSR1)
        wait_until(stopping.is_set, 10, "the event is set")
