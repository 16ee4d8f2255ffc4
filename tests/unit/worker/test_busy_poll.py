"""Busy polling stops by itself: without traffic, on a loaded machine, where it does not pay."""

from __future__ import annotations

from typing import Any

import pytest

from shmq.worker import busy_poll
from shmq.worker.busy_poll import BACKOFF_NS, PREEMPTED_NS, BusyPoll

BUDGET_NS = 200_000
STEP_NS = 5_000


class Loop:
    """A loop and a clock that moves `STEP_NS` a turn."""

    def __init__(self) -> None:
        self.now = 1_000_000_000
        self.soon: list[Any] = []

    def call_soon(self, callback: Any) -> None:
        self.soon.append(callback)

    def turn(self, passed_ns: int = STEP_NS) -> bool:
        """One turn; False when nothing is due, so that the loop would sleep."""
        self.now += passed_ns
        due, self.soon = self.soon, []
        for callback in due:
            callback()
        return bool(due)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def poll(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> BusyPoll:
    monkeypatch.setattr(busy_poll.os, "sched_getaffinity", lambda pid: {0, 1})
    return BusyPoll(loop, BUDGET_NS, lambda: loop.now)  # type: ignore[arg-type]


def turns_until_asleep(loop: Loop, limit: int = 1000) -> int:
    return next(n for n in range(limit) if not loop.turn())


def test_a_lone_request_is_not_polled_after(loop: Loop, poll: BusyPoll) -> None:
    poll.worked()
    assert not loop.turn()
    loop.now += 10 * BUDGET_NS
    poll.worked()
    assert not loop.turn()


def test_two_close_requests_keep_the_loop_awake_for_the_budget(loop: Loop, poll: BusyPoll) -> None:
    poll.worked()
    loop.now += STEP_NS
    poll.worked()
    assert abs(turns_until_asleep(loop) - BUDGET_NS // STEP_NS) <= 1


def test_requests_that_keep_coming_keep_it_awake(loop: Loop, poll: BusyPoll) -> None:
    for _ in range(100):
        poll.worked()
        for _ in range(10):
            loop.turn()
    assert loop.turn()


def test_a_machine_that_wants_the_core_gets_it(loop: Loop, poll: BusyPoll) -> None:
    poll.worked()
    poll.worked()
    loop.turn(PREEMPTED_NS + 1)
    assert not loop.turn()
    poll.worked()
    assert not loop.turn(), "no polling before the back-off is over"
    loop.now += BACKOFF_NS
    poll.worked()
    loop.now += STEP_NS
    poll.worked()
    assert loop.turn()


def test_polls_that_find_nothing_stop(loop: Loop, poll: BusyPoll) -> None:
    polled = 0
    for _ in range(100):
        poll.worked()
        poll.worked()
        polled += turns_until_asleep(loop) > 0
        loop.now += 2 * BUDGET_NS
    assert polled < 30


@pytest.mark.parametrize(("budget", "cores"), [(0, {0, 1}), (BUDGET_NS, {0})])
def test_it_can_be_switched_off_and_is_on_a_single_core(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, budget: int, cores: set[int]
) -> None:
    monkeypatch.setattr(busy_poll.os, "sched_getaffinity", lambda pid: cores)
    poll = BusyPoll(loop, budget, lambda: loop.now)  # type: ignore[arg-type]
    poll.worked()
    poll.worked()
    assert not loop.turn()
