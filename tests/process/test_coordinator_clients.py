"""A real coordinator whose workers are sockets in the test: heartbeats, membership, locks, relayed calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import build_subscription
from shmq.protocol.bodies.groups import (
    decode_consumer_connections,
    decode_consumer_list,
    decode_group_list,
    decode_producer_connections,
)
from shmq.protocol.bodies.heartbeat import ConsumerData, HeartbeatData, encode_heartbeat
from shmq.protocol.bodies.offsets import (
    QueueLockRequest,
    decode_locked_queues,
    encode_queue_locks,
)
from shmq.protocol.codes import LanguageCode, RequestCode, ResponseCode
from shmq.protocol.command import Command, Serialization, encode_command
from shmq.protocol.headers.admin import TopicHeader
from shmq.protocol.headers.client import (
    ConsumeMessageDirectlyHeader,
    ConsumerGroupHeader,
    GetConsumerRunningInfoHeader,
    ProducerGroupHeader,
    UnregisterClientHeader,
)
from shmq.protocol.internal import ClientHeader, GroupState, InternalCode, KeptHeader, Snapshot
from tests.helpers.coordinator_rig import CoordinatorRig, FakeWorker, running_coordinator


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[CoordinatorRig]:
    with running_coordinator(tmp_path) as made:
        yield made


def heartbeat(client_id: str, group: str = "g", *topics: str, version: int = 1) -> bytes:
    consumer = ConsumerData(
        group, subscriptions=[build_subscription(t, "*", version) for t in topics or ("t",)]
    )
    return encode_heartbeat(HeartbeatData(client_id, ["p"], [consumer]))


def beat(worker: FakeWorker, conn_id: int, client_id: str, group: str = "g", *topics: str) -> Command:
    return worker.forward(conn_id, RequestCode.HEART_BEAT, body=heartbeat(client_id, group, *topics))


def members(worker: FakeWorker, group: str = "g") -> list[str]:
    answer = worker.forward(1, RequestCode.GET_CONSUMER_LIST_BY_GROUP, ConsumerGroupHeader(group))
    return decode_consumer_list(answer.body) if answer.code == ResponseCode.SUCCESS else []


@pytest.mark.long
def test_all_members_hear_of_a_new_one_before_its_own_heartbeat_is_answered(rig: CoordinatorRig) -> None:
    one, two = rig.worker(0), rig.worker(1)
    one.open_client(1)
    two.open_client(1)
    assert beat(one, 1, "first").code == ResponseCode.SUCCESS
    assert one.pushed()[1].code == RequestCode.NOTIFY_CONSUMER_IDS_CHANGED
    forward = two.start_forward(
        1, Command.request(RequestCode.HEART_BEAT, body=heartbeat("second"), serialization=Serialization.JSON)
    )
    conn_id, notice = two.pushed()
    assert conn_id == 1 and notice.is_oneway
    assert notice.read_header(ConsumerGroupHeader).consumer_group == "g"
    assert not [c for c in two.asked if c.code == InternalCode.PUSH]
    one_conn, _ = one.pushed()
    assert one_conn == 1
    assert two.finish(forward).code == ResponseCode.SUCCESS
    assert members(one) == ["first", "second"] == members(two)


@pytest.mark.long
def test_workers_know_the_group_and_its_retry_topic_before_the_answer(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    worker.open_client(1)
    beat(worker, 1, "c")
    asked = [command.code for command in worker.asked]
    assert InternalCode.TOPIC_CHANGED in asked and InternalCode.GROUP_CHANGED in asked
    states = [GroupState.decode(c.body_bytes()) for c in worker.asked if c.code == InternalCode.GROUP_CHANGED]
    assert states[-1].members == 1 and list(states[-1].subscriptions) == ["t"]
    assert states[-1].client_ids == ["c"]
    assert asked.index(InternalCode.GROUP_CHANGED) < asked.index(InternalCode.PUSH), "who is told may ask"
    rig.directory.catch_up()
    assert len(rig.directory.queues("%RETRY%g")) == 1


@pytest.mark.long
def test_a_group_that_may_not_exist_is_skipped_and_the_rest_is_registered(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    worker.open_client(1)
    consumers = [ConsumerData(name, subscriptions=[build_subscription("t", "*", 1)]) for name in ("a b", "g")]
    body = encode_heartbeat(HeartbeatData("c", [], consumers))
    assert worker.forward(1, RequestCode.HEART_BEAT, body=body).code == ResponseCode.SUCCESS
    assert members(worker) == ["c"] and members(worker, "a b") == []


@pytest.mark.long
def test_a_repeated_heartbeat_tells_nobody(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    worker.open_client(1)
    beat(worker, 1, "c")
    worker.asked.clear()
    beat(worker, 1, "c")
    assert worker.asked == []


@pytest.mark.long
def test_a_closed_connection_and_a_lost_worker_leave_the_group(rig: CoordinatorRig) -> None:
    one, two = rig.worker(0), rig.worker(1)
    one.open_client(1)
    two.open_client(1)
    two.open_client(2)
    beat(one, 1, "stays")
    beat(two, 1, "closes")
    beat(two, 2, "dies")
    assert members(one) == ["stays", "closes", "dies"]
    one.asked.clear()
    two.close_client(1)
    assert one.pushed()[1].code == RequestCode.NOTIFY_CONSUMER_IDS_CHANGED
    assert members(one) == ["stays", "dies"]
    one.asked.clear()
    two.close()
    assert one.pushed()[1].code == RequestCode.NOTIFY_CONSUMER_IDS_CHANGED
    assert members(one) == ["stays"]


@pytest.mark.long
def test_unregistering_leaves_one_group_and_drops_the_note(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    worker.open_client(1)
    beat(worker, 1, "c")
    assert worker.keep.keys() == {"client"}
    worker.forward(1, RequestCode.UNREGISTER_CLIENT, UnregisterClientHeader("c", consumer_group="g"))
    assert members(worker) == []
    worker.forward(1, RequestCode.UNREGISTER_CLIENT, UnregisterClientHeader("c", producer_group="p"))
    assert worker.keep == {}


@pytest.mark.long
def test_operators_see_the_connections(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    worker.open_client(1, "10.0.0.9:4711")
    beat(worker, 1, "c", "g", "t", "u")
    answer = worker.forward(1, RequestCode.GET_CONSUMER_CONNECTION_LIST, ConsumerGroupHeader("g"))
    found = decode_consumer_connections(answer.body)
    assert sorted(found.subscriptions) == ["t", "u"]
    assert [(c.client_id, c.client_addr, c.language) for c in found.connections] == [
        ("c", "10.0.0.9:4711", LanguageCode.PYTHON)
    ]
    answer = worker.forward(1, RequestCode.GET_PRODUCER_CONNECTION_LIST, ProducerGroupHeader("p"))
    assert [c.client_id for c in decode_producer_connections(answer.body)] == ["c"]
    answer = worker.forward(1, RequestCode.QUERY_TOPIC_CONSUME_BY_WHO, TopicHeader("u"))
    assert decode_group_list(answer.body) == ["g"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "header", "answer"),
    [
        (RequestCode.GET_CONSUMER_LIST_BY_GROUP, ConsumerGroupHeader("nosuch"), 1),
        (RequestCode.GET_CONSUMER_CONNECTION_LIST, ConsumerGroupHeader("nosuch"), 206),
        (RequestCode.GET_PRODUCER_CONNECTION_LIST, ProducerGroupHeader("nosuch"), 1),
        (RequestCode.GET_CONSUMER_RUNNING_INFO, GetConsumerRunningInfoHeader("nosuch", "c"), 1),
    ],
)
def test_nobody_there(rig: CoordinatorRig, code: int, header: object, answer: int) -> None:
    assert rig.worker().forward(1, code, header).code == answer


def lock(
    worker: FakeWorker, client_id: str, *queue_ids: int, code: int = RequestCode.LOCK_BATCH_MQ
) -> Command:
    queues = [MessageQueue("t", "rig", queue_id) for queue_id in queue_ids]
    return worker.forward(1, code, body=encode_queue_locks(QueueLockRequest("g", client_id, queues)))


def locked(worker: FakeWorker, client_id: str, *queue_ids: int) -> list[int]:
    return [queue.queue_id for queue in decode_locked_queues(lock(worker, client_id, *queue_ids).body)]


def test_queue_locks_are_exclusive_and_given_back(rig: CoordinatorRig) -> None:
    one, two = rig.worker(0), rig.worker(1)
    assert locked(one, "a", 0, 1) == [0, 1]
    assert locked(two, "b", 1, 2) == [2]
    lock(one, "a", 1, code=RequestCode.UNLOCK_BATCH_MQ)
    assert locked(two, "b", 0, 1) == [1]
    lock(one, "a", 0, code=RequestCode.UNLOCK_BATCH_MQ)
    assert one.keep == {}


def relay(rig: CoordinatorRig, header: object, code: int, answer: Command | None) -> tuple[Command, Command]:
    """Ask over worker 1 about a consumer of worker 0: what the consumer got, what the asker got."""
    one, two = rig.worker(0), rig.worker(1)
    one.open_client(5)
    beat(one, 5, "c")
    one.pushed()
    forward = two.start_forward(9, Command.request(code, header, serialization=Serialization.JSON))
    conn_id, request = one.pushed()
    assert conn_id == 5 and request.code == code
    if answer is None:
        one.close_client(5)
    else:
        answer.opaque, answer.flag = request.opaque, 1
        one.tell(InternalCode.CLIENT_RESPONSE, ClientHeader(5), list(encode_command(answer)))
    return request, two.finish(forward)


@pytest.mark.long
def test_a_consumer_is_asked_what_it_does(rig: CoordinatorRig) -> None:
    header = GetConsumerRunningInfoHeader("g", "c", False)
    reply = Command(0, body=b'{"properties":{}}', serialization=Serialization.JSON)
    request, answer = relay(rig, header, RequestCode.GET_CONSUMER_RUNNING_INFO, reply)
    assert request.read_header(GetConsumerRunningInfoHeader) == header
    assert answer.code == 0 and answer.body_bytes() == b'{"properties":{}}'


@pytest.mark.long
def test_a_consumer_that_leaves_before_it_answers(rig: CoordinatorRig) -> None:
    header = GetConsumerRunningInfoHeader("g", "c", False)
    _, answer = relay(rig, header, RequestCode.GET_CONSUMER_RUNNING_INFO, None)
    assert answer.code == ResponseCode.CONSUMER_NOT_ONLINE


@pytest.mark.long
def test_a_message_that_does_not_exist_is_not_consumed_directly(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    worker.open_client(5)
    beat(worker, 5, "c")
    header = ConsumeMessageDirectlyHeader("g", "c", "7F00000100002A9F0000000000000000")
    answer = worker.forward(9, RequestCode.CONSUME_MESSAGE_DIRECTLY, header)
    assert answer.code == ResponseCode.QUERY_NOT_FOUND


# -- a coordinator that was started again --------------------------------------------------------------------


@pytest.mark.long
def test_a_new_coordinator_answers_membership_only_after_the_replay(rig: CoordinatorRig) -> None:
    rig.occupy(0)
    old = rig.worker(0)
    old.open_client(1, "10.0.0.9:1")
    beat(old, 1, "c", "g", "t")
    assert locked(old, "c", 0, 1) == [0, 1]
    kept = dict(old.keep)
    rig.kill()
    rig.start()
    worker = rig.worker(0, hello=False)
    assert not worker.hello().settled
    asked = Command.request(
        RequestCode.GET_CONSUMER_LIST_BY_GROUP, ConsumerGroupHeader("g"), serialization=Serialization.JSON
    )
    forward = worker.start_forward(1, asked)
    other_lock = worker.start_forward(
        2,
        Command.request(
            RequestCode.LOCK_BATCH_MQ,
            body=encode_queue_locks(
                QueueLockRequest("g", "other", [MessageQueue("t", "rig", n) for n in (1, 2)])
            ),
            serialization=Serialization.JSON,
        ),
    )
    with pytest.raises(TimeoutError):
        worker.pump(0.3)
    worker.open_client(1, "10.0.0.9:1")
    for key, content in kept.items():
        worker.tell(InternalCode.KEPT, KeptHeader(1, key, 0), content)
    worker.tell(InternalCode.REPLAY_DONE)
    assert decode_consumer_list(worker.finish(forward).body) == ["c"]
    granted = decode_locked_queues(worker.finish(other_lock).body)
    assert [queue.queue_id for queue in granted] == [2]
    settled = Snapshot.decode(worker.take(InternalCode.SETTLED).body_bytes())
    assert settled.settled and settled.groups["g"].members == 1
    answer = worker.forward(1, RequestCode.GET_CONSUMER_CONNECTION_LIST, ConsumerGroupHeader("g"))
    assert decode_consumer_connections(answer.body).connections[0].client_addr == "10.0.0.9:1"


@pytest.mark.long
def test_a_worker_that_stays_silent_is_waited_for_but_not_for_ever(rig: CoordinatorRig) -> None:
    rig.kill()
    rig.occupy(0)
    rig.occupy(1)
    rig.start()
    worker = rig.worker(0)
    worker.open_client(1)
    forward = worker.start_forward(
        1, Command.request(RequestCode.HEART_BEAT, body=heartbeat("c"), serialization=Serialization.JSON)
    )
    with pytest.raises(TimeoutError):
        worker.pump(1)
    assert worker.finish(forward).code == ResponseCode.SUCCESS
    assert members(worker) == ["c"]
    assert locked(worker, "c", 0) == []
    late = rig.worker(1, hello=False)
    late.hello()
    late.open_client(3)
    late.tell(InternalCode.KEPT, KeptHeader(3, "client", 0), worker.keep["client"].replace(b'"c"', b'"late"'))
    late.tell(InternalCode.REPLAY_DONE)
    worker.asked.clear()
    assert worker.pushed()[1].code == RequestCode.NOTIFY_CONSUMER_IDS_CHANGED
    assert members(worker) == ["c", "late"]
