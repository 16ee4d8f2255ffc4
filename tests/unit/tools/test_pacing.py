"""The open-loop sender: what a stall delays is charged to it, by a clock the test turns."""

from __future__ import annotations

from bench.load.pacing import intended_times, paced, wait_until

MS = 1_000_000


class Clock:
    """Time that passes only in sleeps and in sends that take their time."""

    def __init__(self) -> None:
        self.now = 0
        self.slept: list[float] = []

    def __call__(self) -> int:
        self.now += 1_000  # looking at it takes a microsecond: who waits awake comes on
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += round(seconds * 1e9)


def test_intended_times_are_evenly_spaced_and_as_many_as_the_rate_says() -> None:
    assert list(intended_times(5 * MS, 1000, 0.004)) == [5 * MS, 6 * MS, 7 * MS, 8 * MS]
    times = list(intended_times(0, 3, 100))
    assert len(times) == 300 and times[-1] == round(299 * 1e9 / 3), "no drift from rounding the step"


def test_a_fast_server_is_charged_only_what_it_takes() -> None:
    clock = Clock()

    def send(moment: int) -> None:
        clock.now += MS // 10

    latencies = paced(send, intended_times(0, 1000, 0.05), clock, clock.sleep)
    assert len(latencies) == 50 and max(latencies) < MS // 5


def test_one_stall_is_charged_to_every_send_it_delayed() -> None:
    """A closed loop would report one slow operation here and 99 fast ones."""
    clock, sent = Clock(), 0

    def send(moment: int) -> None:
        nonlocal sent
        sent += 1
        clock.now += 20 * MS if sent == 10 else MS // 10

    latencies = paced(send, intended_times(0, 1000, 0.1), clock, clock.sleep)
    assert len(latencies) == 100
    assert max(latencies[:9]) < MS
    assert 20 * MS <= latencies[9] < 21 * MS
    late = [latency for latency in latencies[10:] if latency > MS]
    assert late == sorted(late, reverse=True) and len(late) >= 18, "it catches up send by send"
    assert max(latencies[40:]) < MS


def test_waiting_sleeps_to_shortly_before_and_never_past_the_moment() -> None:
    clock = Clock()
    wait_until(10 * MS, clock, clock.sleep)
    assert 10 * MS <= clock.now < 10 * MS + 10_000
    assert len(clock.slept) == 1 and clock.slept[0] < 0.01


def test_a_moment_that_has_passed_is_not_waited_for() -> None:
    clock = Clock()
    clock.now = 11 * MS
    wait_until(10 * MS, clock, clock.sleep)
    assert clock.slept == []
