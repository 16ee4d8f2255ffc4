"""Links to workers, calls to clients, and waiting for workers' replays: without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from shmq.base.errors import ConsumerNotOnline, ServiceNotAvailable
from shmq.broker.client_key import ClientKey
from shmq.coordinator import settling as settling_module
from shmq.coordinator.client_calls import ClientCalls
from shmq.coordinator.settling import Settling
from shmq.coordinator.worker_links import WorkerLink, WorkerLinks
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, Serialization, decode_frame
from shmq.protocol.internal import ClientHeader, InternalCode, TopicChangedHeader


class Wire:
    """Stands in for a Connection: keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[Command] = []

    def send(self, command: Command) -> None:
        self.sent.append(command)


@pytest.fixture
def wires() -> dict[int, Wire]:
    return {}


def link(links: WorkerLinks, slot: int) -> tuple[WorkerLink, Wire]:
    wire = Wire()
    made = WorkerLink(wire, slot, 1000 + slot)  # type: ignore[arg-type]
    links.add(made)
    return made, wire


CHANGED = TopicChangedHeader("t", False)


def test_a_change_waits_for_every_worker() -> None:
    async def check() -> None:
        links = WorkerLinks()
        (one, one_wire), (two, two_wire) = link(links, 2), link(links, 3)
        telling = asyncio.create_task(links.tell_all(InternalCode.TOPIC_CHANGED, CHANGED, b"", 5))
        await asyncio.sleep(0)
        one.answered(one_wire.sent[0].response(ResponseCode.SUCCESS))
        await asyncio.sleep(0.02)
        assert not telling.done()
        two.answered(two_wire.sent[0].response(ResponseCode.REQUEST_CODE_NOT_SUPPORTED))
        await asyncio.wait_for(telling, 1)

    asyncio.run(check())


def test_a_silent_or_dying_worker_does_not_hold_a_change_for_ever() -> None:
    async def check() -> None:
        links = WorkerLinks()
        link(links, 2)
        leaving, _ = link(links, 3)
        telling = asyncio.create_task(links.tell_all(InternalCode.TOPIC_CHANGED, CHANGED, b"", 0.05))
        await asyncio.sleep(0)
        assert links.remove(leaving)
        await asyncio.wait_for(telling, 1)
        await links.tell_all(InternalCode.TOPIC_CHANGED, CHANGED, b"", 0.01)

    asyncio.run(check())


def test_without_workers_a_change_is_told_at_once() -> None:
    asyncio.run(WorkerLinks().tell_all(InternalCode.TOPIC_CHANGED, CHANGED, b"", 5))


def test_a_worker_started_again_replaces_its_link() -> None:
    async def check() -> None:
        links = WorkerLinks()
        former, _ = link(links, 2)
        waiting = former.ask(InternalCode.TOPIC_CHANGED, CHANGED, None)
        fresh, _ = link(links, 2)
        with pytest.raises(ServiceNotAvailable):
            await waiting
        assert not links.remove(former) and links.get(2) is fresh and len(links) == 1

    asyncio.run(check())


KEY = ClientKey(2, 7)


def test_a_client_is_asked_in_its_own_serialization_and_its_answer_comes_back() -> None:
    async def check() -> None:
        links = WorkerLinks()
        _, wire = link(links, 2)
        calls = ClientCalls(links)
        calls.heard(KEY, Serialization.ROCKETMQ)
        request = Command.request(RequestCode.GET_CONSUMER_RUNNING_INFO)
        call = asyncio.create_task(calls.call(KEY, request, 1000))
        await asyncio.sleep(0)
        push = wire.sent[0]
        assert push.code == InternalCode.PUSH and push.is_oneway
        frame = decode_frame(push.body_bytes())
        assert frame.serialization == Serialization.ROCKETMQ and frame.opaque == request.opaque
        calls.answered(ClientKey(2, 8), frame.response(ResponseCode.SYSTEM_ERROR))
        calls.answered(KEY, frame.response(ResponseCode.SUCCESS, "mine"))
        assert (await call).remark == "mine"
        calls.answered(KEY, frame.response(ResponseCode.SUCCESS))

    asyncio.run(check())


@pytest.mark.parametrize("how", ["closed", "worker_lost", "late"])
def test_a_client_that_does_not_answer(how: str) -> None:
    async def check() -> None:
        links = WorkerLinks()
        link(links, 2)
        calls = ClientCalls(links)
        calls.heard(KEY, Serialization.JSON)
        call = asyncio.create_task(
            calls.call(KEY, Command.request(RequestCode.GET_CONSUMER_RUNNING_INFO), 50)
        )
        await asyncio.sleep(0)
        if how == "closed":
            calls.closed(KEY)
        elif how == "worker_lost":
            calls.worker_lost(2)
        with pytest.raises(TimeoutError if how == "late" else ConsumerNotOnline):
            await call

    asyncio.run(check())


def test_a_push_to_a_client_of_a_dead_worker_is_dropped() -> None:
    calls = ClientCalls(WorkerLinks())
    calls.push(KEY, Command.request(RequestCode.NOTIFY_CONSUMER_IDS_CHANGED, ClientHeader(1), oneway=True))


def test_settling_waits_for_the_replays_of_live_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        links = WorkerLinks()
        alive = [2, 3]

        def live() -> Iterator[int]:
            return iter(alive)

        settling = Settling(links, live)
        running = asyncio.create_task(settling.run())
        one, _ = link(links, 2)
        one.replayed = True
        await asyncio.sleep(0.12)
        assert not settling.settled and settling.missing() == [3]
        alive.remove(3)
        await asyncio.wait_for(settling.wait(), 1)
        await running
        assert settling.settled and settling.silent == []

    asyncio.run(check())


def test_settling_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling_module, "LIMIT_S", 0.1)

    async def check() -> None:
        settling = Settling(WorkerLinks(), lambda: [2])
        await asyncio.wait_for(settling.run(), 2)
        assert settling.settled and settling.silent == [2]

    asyncio.run(check())
