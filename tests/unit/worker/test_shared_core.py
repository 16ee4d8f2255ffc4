"""SharedCore: who has the worker on his core, and what ends it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Set

import pytest

from shmq.worker import shared_core
from shmq.worker.shared_core import OTHERS_MIN, OTHERS_SHARE, SharedCore

CORES = {0, 1, 2}
FIRST, SECOND = 1, 2


class World:
    """A worker's thread as far as cores go."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, enabled: bool = True, cores: set[int] = CORES
    ) -> None:
        monkeypatch.setattr(shared_core.os, "sched_getaffinity", lambda pid: set(cores))
        self.bound: list[set[int]] = []
        self.polls = 0
        self.refuses = False
        self.counts: list[str] = []
        self.loop = asyncio.new_event_loop()
        self.core = SharedCore(
            self.loop,
            enabled=enabled,
            poll=self.poll,
            count=lambda name, n: self.counts.append(name),
            bind=self.bind,
        )

    def poll(self) -> None:
        self.polls += 1

    def bind(self, pid: int, cores: Set[int]) -> None:
        if self.refuses:
            raise OSError(errno.EINVAL, "no such core")
        self.bound.append(set(cores))

    def pause(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_one_client_has_the_worker_until_it_says_so(world: World) -> None:
    world.core.worked(FIRST)
    assert world.polls == 1
    assert world.core.share(FIRST, 2) and world.bound == [{2}]
    assert not world.core.share(SECOND, 1), "it is taken"
    world.core.worked(FIRST)
    assert world.polls == 1, "polling would keep the client off the core"
    assert world.core.share(FIRST, 1) and world.bound == [{2}, {1}], "the client has moved"
    assert world.core.share(SECOND, -1) and len(world.bound) == 2, "it had nothing"
    assert world.core.share(FIRST, -1) and world.bound[-1] == CORES
    world.core.worked(FIRST)
    assert world.polls == 2 and world.counts == ["cores_shared"]
    world.loop.close()


def test_it_ends_with_the_connection(world: World) -> None:
    world.core.share(FIRST, 0)
    world.core.closed(SECOND)
    assert world.bound == [{0}]
    world.core.closed(FIRST)
    assert world.bound == [{0}, CORES]
    world.loop.close()


def test_it_ends_when_others_ask_for_more_than_little(world: World) -> None:
    world.core.share(FIRST, 0)
    for _ in range(80):
        world.core.worked(FIRST)
    for _ in range(OTHERS_MIN + 80 // OTHERS_SHARE):
        world.core.worked(SECOND)
    assert world.bound == [{0}]
    world.core.worked(SECOND)
    assert world.bound == [{0}, CORES]
    assert world.core.share(SECOND, 1), "whoever asks next"
    world.core.closed(SECOND)
    world.loop.close()


def test_it_ends_when_the_client_is_silent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_core, "LOOK_S", 0.02)
    world.core.share(FIRST, 0)
    for _ in range(4):
        world.core.worked(FIRST)
        world.pause(0.01)
    assert world.bound == [{0}]
    world.pause(0.1)
    assert world.bound == [{0}, CORES]
    world.loop.close()


@pytest.mark.parametrize(
    "settings", [{"enabled": False}, {"cores": {1}}, {"cores": {0, 2}}], ids=["off", "one core", "not ours"]
)
def test_where_it_cannot_be_it_is_refused(monkeypatch: pytest.MonkeyPatch, settings: dict[str, bool]) -> None:
    world = World(monkeypatch, **settings)  # type: ignore[arg-type]
    assert not world.core.share(FIRST, 1) and not world.bound
    world.loop.close()


def test_a_kernel_that_refuses_is_a_refusal(world: World) -> None:
    world.refuses = True
    assert not world.core.share(FIRST, 1)
    world.refuses = False
    assert world.core.share(FIRST, 1)
    world.refuses = True
    world.core.closed(FIRST)
    assert not world.core.share(FIRST, 1), "the worker's cores are others now: it is left alone"
    world.loop.close()


def test_it_goes_home_before_a_process_is_started(world: World) -> None:
    world.core.go_home()
    assert not world.bound
    world.core.share(FIRST, 2)
    world.core.go_home()
    assert world.bound == [{2}, CORES]
    world.core.worked(FIRST)
    assert world.polls == 1, "it is nobody's"
    world.loop.close()
