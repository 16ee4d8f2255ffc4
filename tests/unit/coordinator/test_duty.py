"""The duty cycle: who runs when, and what a failing service does to the others."""

from __future__ import annotations

import asyncio

from shmq.base.clock import ManualClock
from shmq.coordinator.duty import RETRY_MS, DutyCycle


class Recorded:
    def __init__(self, pause_ms: int, fails: int = 0) -> None:
        self.runs: list[int] = []
        self._pause_ms = pause_ms
        self._fails = fails

    def step(self, now_ms: int) -> int:
        self.runs.append(now_ms)
        if len(self.runs) <= self._fails:
            raise RuntimeError("not yet")
        return now_ms + self._pause_ms


def run_turns(clock: ManualClock, cycle: DutyCycle, until_ms: int) -> None:
    while clock.monotonic_ms() < until_ms:
        cycle.turn()
        clock.advance(1)


def test_each_service_runs_at_its_own_pace() -> None:
    clock, loop = ManualClock(), asyncio.new_event_loop()
    cycle = DutyCycle(loop, clock)
    often, seldom = Recorded(10), Recorded(25)
    cycle.add("often", often)
    cycle.add("seldom", seldom, 5)
    run_turns(clock, cycle, 60)
    assert often.runs == [0, 10, 20, 30, 40, 50] and seldom.runs == [5, 30, 55]
    loop.close()


def test_a_failing_service_is_tried_again_and_stops_nobody() -> None:
    clock, loop = ManualClock(), asyncio.new_event_loop()
    cycle = DutyCycle(loop, clock)
    failing, other = Recorded(1000, fails=2), Recorded(RETRY_MS)
    cycle.add("failing", failing)
    cycle.add("other", other)
    run_turns(clock, cycle, 2 * RETRY_MS + 10)
    assert failing.runs == [0, RETRY_MS, 2 * RETRY_MS] == other.runs
    loop.close()


def test_far_deadlines_share_their_wake_ups() -> None:
    clock, loop = ManualClock(monotonic_ms=130), asyncio.new_event_loop()
    cycle = DutyCycle(loop, clock)
    often, seldom = Recorded(1000), Recorded(2000)
    cycle.add("often", often)
    cycle.add("seldom", seldom, 90)
    run_turns(clock, cycle, 4100)
    assert often.runs == [130, 1000, 2000, 3000, 4000] and seldom.runs == [220, 2000, 4000]
    loop.close()


def test_a_hurried_service_runs_at_once() -> None:
    async def check() -> None:
        cycle = DutyCycle(asyncio.get_running_loop())
        slow = Recorded(3_600_000)
        cycle.add("slow", slow)
        cycle.start()
        await asyncio.sleep(0.05)
        assert len(slow.runs) == 1
        cycle.hurry("slow")
        await asyncio.sleep(0.05)
        assert len(slow.runs) == 2
        cycle.stop()
        cycle.hurry("slow")
        await asyncio.sleep(0.02)
        assert len(slow.runs) == 2

    asyncio.run(check())


def test_a_service_that_is_always_due_lets_the_loop_breathe() -> None:
    async def check() -> None:
        cycle = DutyCycle(asyncio.get_running_loop())
        greedy = Recorded(-1)
        cycle.add("greedy", greedy)
        cycle.start()
        await asyncio.sleep(0.05)
        cycle.stop()
        assert 2 <= len(greedy.runs) <= 60

    asyncio.run(check())
