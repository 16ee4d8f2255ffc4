"""What the coordinator promises, as clients of a whole broker see it: members, locks, offsets, deletions."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shmq.base.runtime_dir import page_name
from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import build_subscription
from shmq.protocol import fastjson
from shmq.protocol.bodies.groups import decode_consumer_list
from shmq.protocol.bodies.heartbeat import ConsumerData, HeartbeatData, encode_heartbeat
from shmq.protocol.bodies.offsets import QueueLockRequest, decode_locked_queues, encode_queue_locks
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder
from shmq.protocol.headers.offset import UpdateConsumerOffsetHeader
from shmq.protocol.headers.pull import PULL_COMMIT_OFFSET, PULL_SUBSCRIPTION
from shmq.protocol.headers.send import SendMessageV2Header
from shmq.store.check import check_store
from tests.helpers.supervised_broker import RawClient, SupervisedBroker, running_broker
from tests.helpers.waiting import wait_until

COORDINATOR = "shmq: coordinator broker-t"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[SupervisedBroker]:
    with running_broker(tmp_path) as running:
        yield running


def beat(client: RawClient, client_id: str, topic: str = "t") -> None:
    consumer = ConsumerData("g", subscriptions=[build_subscription(topic, "*", 1)])
    body = encode_heartbeat(HeartbeatData(client_id, [], [consumer]))
    assert client.ask(RequestCode.HEART_BEAT, body=body).code == ResponseCode.SUCCESS


def members(client: RawClient) -> list[str]:
    answer = client.ask(RequestCode.GET_CONSUMER_LIST_BY_GROUP, {"consumerGroup": "g"})
    return sorted(decode_consumer_list(answer.body)) if answer.code == ResponseCode.SUCCESS else []


def locked(client: RawClient, client_id: str, *queue_ids: int) -> list[int]:
    queues = [MessageQueue("t", "broker-t", queue_id) for queue_id in queue_ids]
    body = encode_queue_locks(QueueLockRequest("g", client_id, queues))
    answer = client.ask(RequestCode.LOCK_BATCH_MQ, body=body)
    return [queue.queue_id for queue in decode_locked_queues(answer.body)]


def pull(client: RawClient, offset: int, **more: Any) -> Command:
    ext = {
        "consumerGroup": "g",
        "topic": "t",
        "queueId": 0,
        "queueOffset": offset,
        "maxMsgNums": 32,
        "sysFlag": PULL_SUBSCRIPTION,
        "commitOffset": 0,
        "suspendTimeoutMillis": 0,
        "subscription": "*",
        "subVersion": 1,
        **more,
    }
    return client.ask(RequestCode.PULL_MESSAGE, ext)


def next_offset(answer: Command) -> int:
    assert answer.ext is not None
    return int(answer.ext["nextBeginOffset"])


def commit(client: RawClient, offset: int) -> Command:
    ext = {"consumerGroup": "g", "topic": "t", "queueId": 0, "commitOffset": offset}
    return client.ask(RequestCode.UPDATE_CONSUMER_OFFSET, ext)


def committed(client: RawClient) -> int:
    ext = {"consumerGroup": "g", "topic": "t", "queueId": 0, "setZeroIfNotFound": "false"}
    answer = client.ask(RequestCode.QUERY_CONSUMER_OFFSET, ext)
    assert answer.code == ResponseCode.SUCCESS and answer.ext is not None, answer
    return int(answer.ext["offset"])


def send_some(client: RawClient, count: int) -> None:
    for n in range(count):
        assert client.send("t", b"%d" % n).code == ResponseCode.SUCCESS


@pytest.mark.long
def test_members_and_locks_outlive_the_coordinator(broker: SupervisedBroker) -> None:
    with broker.connect() as one, broker.connect() as two, broker.connect(tcp=True) as three:
        for client, name in ((one, "a"), (two, "b"), (three, "c")):
            beat(client, name)
        assert members(one) == ["a", "b", "c"]
        assert locked(one, "a", 0, 1) == [0, 1]
        for _ in range(2):
            first = broker.children()[COORDINATOR]
            os.kill(first, signal.SIGKILL)
            assert members(two) == ["a", "b", "c"]
            assert locked(three, "c", 0, 1, 2) == [2]
            wait_until(lambda first=first: broker.children().get(COORDINATOR, first) != first, 10)
    with broker.connect() as four:
        wait_until(lambda: members(four) == [], 10, "closed connections left the group")


@pytest.mark.long
def test_offsets_outlive_every_process(tmp_path: Path) -> None:
    with running_broker(tmp_path) as broker:
        with broker.connect() as client:
            send_some(client, 10)
            beat(client, "a")
            assert commit(client, 7).code == ResponseCode.SUCCESS
            assert committed(client) == 7
        broker.kill()
    with running_broker(tmp_path) as broker:
        with broker.connect() as client:
            assert committed(client) == 7
            assert commit(client, 9).code == ResponseCode.SUCCESS
        assert broker.stop() == 0
    found = fastjson.loads((tmp_path / "store" / "config" / "consumerOffset.json").read_bytes())
    assert found["offsetTable"]["t@g"] == {0: 9}
    with running_broker(tmp_path) as broker, broker.connect() as client:
        assert committed(client) == 9


@pytest.mark.long
def test_offsets_outlive_a_page_that_no_longer_fits(tmp_path: Path) -> None:
    with running_broker(tmp_path, flushConsumerOffsetInterval="60000") as broker:
        with broker.connect() as client:
            send_some(client, 10)
            beat(client, "a")
            assert commit(client, 7).code == ResponseCode.SUCCESS
        broker.kill()
    with running_broker(tmp_path, queueSlots="5000") as broker, broker.connect() as client:
        assert "RecoveryMode.FULL" in broker.log_text()
        assert committed(client) == 7


def test_a_reset_reaches_a_running_consumer_and_cannot_be_overwritten(broker: SupervisedBroker) -> None:
    with broker.connect() as client, broker.connect() as operator:
        send_some(client, 10)
        beat(client, "a")
        assert (
            next_offset(pull(client, 5, sysFlag=PULL_SUBSCRIPTION | PULL_COMMIT_OFFSET, commitOffset=5)) == 10
        )
        assert committed(client) == 5
        ext = {"group": "g", "topic": "t", "timestamp": 0, "isForce": "true", "queueId": 0, "offset": 2}
        answer = operator.ask(RequestCode.INVOKE_BROKER_TO_RESET_OFFSET, ext)
        assert answer.code == ResponseCode.SUCCESS, answer
        commit(client, 8)
        assert committed(client) == 2
        moved = pull(client, 10)
        assert (moved.code, next_offset(moved)) == (ResponseCode.PULL_OFFSET_MOVED, 2)
        assert pull(client, 2).code == ResponseCode.SUCCESS
        wait_until(lambda: commit(client, 9).code == 0 and committed(client) == 9, 5, "commits count again")


@pytest.mark.long
def test_a_topic_deleted_under_its_senders_never_gives_an_offset_twice(
    broker: SupervisedBroker, tmp_path: Path
) -> None:
    offsets: list[int] = []
    refused: list[Command] = []
    stop = threading.Event()

    def send() -> None:
        with broker.connect() as client:
            while not stop.is_set():
                answer = client.send("t", b"x")
                if answer.code == ResponseCode.SUCCESS:
                    assert answer.ext is not None
                    offsets.append(int(answer.ext["queueOffset"]))
                else:
                    refused.append(answer)

    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    with broker.connect() as operator:
        for round_number in range(5):
            wait_until(lambda n=round_number: len(offsets) > 200 * (n + 1), 20, "sends go on")
            answer = operator.ask(RequestCode.DELETE_TOPIC_IN_BROKER, {"topic": "t"})
            assert answer.code == ResponseCode.SUCCESS, answer
    wait_until(lambda: len(offsets) > 1500, 20, "sends go on")
    stop.set()
    for sender in senders:
        sender.join(10)
    assert len(set(offsets)) == len(offsets)
    passing = (ResponseCode.TOPIC_NOT_EXIST, ResponseCode.SYSTEM_BUSY, ResponseCode.SERVICE_NOT_AVAILABLE)
    assert [answer for answer in refused if answer.code not in passing] == []
    assert broker.stop() == 0
    assert list(check_store(tmp_path / "store")) == []


@pytest.mark.long
def test_a_topic_made_again_goes_on_even_when_the_page_is_lost(tmp_path: Path) -> None:
    with running_broker(tmp_path) as broker:
        with broker.connect() as client:
            send_some(client, 5)
            assert client.ask(RequestCode.DELETE_TOPIC_IN_BROKER, {"topic": "t"}).code == 0
            send_some(client, 3)
            assert client.max_offset("t") == 8
            assert client.ask(RequestCode.DELETE_TOPIC_IN_BROKER, {"topic": "t"}).code == 0
        broker.kill()
    name = page_name(tmp_path / "store").removeprefix("/")
    for path in Path("/dev/shm").glob(f"*{name}*"):
        path.unlink()
    with running_broker(tmp_path) as broker, broker.connect() as client:
        send_some(client, 2)
        assert client.max_offset("t") == 10
        found = pull(client, 0)
        assert (found.code, next_offset(found)) == (ResponseCode.PULL_OFFSET_MOVED, 8)
        assert broker.stop() == 0
    assert list(check_store(tmp_path / "store")) == []


@pytest.mark.parametrize(
    "point",
    [
        "delete.retired",
        "delete.before_claim",
        "delete.saved",
    ],
)
@pytest.mark.long
def test_a_deletion_cut_off_with_the_page_lost_keeps_the_last_offsets(tmp_path: Path, point: str) -> None:
    """The topic had an earlier life, too: what the file says of that is not enough."""
    with running_broker(tmp_path) as broker:
        with broker.connect() as client:
            send_some(client, 2)
            assert client.ask(RequestCode.DELETE_TOPIC_IN_BROKER, {"topic": "t"}).code == 0
            send_some(client, 5)
        assert broker.stop() == 0
    environment = {"SHMQ_FAULTS": f"{point}=stop", "SHMQ_FAULTS_DIR": str(tmp_path)}
    broker = SupervisedBroker(tmp_path, environment=environment).start()
    with broker.connect() as client:
        send_some(client, 3)
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.ask(RequestCode.DELETE_TOPIC_IN_BROKER, {"topic": "t"})
    wait_until((tmp_path / point).exists, 10, "the coordinator stands in the deletion")
    broker.kill_all()
    name = page_name(tmp_path / "store").removeprefix("/")
    for path in Path("/dev/shm").glob(f"*{name}*"):
        path.unlink()
    with running_broker(tmp_path) as broker, broker.connect() as client:
        assert not (tmp_path / "store" / "consumequeue" / "t").exists()
        send_some(client, 1)
        assert client.max_offset("t") == 11
        assert broker.stop() == 0
    assert list(check_store(tmp_path / "store")) == []


@pytest.mark.long
def test_many_new_groups_and_topics_at_once_share_few_writes(broker: SupervisedBroker) -> None:
    """Their first sends and commits arrive together; the files are not written once for each."""
    count = 200
    sends, commits = [], []
    for n in range(count):
        send = SendMessageV2Header("PG", f"t{n}", "TBW102", 1, 0, 0, 1, 0, "")
        sends.append(Command.request(RequestCode.SEND_MESSAGE_V2, send, b"x"))
        commit = UpdateConsumerOffsetHeader(f"g{n}", f"t{n}", 0, 1)
        commits.append(Command.request(RequestCode.UPDATE_CONSUMER_OFFSET, commit))
    with broker.connect() as client:
        for requests in (sends, commits):
            client.sock.sendall(b"".join(bytes(part) for r in requests for part in encode_command(r)))
            wanted, decoder = {request.opaque for request in requests}, FrameDecoder()
            while wanted:
                for frame in decoder.feed(client.sock.recv(1 << 16)):
                    answer = decode_frame(bytes(frame))
                    assert answer.code == ResponseCode.SUCCESS, answer
                    wanted.remove(answer.opaque)
        for name in ("topics.json", "subscriptionGroup.json"):
            saved = fastjson.loads((broker.folder / "store" / "config" / name).read_bytes())
            assert saved["dataVersion"]["counter"] < count / 2
        for n in range(count):
            ext = {"consumerGroup": f"g{n}", "topic": f"t{n}", "queueId": 0}
            found = client.ask(RequestCode.QUERY_CONSUMER_OFFSET, ext)
            assert found.ext is not None and found.ext["offset"] == "1"
