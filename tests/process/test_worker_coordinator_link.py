"""The worker's link to the coordinator: forwarding, pushes, and life without a coordinator."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from shmq.protocol.bodies.groups import decode_consumer_list
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, encode_command
from shmq.protocol.headers.client import ConsumerGroupHeader
from shmq.protocol.internal import ForwardAnswerHeader, InternalCode, StatsReport
from shmq.shm.boot import FIRST_WORKER_SLOT
from tests.helpers.waiting import wait_until
from tests.helpers.worker_rig import Client, WorkerRig, pull_request, running_rig, send_request


@pytest.fixture(scope="module")
def shared() -> Iterator[WorkerRig]:
    with running_rig(topics=2) as running:
        yield running


@pytest.fixture
def rig(shared: WorkerRig) -> WorkerRig:
    """The shared rig as new: linked, nobody connected, nothing remembered."""
    shared.coordinator.keep.clear()
    shared.coordinator.answer_forwards = True
    slot = shared.slots[FIRST_WORKER_SLOT]
    wait_until(lambda: slot.connections == 0, 10, "the last test's clients have gone")
    with shared.client() as probe:
        wait_until(lambda: probe.call(heartbeat()).code == 0, 10, "the worker is linked")
    wait_until(lambda: slot.connections == 0, 10, "the probe has gone")
    wait_until(lambda: shared.coordinator.events[-1][0] == InternalCode.CLIENT_CLOSED, 5, "and is told so")
    shared.coordinator.events.clear()
    return shared


@pytest.fixture
def client(rig: WorkerRig) -> Iterator[Client]:
    with rig.client() as connected:
        yield connected


def seen(rig: WorkerRig, code: int) -> list[object]:
    return [content for found, content in rig.coordinator.events if found == code]


def heartbeat(oneway: bool = False) -> Command:
    return Command.request(RequestCode.HEART_BEAT, body=b"{}", serialization=0, oneway=oneway)


def test_a_request_of_the_coordinators_is_answered_by_it(rig: WorkerRig, client: Client) -> None:
    answer = client.call(heartbeat())
    assert (answer.code, answer.remark) == (0, "forwarded 34")
    client.send(heartbeat(oneway=True))
    assert client.call(send_request()).code == 0


def test_opened_and_closed_connections_are_told(rig: WorkerRig) -> None:
    with rig.client() as client:
        assert client.call(send_request()).code == 0
        wait_until(lambda: seen(rig, InternalCode.CLIENT_OPENED))
    (opened,) = seen(rig, InternalCode.CLIENT_OPENED)
    closed = wait_until(lambda: seen(rig, InternalCode.CLIENT_CLOSED))
    assert opened[1] == closed[0][1]  # type: ignore[index]
    assert opened[2] == "unix"  # type: ignore[index]


def test_a_push_reaches_the_client_and_its_answer_the_coordinator(rig: WorkerRig, client: Client) -> None:
    assert client.call(send_request()).code == 0
    (opened,) = wait_until(lambda: seen(rig, InternalCode.CLIENT_OPENED))
    pushed = Command.request(RequestCode.GET_CONSUMER_RUNNING_INFO, serialization=0)
    rig.coordinator.push(opened[1], b"".join(bytes(b) for b in encode_command(pushed)))  # type: ignore[index]
    received = client.receive()
    assert received.code == RequestCode.GET_CONSUMER_RUNNING_INFO
    client.send(received.response(0, "here I am"))
    wait_until(lambda: seen(rig, InternalCode.CLIENT_RESPONSE), 5, "the answer is passed on")


def test_who_is_in_a_group_is_answered_by_a_worker_that_knows(rig: WorkerRig, client: Client) -> None:
    def ask(group: str, serialization: int = 0) -> Command:
        header = ConsumerGroupHeader(group)
        code = RequestCode.GET_CONSUMER_LIST_BY_GROUP
        return client.call(Command.request(code, header, serialization=serialization))

    rig.coordinator.add_group("Listed", {"T0": "*"}).client_ids = ["one", "two"]
    rig.coordinator.tell_group("Listed")
    for serialization in (0, 1, 2):
        wait_until(lambda: ask("Listed", serialization).body is not None, 5, "the worker knows")  # noqa: B023
        assert decode_consumer_list(ask("Listed", serialization).body_bytes()) == ["one", "two"]
    rig.coordinator.events.clear()
    assert ask("Listed").code == 0 and seen(rig, InternalCode.FORWARD) == []
    rig.coordinator.add_group("Listed")  # nobody left: the coordinator says so
    rig.coordinator.tell_group("Listed")
    wait_until(lambda: ask("Listed").remark == "forwarded 38", 5, "it is asked")
    assert ask("NeverHeardOf").remark == "forwarded 38"
    bare = Command.request(RequestCode.GET_CONSUMER_LIST_BY_GROUP, serialization=0)
    assert client.call(bare).remark == "forwarded 38", "and refuses what cannot be read"


@pytest.mark.long
def test_known_topics_keep_working_without_a_coordinator_and_the_rest_is_refused_in_time(
    rig: WorkerRig, client: Client
) -> None:
    rig.coordinator.pause()
    try:
        assert client.call(send_request()).code == 0
        assert client.call(pull_request(serialization=2)).code in (0, 2)
        began = time.monotonic()
        assert client.call(heartbeat()).code == ResponseCode.SYSTEM_BUSY
        assert client.call(send_request("Unknown")).code == ResponseCode.SYSTEM_BUSY
        assert time.monotonic() - began < 6
    finally:
        rig.coordinator.resume()
    wait_until(lambda: client.call(heartbeat()).code == 0, 5, "the new coordinator answers")


def test_requests_wait_for_a_coordinator_that_comes_back(rig: WorkerRig, client: Client) -> None:
    rig.coordinator.pause()
    client.send(heartbeat())
    client.send(send_request("Fresh"))
    time.sleep(0.3)
    rig.coordinator.resume()
    codes = {client.receive().code, client.receive().code}
    assert codes == {0}


def test_a_request_that_was_under_way_is_sent_again_once(rig: WorkerRig, client: Client) -> None:
    rig.coordinator.answer_forwards = False
    client.send(heartbeat())
    wait_until(lambda: seen(rig, InternalCode.FORWARD))
    rig.coordinator.answer_forwards = True
    rig.coordinator.break_links()
    assert client.receive().code == 0
    assert len(seen(rig, InternalCode.FORWARD)) == 2


def test_a_request_that_loses_two_coordinators_is_refused(rig: WorkerRig, client: Client) -> None:
    rig.coordinator.answer_forwards = False
    client.send(heartbeat())
    for n in (1, 2):
        wait_until(lambda n=n: len(seen(rig, InternalCode.FORWARD)) == n)
        rig.coordinator.break_links()
    assert client.receive().code == ResponseCode.SYSTEM_BUSY


def test_a_new_coordinator_hears_of_clients_and_notes_before_the_replay_ends(
    rig: WorkerRig, client: Client
) -> None:
    rig.coordinator.keep[34] = ForwardAnswerHeader(keep_key="beat", keep=b"content", keep_until_ms=0)
    assert client.call(heartbeat()).code == 0
    rig.coordinator.events.clear()
    rig.coordinator.break_links()
    wait_until(lambda: seen(rig, InternalCode.REPLAY_DONE))
    codes = [code for code, _ in rig.coordinator.events]
    assert codes[0] == InternalCode.WORKER_HELLO
    told = codes.index(InternalCode.REPLAY_DONE)
    assert InternalCode.CLIENT_OPENED in codes[:told]
    (kept,) = seen(rig, InternalCode.KEPT)
    assert kept[2] == "beat"  # type: ignore[index]


def test_what_was_sent_and_pulled_is_reported_about_every_second(rig: WorkerRig, client: Client) -> None:
    for _ in range(3):
        assert client.call(send_request("T1")).code == 0
    assert client.call(pull_request("T1")).code == 0
    reports = wait_until(lambda: seen(rig, InternalCode.STATS), 5, "a report")
    wait_until(lambda: sum(r.puts.get("T1", (0, 0))[0] for r in decoded(rig)) == 3, 5)
    assert reports
    assert sum(r.gets.get(("T1", "CG"), (0, 0))[0] for r in decoded(rig)) == 3


def decoded(rig: WorkerRig) -> list[StatsReport]:
    return [StatsReport.decode(body) for body in seen(rig, InternalCode.STATS)]  # type: ignore[arg-type]
