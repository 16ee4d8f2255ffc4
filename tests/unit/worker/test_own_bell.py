"""What a worker appends itself makes it look again in the same turn; what others ring, through its bell."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from shmq.base.clock import monotonic_ms
from shmq.net.outbox import Outbox
from shmq.shm.doorbell import Doorbell
from shmq.worker.duty import DutyCycle
from shmq.worker.own_bell import OwnBell
from tests.helpers.waiting import is_readable


@pytest.fixture
def bell() -> Iterator[Doorbell]:
    bell = Doorbell.create()
    yield bell
    bell.close()


def test_own_rings_are_one_look_before_the_loop_sleeps(bell: Doorbell) -> None:
    looks: list[str] = []

    async def main() -> None:
        duty = DutyCycle(asyncio.get_running_loop(), bell, Outbox(), monotonic_ms)
        duty.steps = (lambda _now: looks.append("look"),)
        own = OwnBell(bell.fileno(), duty.look_soon)
        own.ring()
        own.ring()
        assert not looks  # never in the middle of a claim
        await asyncio.sleep(0)
        assert looks == ["look"] and not is_readable(bell.fileno())
        own.ring()
        await asyncio.sleep(0)
        assert looks == ["look", "look"]

    asyncio.run(main())


def test_a_ring_within_a_look_is_another_look(bell: Doorbell) -> None:
    looks: list[int] = []

    async def main() -> None:
        duty = DutyCycle(asyncio.get_running_loop(), bell, Outbox(), monotonic_ms)
        own = OwnBell(bell.fileno(), duty.look_soon)

        def step(now_ms: int) -> None:
            looks.append(now_ms)
            if len(looks) == 1:
                own.ring()  # a send that waited for a segment was appended

        duty.steps = (step,)
        own.ring()
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(looks) == 2

    asyncio.run(main())


def test_others_ring_the_same_descriptor(bell: Doorbell) -> None:
    async def main() -> None:
        looked = asyncio.Event()
        duty = DutyCycle(asyncio.get_running_loop(), bell, Outbox(), monotonic_ms)
        duty.steps = (lambda _now: looked.set(),)
        OwnBell(bell.fileno(), duty.look_soon)
        duty.start()
        Doorbell(bell.fileno()).ring()
        await asyncio.wait_for(looked.wait(), 10)
        duty.stop()
        assert not is_readable(bell.fileno())

    asyncio.run(main())
