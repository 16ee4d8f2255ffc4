"""CoreSharing: a shared core is tried, kept while it is quicker, and given back after every call."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from shmq.client import core_sharing
from shmq.client.core_sharing import GAP_NS, PAUSE_CALLS, SAMPLE, SHARE_S, CoreSharing

CORES = {0, 1}


class World:
    """A thread, a clock, and a worker that comes or does not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 10**12
        self.asked: list[int] = []
        self.comes = True
        self.bound: set[int] = CORES
        self.thread = 1
        self.refuses = False
        clock = SimpleNamespace(perf_counter_ns=lambda: self.now_ns, monotonic=lambda: self.now_ns / 1e9)
        monkeypatch.setattr(core_sharing, "time", clock)
        monkeypatch.setattr(core_sharing, "threading", SimpleNamespace(get_ident=lambda: self.thread))
        system = SimpleNamespace(sched_getaffinity=lambda pid: set(CORES), sched_setaffinity=self.bind)
        monkeypatch.setattr(core_sharing, "os", system)
        monkeypatch.setattr(core_sharing, "_current_cpu", lambda: 1)
        self.sharing = CoreSharing(self.ask)

    def ask(self, cpu: int) -> bool:
        self.asked.append(cpu)
        return self.comes

    def bind(self, pid: int, cores: Iterable[int]) -> None:
        if self.refuses:
            raise OSError(errno.EINVAL, "not yours")
        self.bound = set(cores)

    def call(self, times: int, alone_us: int, shared_us: int) -> int:
        """Make calls that take so long; return how many had the shared core."""
        count = 0
        for _ in range(times):
            shared = self.sharing.begin()
            assert self.bound == ({1} if shared else CORES)
            self.now_ns += (shared_us if shared else alone_us) * 1000
            self.sharing.end()
            self.sharing.answered()
            assert self.bound == CORES, "given back after every call"
            count += shared
        return count


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_what_is_quicker_is_kept_for_a_while(world: World) -> None:
    assert world.call(SAMPLE, 200, 100) == 0
    assert world.asked == [1]
    calls = round(SHARE_S * 1e6 / 100)
    assert world.call(calls, 200, 100) == calls
    assert world.asked == [1]
    world.call(3 * SAMPLE, 200, 100)
    assert world.asked == [1, -1, 1], "watched again, and tried again"


def test_what_brings_too_little_is_left_alone_for_longer_each_time(world: World) -> None:
    assert world.call(2 * SAMPLE, 200, 170) == SAMPLE
    assert world.asked == [1, -1]
    assert world.call(PAUSE_CALLS + SAMPLE - 1, 200, 170) == 0
    assert world.call(1 + SAMPLE, 200, 170) == SAMPLE
    assert world.asked == [1, -1] * 2
    assert world.call(2 * PAUSE_CALLS + SAMPLE, 200, 170) == 0


def test_what_has_become_slower_is_left(world: World) -> None:
    world.call(3 * SAMPLE, 200, 100)
    assert world.call(2 * SAMPLE, 200, 195) <= 2 * SAMPLE
    assert world.asked == [1, -1]
    assert world.call(PAUSE_CALLS, 200, 100) == 0


def test_a_worker_that_does_not_come_is_asked_again_later(world: World) -> None:
    world.comes = False
    assert world.call(SAMPLE + PAUSE_CALLS, 200, 100) == 0
    assert world.asked == [1]
    world.call(SAMPLE, 200, 100)
    assert world.asked == [1, 1]


def test_rare_calls_are_no_stream(world: World) -> None:
    for _ in range(3 * SAMPLE):
        world.now_ns += GAP_NS + 1
        assert world.call(1, 200, 100) == 0
    assert not world.asked
    world.call(3 * SAMPLE, 200, 100)
    assert world.asked == [1]
    world.now_ns += GAP_NS + 1
    assert world.call(1, 200, 100) == 0, "the worker may be elsewhere by now"


def test_another_thread_keeps_its_cores(world: World) -> None:
    world.call(3 * SAMPLE, 200, 100)
    world.thread = 2
    assert world.call(5, 200, 100) == 0
    world.thread = 1
    assert world.call(5, 200, 100) == 5


def test_an_interrupted_call_gives_the_cores_back(world: World) -> None:
    world.call(3 * SAMPLE, 200, 100)
    assert world.sharing.begin() and world.bound == {1}
    world.sharing.end()
    assert world.bound == CORES
    world.sharing._is_bound, world.bound = True, {1}  # interrupted before `begin` could say so
    world.sharing.end()
    assert world.bound == CORES


def test_a_thread_that_may_not_choose_goes_on_without(world: World) -> None:
    world.call(3 * SAMPLE, 200, 100)
    world.refuses = True
    assert world.sharing.begin() is False
    world.sharing.end()
    world.refuses = False
    assert world.call(PAUSE_CALLS - 1, 200, 100) == 0
